//! Exports a replica's state as SST files whose ingestion replaces another replica's state.
//!
//! ```text
//!   the target's range   |<------- file 0 ------->|<------- file 1 ------->|<--- file 2 --->|
//!   range tombstones      [=======================)[=======================)[===============)
//!   keys                   k   k  k     k    k      k    k  k   k      k      k    k
//! ```
//!
//! The target's old state must disappear. A range tombstone in a file deletes keys older than the
//! file and spares the file's own keys, so each file has one tombstone over exactly its own part.
//! The parts cover the whole range, and no two files overlap.

use std::borrow::Cow;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use quorate_types::ReplicaId;
use rocksdb::{Options, SstFileWriter};

use super::error::io;
use super::options::StateOptions;
use super::view::RocksView;
use quorate_machine::keys::{STATE_PREFIX_BYTES, Space, state_range};
use quorate_machine::rate_limiter::SYNC_BYTES;
use quorate_machine::state::{EXPORT_FILE_BYTES, StateError, View};
use quorate_testpoints::Bug;

/// Rows are written in pieces of this size, at the speed that the rate limit allows.
const PACED_BYTES: usize = 256 << 10;

/// Called with each finished file, which is durable. An error ends the export.
type Finished<'a> = &'a mut dyn FnMut(PathBuf) -> Result<(), StateError>;

/// Writes `replica`'s state into files in `dir`, with the keys of `target`. Writes at least one
/// file, even without keys.
pub(super) fn write_files(
    view: &RocksView<'_>,
    options: &StateOptions,
    replica: ReplicaId,
    dir: &Path,
    target: ReplicaId,
    finished: Finished<'_>,
) -> Result<(), StateError> {
    write_files_of(view, options, replica, &Target { dir, replica: target, file_bytes: EXPORT_FILE_BYTES }, finished)
}

/// The files to write.
struct Target<'a> {
    dir: &'a Path,
    /// The replica that will install them.
    replica: ReplicaId,
    /// A file of this size is finished.
    file_bytes: u64,
}

fn write_files_of(
    view: &RocksView<'_>,
    options: &StateOptions,
    replica: ReplicaId,
    target: &Target<'_>,
    finished: Finished<'_>,
) -> Result<(), StateError> {
    let tables = options.tables();
    let dir = target.dir;
    let (start, end) = state_range(target.replica);
    let mut number = 0;
    let mut part = Part::begin(&tables, dir, number, start.clone())?;
    let mut target_key = Vec::new();
    let mut unpaced = 0;
    let newer = Bug::SnapshotOlderThanData.is_on().then(|| view.newer());
    newer.as_ref().unwrap_or(view).scan_replica(replica, |key, value| {
        let space = key[STATE_PREFIX_BYTES - 1];
        if space == Space::Table as u8 && Bug::SessionsNotInSnapshot.is_on() {
            return Ok(());
        }
        let mut value = Cow::Borrowed(value);
        if space == Space::Meta as u8 && newer.is_some() {
            view.get_with(replica, Space::Meta, &key[STATE_PREFIX_BYTES..], &mut |old| value = old.to_vec().into())?;
        }
        target_key.clear();
        target_key.extend_from_slice(&start);
        target_key.extend_from_slice(&key[start.len()..]);
        if part.writer.file_size() >= target.file_bytes {
            number += 1;
            let next = Part::begin(&tables, dir, number, target_key.clone())?;
            finished(std::mem::replace(&mut part, next).finish(&target_key)?)?;
        }
        unpaced += target_key.len() + value.len();
        if unpaced >= PACED_BYTES {
            options.wait_for_export(unpaced);
            unpaced = 0;
            // An abandoned export has its directory deleted. Stop then: the rest may take minutes
            // and has no receiver.
            fs::metadata(dir).map_err(io)?;
        }
        assert!(part.start <= target_key && target_key < end, "each key is in the range of its part");
        part.put(&target_key, &value)
    })?;
    finished(part.finish(&end)?)
}

/// A file being written, and the first key of its part of the range.
struct Part<'a> {
    writer: SstFileWriter<'a>,
    path: PathBuf,
    start: Vec<u8>,
    synced_bytes: u64,
}

impl<'a> Part<'a> {
    fn begin(tables: &'a Options, dir: &Path, number: usize, start: Vec<u8>) -> Result<Self, StateError> {
        let path = dir.join(format!("{number:06}.sst"));
        let writer = SstFileWriter::create(tables);
        writer.open(&path).map_err(io)?;
        Ok(Part { writer, path, start, synced_bytes: 0 })
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.writer.put(key, value).map_err(io)?;
        let bytes = self.writer.file_size();
        if bytes >= self.synced_bytes + SYNC_BYTES {
            File::open(&self.path).and_then(|file| file.sync_data()).map_err(io)?;
            self.synced_bytes = bytes;
        }
        Ok(())
    }

