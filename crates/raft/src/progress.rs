//! Progress of a replica's state machine, shared with the other parts of the replica.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_types::peer::SnapshotMeta;
use quorate_types::state::{Head, StoredMembership};

/// The applied state of a replica, as readers outside the state machine see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct AppliedState {
    pub(crate) head: Head,
    pub(crate) membership: Arc<StoredMembership>,
    pub(crate) snapshots_installed: u64,
}

impl AppliedState {
    pub(crate) fn snapshot_meta(&self) -> SnapshotMeta {
        SnapshotMeta { applied: self.head.applied, membership: (*self.membership).clone() }
    }
}

/// Progress of one replica's state machine. Clones share it.
///
/// # Invariants
/// * The applied entry never moves backward.
/// * The flushed entry never moves backward, and never past the applied one.
/// * Nothing is written to the state after [`Progress::retire`] has returned.
#[derive(Clone, Default)]
pub(crate) struct Progress {
    applied: Arc<Mutex<AppliedState>>,
    flushed: Arc<Mutex<SnapshotMeta>>,
    /// The approximate size of the state in bytes, as last measured.
    state_bytes: Arc<AtomicU64>,
    /// Locked while the state is written; true once the replica is being destroyed.
    retired: Arc<Mutex<bool>>,
}

impl Progress {
    /// Forbids further writes to the state; waits for the one in progress. A later write would
    /// survive the replica.
    pub(crate) fn retire(&self) {
        *lock(&self.retired) = true;
    }

    /// The permission to write to the state, held during the write. Refused once the replica is
    /// being destroyed.
    pub(crate) fn write_permit(&self) -> io::Result<MutexGuard<'_, bool>> {
        let retired = lock(&self.retired);
        if *retired { Err(io::Error::other("the replica is destroyed")) } else { Ok(retired) }
    }

    pub(crate) fn applied(&self) -> AppliedState {
        lock(&self.applied).clone()
    }

    pub(crate) fn head(&self) -> Head {
        lock(&self.applied).head
    }

    /// Publishes the state machine's new head and membership.
    pub(crate) fn set_applied(&self, head: Head, membership: &StoredMembership) {
        let mut applied = lock(&self.applied);
        assert!(head.applied >= applied.head.applied, "the applied entry never moves backward");
        applied.head = head;
        if *applied.membership != *membership {
            applied.membership = Arc::new(membership.clone());
        }
    }

    pub(crate) fn count_installed_snapshot(&self) {
        lock(&self.applied).snapshots_installed += 1;
    }

    /// The approximate size of the state in bytes, as last measured; 0 before that.
    pub(crate) fn state_bytes(&self) -> u64 {
        self.state_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_state_bytes(&self, bytes: u64) {
        self.state_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The newest state that is known to be durable.
    pub(crate) fn flushed(&self) -> SnapshotMeta {
        lock(&self.flushed).clone()
    }

    /// Records that the state as of `meta` is durable: a flush began after `meta` was applied, and
    /// has ended.
    pub(crate) fn set_flushed(&self, meta: SnapshotMeta) {
        assert!(meta.applied <= self.head().applied, "only an applied state can be durable");
        let mut flushed = lock(&self.flushed);
        if meta.applied > flushed.applied {
            *flushed = meta;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("only a broken invariant poisons this lock")
}
