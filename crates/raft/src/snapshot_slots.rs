//! The slots of the snapshots that a node sends, and the failures of those that it sent.
//!
//! ```text
//!   slot claimed ─→ log held ─→ state pinned ─→ receiver asked ─→ files sent ─→ installed
//!        └─ none free: nothing is pinned; openraft asks again after a pause
//! ```
//!
//! A slot is claimed before the state is pinned, so slots also bound the threads and RocksDB
//! snapshots of pins. A snapshot that waited for its turn with the pin in hand was stale when its
//! turn came, and the log above it was purged.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_machine::state::EXPORT_BYTES_MAX;
use quorate_types::report::ReplicaReport;
use quorate_types::{GroupId, ReplicaId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Room;
use crate::error::FileError;
use crate::snapshot_doubts::Doubts;

/// Snapshots that a node sends at the same time; more would slow each of them down.
pub(crate) const SNAPSHOTS_OUT_MAX: usize = 2;
/// Length of a recorded failure: it is part of every report.
const FAILURE_CHARS_MAX: usize = 200;
/// Room for a snapshot whose size on disk is estimated as 0, because it is not flushed yet.
const EXPORT_BYTES_MIN: u64 = 8 << 20;

/// The snapshots that a node sends.
pub(crate) struct SnapshotsOut {
    dir: PathBuf,
    room: Room,
    slots: Arc<Semaphore>,
    next: AtomicU64,
    pub(crate) doubts: Arc<Doubts>,
    /// Claimed slots, by group.
    sending: Mutex<HashMap<GroupId, usize>>,
    /// Why the last snapshot from one replica to another was not delivered. Bounded: entries that
    /// no leader's report needs are dropped.
    failed: Mutex<HashMap<(ReplicaId, ReplicaId), String>>,
}

impl SnapshotsOut {
    /// No snapshots yet; their files go to `dir`, whose disk has this room.
    pub(crate) fn new(dir: PathBuf, room: Room) -> Self {
        SnapshotsOut {
            dir,
            room,
            slots: Arc::new(Semaphore::new(SNAPSHOTS_OUT_MAX)),
            next: AtomicU64::new(0),
            doubts: Arc::default(),
            sending: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// A slot for a snapshot of the group; none while [`SNAPSHOTS_OUT_MAX`] are taken. The group's
    /// log is retained until the slot is dropped: otherwise the receiver needs another snapshot
    /// right after this one.
    pub(crate) fn claim(self: &Arc<Self>, group: GroupId) -> Option<Slot> {
        let permit = self.slots.clone().try_acquire_owned().ok()?;
        let mut sending = self.sending();
        *sending.entry(group).or_default() += 1;
        assert!(sending.values().sum::<usize>() <= SNAPSHOTS_OUT_MAX, "every snapshot that is sent has a slot");
        drop(sending);
        Some(Slot { snapshots: self.clone(), group, _permit: permit })
    }

    /// Whether a snapshot of the group is being sent.
    pub(crate) fn is_sending(&self, group: GroupId) -> bool {
        self.sending().contains_key(&group)
    }

    /// Whether a snapshot of any group is being sent.
    pub(crate) fn is_sending_any(&self) -> bool {
        !self.sending().is_empty()
    }

    /// Records the end of a transfer.
    pub(crate) fn ended(&self, from: ReplicaId, to: ReplicaId, failure: Option<String>) {
        let mut failed = self.failed();
        match failure {
            None => failed.remove(&(from, to)),
            Some(reason) => failed.insert((from, to), reason.chars().take(FAILURE_CHARS_MAX).collect()),
        };
    }

    /// Adds to the leaders' reports why snapshots were not delivered. `reports` are those of all
    /// replicas of this node.
    pub(crate) fn explain_failures(&self, reports: &mut [ReplicaReport]) {
        self.failed().retain(|(from, to), reason| {
            let leader = reports.iter_mut().find(|report| report.replica == *from);
            let Some(follower) = leader.and_then(|report| report.others.iter_mut().find(|other| other.replica == *to))
            else {
                return false;
            };
            follower.snapshot_failure = Some(reason.clone());
            true
        });
    }

    /// A new directory for the files of a snapshot of about `bytes`. Refused if writing them could
    /// take the disk below its reserve.
    pub(crate) fn outgoing_dir(&self, bytes: u64) -> Result<OutgoingDir, FileError> {
        // The estimate leaves out the memtables, so it counts twice.
        self.check_room(bytes.saturating_mul(2).clamp(EXPORT_BYTES_MIN, EXPORT_BYTES_MAX))?;
        let path = self.dir.join(format!("out-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&path).map_err(|error| FileError::Io { path: path.clone(), error })?;
        Ok(OutgoingDir(path))
    }

    /// Checks that this many bytes may be written.
    pub(crate) fn check_room(&self, needs: u64) -> Result<(), FileError> {
        match (self.room)() {
            has if has < needs => Err(FileError::NoSpace { needs, has }),
            _ => Ok(()),
        }
    }

    fn sending(&self) -> MutexGuard<'_, HashMap<GroupId, usize>> {
        self.sending.lock().expect("only a broken invariant poisons this lock")
    }

    fn failed(&self) -> MutexGuard<'_, HashMap<(ReplicaId, ReplicaId), String>> {
        self.failed.lock().expect("only a broken invariant poisons this lock")
    }
}

/// A claimed slot of the snapshots that a node sends. The group's log is retained while it exists.
pub(crate) struct Slot {
    snapshots: Arc<SnapshotsOut>,
    group: GroupId,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut sending = self.snapshots.sending();
        let count = sending.get_mut(&self.group).expect("a claimed slot is counted");
        *count -= 1;
        if *count == 0 {
            sending.remove(&self.group);
        }
    }
}

/// A directory that is removed when the transfer has ended, successful or not.
pub(crate) struct OutgoingDir(PathBuf);

impl OutgoingDir {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for OutgoingDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %self.0.display(), %error, "snapshot files left behind; they are removed at the next start");
        }
    }
}
