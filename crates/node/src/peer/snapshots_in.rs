//! Receives snapshots: the files are written to a directory of their own and verified before Raft
//! sees them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Snapshots that a node receives concurrently.
const RECEIVING_MAX: usize = 2;
/// A transfer is cancelled if no chunk arrives for this long.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// Files are synced in pieces while they arrive: one large sync would delay all other syncs of the
/// disk.
const SYNC_BYTES: usize = 4 << 20;

/// The directory of incoming snapshots.
pub(crate) struct Staging {
    dir: PathBuf,
    next: AtomicU64,
    permits: Arc<Semaphore>,
}

/// A complete and verified snapshot, durable. Dropping it deletes its files, unless they were
/// consumed.
pub(crate) struct Staged {
    dir: PathBuf,
    files: Vec<PathBuf>,
    _permit: OwnedSemaphorePermit,
}

/// Why a snapshot was not received. The sender restarts from a fresh snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unstaged {
    /// Too many snapshots are being received.
    #[error("{RECEIVING_MAX} snapshots are being received already")]
    Busy,
    /// The data differs from the header, the transfer ended early, or the disk failed.
    #[error("{0}")]
    Broken(String),
}

impl Staging {
    /// Stages in `dir`, which exists, is empty, and is on the file system of the state.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Staging { dir, next: AtomicU64::new(0), permits: Arc::new(Semaphore::new(RECEIVING_MAX)) }
    }

    /// Receives all files, one after the other, and checks them against `expected`: length and
    /// crc32c of each.
    pub(crate) async fn receive(
        &self,
        expected: &[(u64, u32)],
        chunks: impl Stream<Item = Result<Bytes, Unstaged>> + Send,
    ) -> Result<Staged, Unstaged> {
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| Unstaged::Busy)?;
        let dir = self.dir.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&dir).map_err(|e| broken(&dir, e))?;
        let mut staged = Staged { dir, files: Vec::with_capacity(expected.len()), _permit: permit };
        let mut chunks = Box::pin(chunks);
        let mut rest = Bytes::new();
        for (index, &(length, checksum)) in expected.iter().enumerate() {
            let path = staged.dir.join(index.to_string());
            receive_file(&path, length, checksum, &mut rest, &mut chunks).await?;
            staged.files.push(path);
        }
        if !rest.is_empty() || next(&mut chunks).await?.is_some() {
            return Err(Unstaged::Broken("more bytes came than the header says".to_owned()));
        }
        crate::durable::sync_dir(&staged.dir).map_err(|e| broken(&staged.dir, e))?;
        Ok(staged)
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

async fn receive_file(
    path: &Path,
    length: u64,
    checksum: u32,
    rest: &mut Bytes,
    chunks: &mut (impl Stream<Item = Result<Bytes, Unstaged>> + Unpin),
) -> Result<(), Unstaged> {
    let file = File::create_new(path).map_err(|e| broken(path, e))?;
    let mut file = tokio::fs::File::from_std(file);
    let (mut missing, mut crc, mut unsynced) = (length, 0, 0);
    while missing > 0 {
        if rest.is_empty() {
            let Some(chunk) = next(chunks).await? else {
                return Err(Unstaged::Broken(format!("the transfer ended {missing} bytes before the end of a file")));
            };
            *rest = chunk;
        }
        let take = usize::try_from(missing).unwrap_or(usize::MAX).min(rest.len());
        let part = rest.split_to(take);
        crc = crc32c::crc32c_append(crc, &part);
        file.write_all(&part).await.map_err(|e| broken(path, e))?;
        missing -= part.len() as u64;
        unsynced += part.len();
        if unsynced >= SYNC_BYTES {
            file.sync_data().await.map_err(|e| broken(path, e))?;
            unsynced = 0;
        }
    }
    file.sync_all().await.map_err(|e| broken(path, e))?;
    if crc != checksum {
        return Err(Unstaged::Broken(format!("a file of {length} bytes has checksum {crc:08x}, not {checksum:08x}")));
    }
    Ok(())
}

async fn next(chunks: &mut (impl Stream<Item = Result<Bytes, Unstaged>> + Unpin)) -> Result<Option<Bytes>, Unstaged> {
    let chunk = timeout(PROGRESS_TIMEOUT, chunks.next()).await;
    let chunk = chunk.map_err(|_| Unstaged::Broken(format!("nothing came for {PROGRESS_TIMEOUT:?}")))?;
    chunk.transpose()
}

fn broken(path: &Path, error: std::io::Error) -> Unstaged {
    Unstaged::Broken(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    const FIRST: &[u8] = b"the first file";
    const SECOND: &[u8] = b"and the second one";

    fn expected() -> Vec<(u64, u32)> {
        [FIRST, b"", SECOND].map(|file| (file.len() as u64, crc32c::crc32c(file))).to_vec()
    }

    /// The files' bytes in chunks of `size`, which ignore file boundaries.
    fn chunks(bytes: &[u8], size: usize) -> Vec<Result<Bytes, Unstaged>> {
        bytes.chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect()
    }

    fn staging() -> (tempfile::TempDir, Staging) {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::new(dir.path().to_owned());
        (dir, staging)
    }

    fn left_over(dir: &tempfile::TempDir) -> usize {
        fs::read_dir(dir.path()).unwrap().count()
    }

    #[tokio::test]
    async fn files_are_put_together_from_chunks_of_any_size_and_deleted_afterwards() {
        let (dir, staging) = staging();
        for size in [1, 5, 14, 1000] {
            let staged =
                staging.receive(&expected(), stream::iter(chunks(&[FIRST, SECOND].concat(), size))).await.unwrap();
            let files: Vec<_> = staged.files().iter().map(|path| fs::read(path).unwrap()).collect();
            assert_eq!(files, [FIRST, b"", SECOND]);
            drop(staged);
            assert_eq!(left_over(&dir), 0);
        }
    }

    /// Every difference between the data and the header is noticed, and no file stays behind.
    #[tokio::test]
    async fn a_corrupted_file_is_rejected() {
        let (dir, staging) = staging();
        let whole = [FIRST, SECOND].concat();
        let flipped = {
            let mut bytes = whole.clone();
            bytes[20] ^= 1;
            bytes
        };
        let lost = Err(Unstaged::Broken("connection reset".to_owned()));
        let cases = [
            (chunks(&flipped, 7), "checksum"),
            (chunks(&whole[..whole.len() - 1], 7), "before the end"),
            (chunks(&[whole.as_slice(), b"x"].concat(), 7), "more bytes"),
            (chunks(&whole[..9], 7).into_iter().chain([lost]).collect(), "connection reset"),
        ];
        for (chunks, word) in cases {
            let refusal = staging.receive(&expected(), stream::iter(chunks)).await.err().unwrap();
            assert!(refusal.to_string().contains(word), "'{refusal}' should speak of '{word}'");
            assert_eq!(left_over(&dir), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_that_stops_is_given_up() {
        let (dir, staging) = staging();
        let stuck = stream::iter(chunks(FIRST, 7)).chain(stream::pending());
        let refusal = staging.receive(&expected(), stuck).await.err().unwrap();
        assert!(refusal.to_string().contains("nothing came"), "{refusal}");
        assert_eq!(left_over(&dir), 0);
    }

    #[tokio::test]
    async fn only_so_many_are_received_at_once() {
        let (_dir, staging) = staging();
        let receive = || staging.receive(&[], stream::empty());
        let one = receive().await.unwrap();
        let _two = receive().await.unwrap();
        assert_eq!(receive().await.err(), Some(Unstaged::Busy));
        drop(one);
        receive().await.unwrap();
    }
}
