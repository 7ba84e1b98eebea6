//! Receives snapshots: space is reserved first, then the files are written to a directory of their
//! own, where they are verified before Raft sees them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use quorate_machine::rate_limiter::SYNC_BYTES;
use quorate_raft::Room;
use quorate_types::NodeId;
use quorate_types::peer::SnapshotRefusal;
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::snapshots_out::PROGRESS_TIMEOUT;

/// Snapshots that a node receives concurrently.
const RECEIVING_MAX: usize = 2;
/// Files of a snapshot. The sender finishes a file at 32 MiB: 2 TiB.
const FILES_MAX: usize = 1 << 16;

/// The directory of incoming snapshots.
///
/// # Invariants
/// * No write of a snapshot takes the disk below its reserve, also not together with the snapshots
///   that others have reserved (held by the tests of this file).
pub(crate) struct Staging {
    dir: PathBuf,
    next: AtomicU64,
    permits: Arc<Semaphore>,
    space: Arc<Space>,
}

/// The disk of the staging directory.
struct Space {
    room: Room,
    /// Bytes that snapshots have reserved and not written yet.
    reserved: Mutex<u64>,
}

/// A slot and the space for a snapshot.
pub(crate) struct Reservation {
    space: ReservedSpace,
    permit: OwnedSemaphorePermit,
}

/// The space for a snapshot.
struct ReservedSpace {
    node: NodeId,
    space: Arc<Space>,
    /// The reserved bytes that are not written yet.
    left: u64,
}

/// A complete snapshot, durable. Dropping it deletes its files, unless they were consumed.
pub(crate) struct Staged {
    dir: PathBuf,
    files: Vec<PathBuf>,
    _permit: OwnedSemaphorePermit,
}

/// A part of a snapshot, as it is received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Bytes of a file. None: the sender is writing the next file, and lives.
    Data(Bytes),
    /// The end of a file, with its length and crc32c.
    FileEnd(u64, u32),
    /// The end of the snapshot.
    Last,
}

/// Why a snapshot was not received. The sender restarts from a fresh snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unstaged {
    /// The disk has too little space.
    #[error("{0}")]
    Refused(SnapshotRefusal),
    /// The data differs from its checksum, the transfer ended early, or the disk failed.
    #[error("{0}")]
    Broken(String),
}

impl Staging {
    /// Stages in `dir`, which exists, is empty, and is on the file system of the state. `room`
    /// measures that file system.
    pub(crate) fn new(dir: PathBuf, room: Room) -> Self {
        let space = Arc::new(Space { room, reserved: Mutex::default() });
        Staging { dir, next: AtomicU64::new(0), permits: Arc::new(Semaphore::new(RECEIVING_MAX)), space }
    }

    /// Reserves a slot and the space for a snapshot of about this many bytes on this node.
    pub(crate) fn reserve(&self, node: NodeId, bytes: u64) -> Result<Reservation, SnapshotRefusal> {
        let busy = SnapshotRefusal::Busy { node, receiving: RECEIVING_MAX as u32 };
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| busy)?;
        let mut reserved = self.space.reserved();
        let has = (self.space.room)().saturating_sub(*reserved);
        let needs = bytes.max(SYNC_BYTES);
        if has < needs {
            return Err(SnapshotRefusal::NoSpace { node, needs, has });
        }
        *reserved += bytes;
        drop(reserved);
        Ok(Reservation { space: ReservedSpace { node, space: self.space.clone(), left: bytes }, permit })
    }

    /// Receives all files, one after the other, and checks their lengths and checksums.
    pub(crate) async fn receive(
        &self,
        reservation: Reservation,
        parts: impl Stream<Item = Result<Part, Unstaged>> + Send,
    ) -> Result<Staged, Unstaged> {
        let dir = self.dir.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&dir).map_err(|e| broken(&dir, e))?;
        let Reservation { mut space, permit } = reservation;
        let mut staged = Staged { dir, files: Vec::new(), _permit: permit };
        let mut parts = Box::pin(parts);
        loop {
            let first = match next(&mut parts).await? {
                Part::Last => break,
                first => first,
            };
            if staged.files.len() == FILES_MAX {
                return Err(Unstaged::Broken(format!("a snapshot has at most {FILES_MAX} files")));
            }
            let path = staged.dir.join(staged.files.len().to_string());
            staged.files.push(path.clone());
            receive_file(&path, first, &mut space, &mut parts).await?;
        }
        crate::durable::sync_dir(&staged.dir).map_err(|e| broken(&staged.dir, e))?;
        Ok(staged)
    }
}

