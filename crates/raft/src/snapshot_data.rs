//! Snapshots as openraft carries them.

use std::any::Any;
use std::io;
use std::path::PathBuf;

use openraft::RaftSnapshotBuilder;
use openraft::storage::Snapshot;
use quorate_machine::state::Pinned;

use crate::convert;
use crate::openraft_types::{self as raft, TypeConfig};
use crate::progress::Progress;
use crate::snapshot_slots::Slot;

/// A snapshot as openraft carries it.
pub(crate) enum SnapshotData {
    /// Names a durable state; there is no data to send.
    Mark,
    /// The state at one point in time, pinned until it has been sent.
    Pinned(Pin),
    /// No slot is free: the state is not pinned, and there is no data to send.
    NoSlot,
    /// Received, verified and durable files.
    Staged(Received),
}

/// A pinned state and the slot that it is sent in. The slot is dropped last: it bounds the pins.
pub(crate) struct Pin {
    pinned: Box<dyn Pinned>,
    _slot: Slot,
}

impl Pin {
    pub(crate) fn new(pinned: Box<dyn Pinned>, slot: Slot) -> Self {
        Pin { pinned, _slot: slot }
    }
}

impl std::ops::Deref for Pin {
    type Target = dyn Pinned;

    fn deref(&self) -> &Self::Target {
        &*self.pinned
    }
}

/// The files of a received snapshot: durable, verified before Raft gets them, and consumed by the
/// installation.
pub struct Received {
    files: Vec<PathBuf>,
    /// Keeps the files in place.
    _keep: Box<dyn Any + Send + Sync>,
}

impl Received {
    /// A snapshot of these files. `keep` is dropped when the installation has ended or will not
    /// happen. That can be later than the end of the call that started it: an installation outlives
    /// its call when the replica is destroyed meanwhile.
    pub fn new(files: Vec<PathBuf>, keep: impl Any + Send + Sync) -> Self {
        Received { files, _keep: Box::new(keep) }
    }

    /// The files, in the order in which they are installed.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

/// "Builds" the snapshot that names the durable state.
pub(crate) struct MarkBuilder(Progress);

impl MarkBuilder {
    pub(crate) fn new(progress: Progress) -> Self {
        MarkBuilder(progress)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for MarkBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot<raft::LeaderId, u64, raft::NodeRef, SnapshotData>> {
        let meta = convert::snapshot_meta(&self.0.flushed());
        Ok(Snapshot { meta, snapshot: SnapshotData::Mark })
    }
}