    /// Finishes the part before `end`. The range deletion hides the target's old keys, also from
    /// later single deletes ([`quorate_machine::keys::is_put_once`]).
    fn finish(mut self, end: &[u8]) -> Result<PathBuf, StateError> {
        assert!(self.start.as_slice() < end, "the parts of a snapshot do not overlap");
        self.writer.delete_range(self.start.as_slice(), end).map_err(io)?;
        self.writer.finish().map_err(io)?;
        File::open(&self.path).and_then(|file| file.sync_all()).map_err(io)?;
        Ok(self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use quorate_types::peer::SnapshotMeta;

    use super::*;
    use crate::RocksState;
    use quorate_machine::rate_limiter::RateLimiter;
    use quorate_machine::state::{Batch, State};
    use quorate_machine::state_hash;

    fn put(state: &RocksState, replica: ReplicaId, key: String, value: Vec<u8>) {
        state.write(replica, Batch { operations: vec![(Space::Data, key.into_bytes(), Some(value))] }).unwrap();
    }

    /// Many files replace the target's whole range, including keys between two files, before the
    /// first and after the last. Covers flushed and unflushed keys, and keys of an earlier
    /// installation.
    #[test]
    fn many_files_replace_the_whole_range() {
        let (source, target) = (ReplicaId(1), ReplicaId(2));
        let dir = tempfile::tempdir().unwrap();
        let options = StateOptions::with_cache_bytes(1 << 20);
        let state = RocksState::open(dir.path(), options.clone()).unwrap();
        let mut noise = 1u64;
        for number in 0..400 {
            let value = std::iter::repeat_with(|| {
                noise = noise.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                noise.to_be_bytes()[0]
            });
            put(&state, source, format!("key-{number:04}"), value.take(1000).collect());
        }
        for round in 0..3 {
            for number in 0..400 {
                put(&state, target, format!("key-{number:04}-stale-{round}"), vec![1]);
                put(&state, target, format!("key-{number:04}"), vec![2]);
                if number == 200 {
                    state.flush().unwrap();
                }
            }
            put(&state, target, "\0".into(), vec![3]);
            put(&state, target, "zzz".into(), vec![3]);

            let staging = tempfile::tempdir_in(dir.path()).unwrap();
            let view = RocksView::new(&state.db);
            let mut files = Vec::new();
            let to = Target { dir: staging.path(), replica: target, file_bytes: 16 << 10 };
            let mut finished = |file| {
                files.push(file);
                Ok(())
            };
            write_files_of(&view, &options, source, &to, &mut finished).unwrap();
            assert!(files.len() > 10, "{} files", files.len());
            state.verify(target, &files, &SnapshotMeta::default(), &mut || {}).unwrap();
            state.install(target, &files).unwrap();
            state
                .view(&mut |view| {
                    assert_eq!(state_hash(view, target)?, state_hash(view, source)?, "round {round}");
                    assert_eq!(state_hash(view, target)?.records, 400);
                    Ok(())
                })
                .unwrap();
        }
    }

    /// Exports a state of 2 MiB at this rate and calls `meanwhile` once a file exists. Returns the
    /// result and the duration.
    fn write_paced(
        bytes_per_second: u64,
        meanwhile: impl FnOnce(&Path),
    ) -> (Result<Vec<PathBuf>, StateError>, Duration) {
        let dir = tempfile::tempdir().unwrap();
        let rate_limiter = Arc::new(RateLimiter::new(bytes_per_second, Duration::ZERO));
        let options = StateOptions::with_cache_bytes(1 << 20).export_rate(rate_limiter);
        let state = RocksState::open(dir.path(), options).unwrap();
        for number in 0..2048 {
            put(&state, ReplicaId(1), format!("key-{number:04}"), vec![1; 1024]);
        }
        let staging = tempfile::tempdir_in(dir.path()).unwrap();
        let pinned = state.pin(ReplicaId(1)).unwrap();
        let started = Instant::now();
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| pinned.write_files(staging.path(), ReplicaId(2)));
            while staging.path().read_dir().unwrap().next().is_none() {
                std::thread::yield_now();
            }
            meanwhile(staging.path());
            (writing.join().unwrap(), started.elapsed())
        })
    }

    #[test]
    fn export_respects_the_rate_limit() {
        let (written, took) = write_paced(1 << 20, |_| {});
        assert_eq!(written.unwrap().len(), 1);
        assert!(took >= Duration::from_millis(1750), "all but the last piece were paced: {took:?}");
    }

    #[test]
    fn abandoned_export_stops() {
        let (written, took) = write_paced(128 << 10, |dir| fs::remove_dir_all(dir).unwrap());
        assert!(written.is_err() && took < Duration::from_secs(8), "all of it takes 16 s: {took:?}");
    }
}