impl Space {
    fn reserved(&self) -> MutexGuard<'_, u64> {
        // A number is replaced as a whole, so a poisoned lock still guards a consistent one.
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReservedSpace {
    /// Checks that a few MiB may be written now, before the next sync. Users write to the disk too.
    fn check(&self) -> Result<(), Unstaged> {
        let others = self.space.reserved().saturating_sub(self.left);
        let has = (self.space.room)().saturating_sub(others);
        if has < SYNC_BYTES {
            let (node, needs) = (self.node, self.left.max(SYNC_BYTES));
            return Err(Unstaged::Refused(SnapshotRefusal::NoSpace { node, needs, has }));
        }
        Ok(())
    }

    /// Bytes were written: they are no longer free, and no longer reserved.
    fn wrote(&mut self, bytes: u64) {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        *self.space.reserved() -= bytes;
    }
}

impl Drop for ReservedSpace {
    fn drop(&mut self) {
        self.wrote(self.left);
    }
}

impl Staged {
    /// The files, in the order in which they came.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // A directory that cannot be deleted now is deleted at the next start.
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(%error, dir = %self.dir.display(), "staged snapshot not deleted");
        }
    }
}

/// Writes one file, of which `part` is the first part, and checks it against its end.
async fn receive_file(
    path: &Path,
    mut part: Part,
    space: &mut ReservedSpace,
    parts: &mut (impl Stream<Item = Result<Part, Unstaged>> + Unpin),
) -> Result<(), Unstaged> {
    space.check()?;
    let file = File::create_new(path).map_err(|e| broken(path, e))?;
    let mut file = tokio::fs::File::from_std(file);
    let (mut length, mut crc, mut unsynced) = (0, 0, 0);
    let expected = loop {
        let data = match part {
            Part::Data(data) => data,
            Part::FileEnd(length, checksum) => break (length, checksum),
            Part::Last => return Err(Unstaged::Broken("the transfer ended inside a file".to_owned())),
        };
        crc = crc32c::crc32c_append(crc, &data);
        file.write_all(&data).await.map_err(|e| broken(path, e))?;
        let bytes = data.len() as u64;
        space.wrote(bytes);
        length += bytes;
        unsynced += bytes;
        if unsynced >= SYNC_BYTES {
            file.sync_data().await.map_err(|e| broken(path, e))?;
            unsynced = 0;
            space.check()?;
        }
        part = next(parts).await?;
    };
    file.sync_all().await.map_err(|e| broken(path, e))?;
    if expected != (length, crc) {
        let reason =
            format!("a file of {length} bytes has checksum {crc:08x}, not {} and {:08x}", expected.0, expected.1);
        return Err(Unstaged::Broken(reason));
    }
    Ok(())
}

async fn next(parts: &mut (impl Stream<Item = Result<Part, Unstaged>> + Unpin)) -> Result<Part, Unstaged> {
    loop {
        let part = timeout(PROGRESS_TIMEOUT, parts.next()).await;
        let part = part.map_err(|_| Unstaged::Broken(format!("nothing came for {PROGRESS_TIMEOUT:?}")))?;
        match part.unwrap_or_else(|| Err(Unstaged::Broken("the transfer ended before its last part".to_owned())))? {
            Part::Data(data) if data.is_empty() => {}
            part => return Ok(part),
        }
    }
}

