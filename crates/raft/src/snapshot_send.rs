//! Sends snapshots: writes the pinned state of a replica into files and streams them to a follower.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use quorate_machine::state::{Pinned, StateError};
use quorate_testpoints::fail_point;
use quorate_types::peer::{SnapshotHeader, SnapshotMeta};
use quorate_types::report::ReplicaReport;
use quorate_types::{GroupId, ReplicaId, Vote};
use tokio::sync::Semaphore;
use tracing::{Instrument, info, info_span, warn};

use crate::blocking;
use crate::link::Link;
use crate::transport::SnapshotUnsent;

/// Snapshots that a node sends at the same time.
const SNAPSHOTS_OUT_MAX: usize = 2;
/// Length of a recorded failure: it is part of every report.
const FAILURE_CHARS_MAX: usize = 200;
/// Bytes read at a time to compute a file's checksum.
const CHECKSUM_BUFFER_BYTES: usize = 256 << 10;

/// A snapshot was not delivered. openraft tries again with a new one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("the node is stopping")]
    Stopping,
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error(transparent)]
    State(StateError),
    #[error(transparent)]
    Unsent(SnapshotUnsent),
    /// The thread that wrote the files panicked, or was stopped with the runtime.
    #[error(transparent)]
    Ended(tokio::task::JoinError),
}

/// The snapshots that a node sends.
pub(crate) struct SnapshotsOut {
    dir: PathBuf,
    slots: Semaphore,
    next: AtomicU64,
    /// Transfers in progress, by group.
    sending: Mutex<HashMap<GroupId, usize>>,
    /// Why the last snapshot from one replica to another was not delivered. Bounded: entries that
    /// no leader's report needs are dropped.
    failed: Mutex<HashMap<(ReplicaId, ReplicaId), String>>,
}

impl SnapshotsOut {
    /// No snapshots yet; their files go to `dir`.
    pub(crate) fn new(dir: PathBuf) -> Self {
        SnapshotsOut {
            dir,
            slots: Semaphore::new(SNAPSHOTS_OUT_MAX),
            next: AtomicU64::new(0),
            sending: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// Whether a snapshot of the group is being sent. Its log must be retained: otherwise the
    /// receiver needs another snapshot right after this one.
    pub(crate) fn is_sending(&self, group: GroupId) -> bool {
        self.sending().contains_key(&group)
    }

    /// Whether a snapshot of any group is being written or sent.
    pub(crate) fn is_sending_any(&self) -> bool {
        !self.sending().is_empty()
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

    /// Sends a snapshot over the link and waits until it is installed. Returns the receiver's vote.
    /// At most [`SNAPSHOTS_OUT_MAX`] are sent at the same time.
    pub(crate) async fn send(&self, link: &Link, vote: Vote, pinned: Box<dyn Pinned>) -> Result<Vote, SendError> {
        let Link { group, from, to, node, .. } = link;
        let span = info_span!("send_snapshot", %group, %from, %to, %node, term = vote.term);
        let sent = self.write_and_stream(link, vote, pinned).instrument(span).await;
        let mut failed = self.failed();
        match &sent {
            Ok(_) => failed.remove(&(*from, *to)),
            Err(reason) => {
                let reason = reason.to_string().chars().take(FAILURE_CHARS_MAX).collect();
                failed.insert((*from, *to), reason)
            }
        };
        sent
    }

    async fn write_and_stream(&self, link: &Link, vote: Vote, pinned: Box<dyn Pinned>) -> Result<Vote, SendError> {
        let _slot = self.slots.acquire().await.map_err(|_closed| SendError::Stopping)?;
        // Only now: the number of retained logs is bounded like the number of transfers.
        let _sending = Sending::start(self, link.group);
        let dir = OutgoingDir(self.dir.join(format!("out-{}", self.next.fetch_add(1, Ordering::Relaxed))));
        let (path, to) = (dir.0.clone(), link.to);
        let written = blocking::elsewhere(move || write_files(&path, pinned.as_ref(), to)).await;
        let (meta, files) = written.map_err(SendError::Ended)??;
        fail_point("snapshot-written");
        info!(applied = ?meta.applied, files = files.len(), "sending a snapshot");
        let header = SnapshotHeader {
            group: link.group,
            from: link.from,
            to: link.to,
            vote,
            meta,
            files: files.iter().map(|file| (file.bytes, file.checksum)).collect(),
        };
        let paths = files.into_iter().map(|file| file.path).collect();
        link.wire.transport().send_snapshot(link.node, header, paths).await.map_err(SendError::Unsent)
    }

    fn sending(&self) -> MutexGuard<'_, HashMap<GroupId, usize>> {
        self.sending.lock().expect("no code panics while it holds this lock")
    }

    fn failed(&self) -> MutexGuard<'_, HashMap<(ReplicaId, ReplicaId), String>> {
        self.failed.lock().expect("no code panics while it holds this lock")
    }
}

/// Counts a transfer as in progress until it is dropped.
struct Sending<'a>(&'a SnapshotsOut, GroupId);

impl<'a> Sending<'a> {
    fn start(snapshots: &'a SnapshotsOut, group: GroupId) -> Self {
        *snapshots.sending().entry(group).or_default() += 1;
        Sending(snapshots, group)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let mut sending = self.0.sending();
        let count = sending.get_mut(&self.1).expect("a transfer in progress is counted");
        *count -= 1;
        if *count == 0 {
            sending.remove(&self.1);
        }
    }
}

/// A file of a snapshot to send.
struct OutgoingFile {
    path: PathBuf,
    bytes: u64,
    checksum: u32,
}

fn write_files(dir: &Path, pinned: &dyn Pinned, to: ReplicaId) -> Result<(SnapshotMeta, Vec<OutgoingFile>), SendError> {
    std::fs::create_dir_all(dir).map_err(|error| SendError::Io { path: dir.to_owned(), error })?;
    let paths = pinned.write_files(dir, to).map_err(SendError::State)?;
    let files: Result<Vec<OutgoingFile>, SendError> = paths.into_iter().map(measure).collect();
    Ok((pinned.meta().clone(), files?))
}

/// Computes the length and the checksum of a file.
fn measure(path: PathBuf) -> Result<OutgoingFile, SendError> {
    use std::io::Read;
    let read = || -> std::io::Result<(u64, u32)> {
        let mut file = std::fs::File::open(&path)?;
        let mut buffer = vec![0; CHECKSUM_BUFFER_BYTES];
        let (mut bytes, mut checksum) = (0, 0);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok((bytes, checksum)),
                read => {
                    checksum = crc32c::crc32c_append(checksum, &buffer[..read]);
                    bytes += read as u64;
                }
            }
        }
    };
    match read() {
        Ok((bytes, checksum)) => Ok(OutgoingFile { path, bytes, checksum }),
        Err(error) => Err(SendError::Io { path, error }),
    }
}

/// Removes the directory when the transfer has ended, successful or not.
struct OutgoingDir(PathBuf);

impl Drop for OutgoingDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(dir = %self.0.display(), %error, "snapshot files left behind; they are removed at the next start");
        }
    }
}
