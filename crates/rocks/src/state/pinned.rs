//! A replica's state, pinned at one point in time while a snapshot of it is sent.
//!
//! A RocksDB snapshot borrows its database, so it lives on the stack of a dedicated thread. The
//! thread takes the snapshot, reads its metadata, and then writes files on request, each when the
//! one before it is taken. It ends when the handle is dropped.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use quorate_types::ReplicaId;
use quorate_types::peer::SnapshotMeta;
use rocksdb::DB;

use super::error::io;
use super::export;
use super::options::StateOptions;
use super::view::{self, RocksView};
use quorate_machine::state::{Export, Pinned, StateError, meta};

/// The handle of the thread that holds the snapshot.
pub(super) struct RocksPinned {
    meta: SnapshotMeta,
    bytes: u64,
    thread: Option<(SyncSender<Job>, JoinHandle<()>)>,
}

/// A request to write the state into files.
struct Job {
    dir: PathBuf,
    target: ReplicaId,
    files: SyncSender<Result<PathBuf, StateError>>,
}

impl RocksPinned {
    /// Pins the replica's current state.
    pub(super) fn new(db: Arc<DB>, options: StateOptions, replica: ReplicaId) -> Result<Self, StateError> {
        let bytes = view::approximate_bytes(&db, replica);
        let (answer, meta) = sync_channel(1);
        // Callers wait for the result, so the channel needs no buffer.
        let (jobs, orders) = sync_channel(0);
        let thread = thread::Builder::new()
            .name(format!("pin-{replica}"))
            .spawn(move || hold(&db, &options, replica, &answer, &orders))
            .map_err(io)?;
        let meta = meta.recv().map_err(|_| gone())??;
        Ok(RocksPinned { meta, bytes, thread: Some((jobs, thread)) })
    }
}

impl Pinned for RocksPinned {
    fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn export(&self, dir: &Path, target: ReplicaId) -> Result<Box<dyn Export>, StateError> {
        let (jobs, _) = self.thread.as_ref().expect("the thread ends with this handle");
        // Without a buffer: the thread writes one file ahead.
        let (files, ready) = sync_channel(0);
        jobs.send(Job { dir: dir.to_path_buf(), target, files }).map_err(|_| gone())?;
        Ok(Box::new(Files(ready)))
    }
}

/// The files that the thread writes. Dropping it ends the export at its next file.
struct Files(Receiver<Result<PathBuf, StateError>>);

impl Export for Files {
    fn next_file(&mut self) -> Result<Option<PathBuf>, StateError> {
        // The thread closes the channel after the last file and after a failure.
        self.0.recv().ok().transpose()
    }
}

impl Drop for RocksPinned {
    /// Waits until the thread has released the snapshot and the database.
    fn drop(&mut self) {
        if let Some((jobs, thread)) = self.thread.take() {
            drop(jobs);
            if thread.join().is_err() {
                tracing::error!("the thread that held a snapshot of the state panicked");
            }
        }
    }
}

/// Main function of the thread: holds a snapshot until the handle is dropped.
fn hold(
    db: &DB,
    options: &StateOptions,
    replica: ReplicaId,
    answer: &SyncSender<Result<SnapshotMeta, StateError>>,
    orders: &Receiver<Job>,
) {
    let view = RocksView::new(db);
    // Reading the metadata takes the snapshot. The caller waits only for this.
    if answer.send(meta::snapshot(&view, replica)).is_err() {
        return;
    }
    for Job { dir, target, files } in orders {
        let mut finished = |file| files.send(Ok(file)).map_err(|_| io("the export was abandoned"));
        if let Err(error) = export::write_files(&view, options, replica, &dir, target, &mut finished) {
            // A receiver that no longer waits is not an error: `dir` may be deleted at any time.
            let _ = files.send(Err(error));
        }
    }
}

fn gone() -> StateError {
    io("the thread that holds the snapshot is gone")
}