fn broken(path: &Path, error: std::io::Error) -> Unstaged {
    Unstaged::Broken(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    const NODE: NodeId = NodeId(4);
    const FIRST: &[u8] = b"the first file";
    const SECOND: &[u8] = b"and the second one";

    /// A file in parts of `size` bytes.
    fn file(bytes: &[u8], size: usize) -> Vec<Result<Part, Unstaged>> {
        let end = Part::FileEnd(bytes.len() as u64, crc32c::crc32c(bytes));
        bytes.chunks(size).map(|chunk| Part::Data(Bytes::copy_from_slice(chunk))).chain([end]).map(Ok).collect()
    }

    /// A snapshot of three files.
    fn snapshot(size: usize) -> Vec<Result<Part, Unstaged>> {
        [file(FIRST, size), file(b"", size), file(SECOND, size), vec![Ok(Part::Last)]].concat()
    }

    /// A staging directory on a disk with this room.
    fn staging_with(room: u64) -> (tempfile::TempDir, Arc<AtomicU64>, Staging) {
        let dir = tempfile::tempdir().unwrap();
        let room = Arc::new(AtomicU64::new(room));
        let measured = room.clone();
        let staging = Staging::new(dir.path().to_owned(), Arc::new(move || measured.load(Ordering::Relaxed)));
        (dir, room, staging)
    }

    fn staging() -> (tempfile::TempDir, Staging) {
        let (dir, _, staging) = staging_with(1 << 40);
        (dir, staging)
    }

    async fn receive(staging: &Staging, parts: Vec<Result<Part, Unstaged>>) -> Result<Staged, Unstaged> {
        staging.receive(staging.reserve(NODE, 0).unwrap(), stream::iter(parts)).await
    }

    fn left_over(dir: &tempfile::TempDir) -> usize {
        fs::read_dir(dir.path()).unwrap().count()
    }

    #[tokio::test]
    async fn files_are_put_together_from_parts_of_any_size_and_deleted_afterwards() {
        let (dir, staging) = staging();
        for size in [1, 5, 14, 1000] {
            let staged = receive(&staging, snapshot(size)).await.unwrap();
            let files: Vec<_> = staged.files().iter().map(|path| fs::read(path).unwrap()).collect();
            assert_eq!(files, [FIRST, b"", SECOND]);
            drop(staged);
            assert_eq!(left_over(&dir), 0);
        }
    }

    /// Every difference between a file and its end is noticed, and no file stays behind.
    #[tokio::test]
    async fn a_corrupted_file_is_rejected() {
        let (dir, staging) = staging();
        let whole = snapshot(7);
        let with = |at: usize, part: Part| {
            let mut parts = whole.clone();
            parts[at] = Ok(part);
            parts
        };
        let lost = Err(Unstaged::Broken("connection reset".to_owned()));
        let cases = [
            (with(0, Part::Data(Bytes::from_static(b"The fir"))), "checksum"),
            (with(1, Part::Data(Bytes::from_static(b"st fil"))), "checksum"),
            (with(2, Part::Last), "inside a file"),
            (whole[..whole.len() - 1].to_vec(), "before its last part"),
            (whole[..1].iter().cloned().chain([lost]).collect(), "connection reset"),
        ];
        for (parts, word) in cases {
            let refusal = receive(&staging, parts).await.err().unwrap();
            assert!(refusal.to_string().contains(word), "'{refusal}' should speak of '{word}'");
            assert_eq!(left_over(&dir), 0);
        }
    }

    /// The sender takes long to write its files, and says that it lives.
    #[tokio::test(start_paused = true)]
    async fn slow_sender_is_waited_for() {
        let (_dir, staging) = staging();
        let alive = || vec![Ok(Part::Data(Bytes::new())); 9];
        let parts = [alive(), file(FIRST, 7), alive(), file(SECOND, 7), alive(), vec![Ok(Part::Last)]].concat();
        let slow = stream::iter(parts).then(async |part| {
            tokio::time::sleep(PROGRESS_TIMEOUT / 2).await;
            part
        });
        let staged = staging.receive(staging.reserve(NODE, 0).unwrap(), slow).await.unwrap();
        let files: Vec<_> = staged.files().iter().map(|path| fs::read(path).unwrap()).collect();
        assert_eq!(files, [FIRST, SECOND]);
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_transfer_is_cancelled() {
        let (dir, staging) = staging();
        let stuck = stream::iter(file(FIRST, 7)).chain(stream::pending());
        let refusal = staging.receive(staging.reserve(NODE, 0).unwrap(), stuck).await.err().unwrap();
        assert!(refusal.to_string().contains("nothing came"), "{refusal}");
        assert_eq!(left_over(&dir), 0);
    }

    /// A slot is refused before anything is sent, and free again when its snapshot is installed or
    /// given up.
    #[tokio::test]
    async fn concurrent_transfers_are_bounded() {
        let (_dir, staging) = staging();
        let one = receive(&staging, vec![Ok(Part::Last)]).await.unwrap();
        let two = staging.reserve(NODE, 0).unwrap();
        let busy = SnapshotRefusal::Busy { node: NODE, receiving: 2 };
        assert_eq!(staging.reserve(NODE, 0).err(), Some(busy.clone()));
        drop(one);
        let three = staging.reserve(NODE, 0).unwrap();
        assert_eq!(staging.reserve(NODE, 0).err(), Some(busy));
        drop((two, three));
        staging.reserve(NODE, 0).unwrap();
    }

    /// Two snapshots that fit the disk one by one, but not together: the second one is refused with
    /// the numbers, and accepted when the first one has given its space back.
    #[tokio::test]
    async fn space_is_reserved_for_all_transfers_together() {
        let (_dir, _room, staging) = staging_with(100 << 20);
        let one = staging.reserve(NODE, 60 << 20).unwrap();
        let refusal = staging.reserve(NODE, 60 << 20).err().unwrap();
        assert_eq!(refusal, SnapshotRefusal::NoSpace { node: NODE, needs: 60 << 20, has: 40 << 20 });
        assert!(refusal.to_string().contains("no space on node 4: needs"), "{refusal}");
        drop(one);
        staging.reserve(NODE, 60 << 20).unwrap();
        assert!(staging.reserve(NODE, 101 << 20).is_err());
    }

    /// A disk that fills during a transfer ends the transfer at the reserve, whether the snapshot is
    /// larger than announced or others write; the partial files are gone and the space is free.
    #[tokio::test]
    async fn disk_that_fills_ends_the_transfer() {
        let (dir, room, staging) = staging_with(64 << 20);
        let reservation = staging.reserve(NODE, 16 << 20).unwrap();
        let chunk = Bytes::from(vec![7; SYNC_BYTES as usize]);
        let filling = stream::iter(0..3).map(|_| {
            room.fetch_sub(21 << 20, Ordering::Relaxed);
            Ok(Part::Data(chunk.clone()))
        });
        let refusal = staging.receive(reservation, filling).await.err().unwrap();
        let Unstaged::Refused(SnapshotRefusal::NoSpace { has, .. }) = refusal else { panic!("{refusal}") };
        assert_eq!(has, 1 << 20);
        assert_eq!((left_over(&dir), *staging.space.reserved()), (0, 0));
    }
}
