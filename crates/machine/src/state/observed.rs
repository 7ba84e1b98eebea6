//! A state whose calls pass an observer: a test counts or delays them, the simulation ends them
//! with the life of their node.

use std::path::PathBuf;
use std::sync::Arc;

use quorate_types::ReplicaId;
use quorate_types::peer::SnapshotMeta;

use super::{Batch, Pinned, State, StateError, View};

/// A call of [`State`], as its observer sees it.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    /// [`State::view`].
    View,
    /// [`State::write`].
    Write,
    /// [`State::flush`].
    Flush,
    /// [`State::pin`].
    Pin,
    /// [`State::verify`].
    Verify,
    /// [`State::install`], with the files of the snapshot.
    Install(&'a [PathBuf]),
    /// [`State::destroy`].
    Destroy,
    /// [`State::approximate_bytes`].
    ApproximateBytes,
    /// [`State::replicas`].
    Replicas,
}

/// Sees the calls of an [`ObservedState`].
pub trait Observer: Send + Sync + 'static {
    /// Called before each call, and may block. An error is the result of the call, and the state
    /// does not see it; a call that has no error returns zero.
    fn before(&self, _call: Call<'_>) -> Result<(), StateError> {
        Ok(())
    }

    /// Passes a view on to its reader, or one around it.
    fn view(
        &self,
        view: &dyn View,
        read: &mut dyn FnMut(&dyn View) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        read(view)
    }

    /// Passes a pin on to its caller, or one around it.
    fn pinned(&self, pinned: Box<dyn Pinned>) -> Box<dyn Pinned> {
        pinned
    }
}

/// A state whose calls pass an observer.
pub struct ObservedState<O> {
    state: Arc<dyn State>,
    observer: O,
}

impl<O: Observer> ObservedState<O> {
    /// Puts an observer before a state.
    pub fn new(state: Arc<dyn State>, observer: O) -> Self {
        ObservedState { state, observer }
    }

    fn after(&self, call: Call<'_>) -> Result<&dyn State, StateError> {
        self.observer.before(call)?;
        Ok(&*self.state)
    }
}

impl<O: Observer> State for ObservedState<O> {
    fn view(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), StateError>) -> Result<(), StateError> {
        self.after(Call::View)?.view(&mut |view| self.observer.view(view, read))
    }

    fn write(&self, replica: ReplicaId, batch: Batch) -> Result<(), StateError> {
        self.after(Call::Write)?.write(replica, batch)
    }

    fn flush(&self) -> Result<(), StateError> {
        self.after(Call::Flush)?.flush()
    }

    fn pin(&self, replica: ReplicaId) -> Result<Box<dyn Pinned>, StateError> {
        Ok(self.observer.pinned(self.after(Call::Pin)?.pin(replica)?))
    }

    fn verify(
        &self,
        replica: ReplicaId,
        files: &[PathBuf],
        meta: &SnapshotMeta,
        progress: &mut dyn FnMut(),
    ) -> Result<(), StateError> {
        self.after(Call::Verify)?.verify(replica, files, meta, progress)
    }

    fn install(&self, replica: ReplicaId, files: &[PathBuf]) -> Result<(), StateError> {
        self.after(Call::Install(files))?.install(replica, files)
    }

    fn destroy(&self, replica: ReplicaId) -> Result<(), StateError> {
        self.after(Call::Destroy)?.destroy(replica)
    }

    fn approximate_bytes(&self, replica: ReplicaId) -> u64 {
        self.after(Call::ApproximateBytes).map_or(0, |state| state.approximate_bytes(replica))
    }

    fn replicas(&self) -> Result<Vec<ReplicaId>, StateError> {
        self.after(Call::Replicas)?.replicas()
    }
}
