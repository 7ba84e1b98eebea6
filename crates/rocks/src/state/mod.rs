//! The state store on RocksDB: one database, one column family, no write-ahead log.
//!
//! ```text
//!   write  ─→ memtable ──(flush)──→ SST files
//!   view   ─→ a RocksDB snapshot, taken at its first read
//!   pin    ─→ a thread that holds a snapshot   (pinned)
//!   files  ←─ SST files under the target's id  (export)  ─→ one ingestion (ingest)
//! ```
//!
//! Each batch is in one memtable as a whole, and memtables are flushed in order, so after a crash
//! the state is a prefix of the batches. There is one column family because two are flushed
//! separately: a crash could tear applied index and data apart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_types::ReplicaId;
use quorate_types::peer::SnapshotMeta;
use rocksdb::{DB, FlushOptions, WriteOptions};

use self::error::io;
use self::pinned::RocksPinned;
use self::view::RocksView;
use crate::wal_repair;
use quorate_machine::state::{Batch, Pinned, State, StateError, View};
use quorate_testpoints::Bug;

mod batch;
mod error;
mod export;
mod ingest;
mod options;
mod pinned;
mod view;

pub use options::StateOptions;

/// The state of all replicas of a node, on disk.
///
/// # Invariants
/// * No write goes through the write-ahead log; only flushed and ingested data is durable (held by
///   the tests of `state_crash` and `snapshots`).
/// * Each key starts with a replica and a space ([`quorate_machine::keys`]); `state_key_into`
///   builds all of them.
pub struct RocksState {
    db: Arc<DB>,
    options: StateOptions,
    unlogged: WriteOptions,
}

impl RocksState {
    /// Opens the database in `dir`, creating it if needed. Fails if another process has it open. An
    /// interrupted flush or ingestion is discarded; it was never reported durable.
    pub fn open(dir: &Path, options: StateOptions) -> Result<Self, StateError> {
        let db = wal_repair::open(&options.database(), dir).map_err(io)?;
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        Ok(RocksState { db: Arc::new(db), options, unlogged })
    }
}

impl State for RocksState {
    fn view(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), StateError>) -> Result<(), StateError> {
        read(&RocksView::new(&self.db))
    }

    fn write(&self, replica: ReplicaId, batch: Batch) -> Result<(), StateError> {
        if Bug::AppliedBeforeData.is_on() {
            // A flush between the two writes and a crash after it lose data that the head claims.
            self.db.write_opt(batch::encode_head(replica, &batch), &self.unlogged).map_err(io)?;
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        self.db.write_opt(batch::encode(replica, &batch), &self.unlogged).map_err(io)
    }

    fn flush(&self) -> Result<(), StateError> {
        let mut waiting = FlushOptions::default();
        waiting.set_wait(true);
        self.db.flush_opt(&waiting).map_err(io)
    }

    fn pin(&self, replica: ReplicaId) -> Result<Box<dyn Pinned>, StateError> {
        Ok(Box::new(RocksPinned::new(self.db.clone(), self.options.clone(), replica)?))
    }

    fn verify(
        &self,
        replica: ReplicaId,
        files: &[PathBuf],
        meta: &SnapshotMeta,
        progress: &mut dyn FnMut(),
    ) -> Result<(), StateError> {
        ingest::verify(files, replica, meta, progress)
    }

    fn install(&self, _replica: ReplicaId, files: &[PathBuf]) -> Result<(), StateError> {
        ingest::ingest(&self.db, files)
    }

    fn destroy(&self, replica: ReplicaId) -> Result<(), StateError> {
        self.db.write_opt(batch::deletion(replica), &self.unlogged).map_err(io)
    }

    fn approximate_bytes(&self, replica: ReplicaId) -> u64 {
        view::approximate_bytes(&self.db, replica)
    }

    fn replicas(&self) -> Result<Vec<ReplicaId>, StateError> {
        view::replicas(&self.db)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use quorate_types::SessionId;

    use super::*;
    use quorate_machine::keys::{Space, session_key};

    const REPLICA: ReplicaId = ReplicaId(1);

    fn open(dir: &Path) -> RocksState {
        RocksState::open(dir, StateOptions::with_cache_bytes(1 << 20)).unwrap()
    }

    fn write(state: &RocksState, space: Space, key: Vec<u8>, value: Option<&[u8]>) {
        let operations = vec![(space, key, value.map(<[u8]>::to_vec))];
        state.write(REPLICA, Batch { operations }).unwrap();
    }

    /// Each write adds a session record, and the next write deletes it. The deletions must not stay
    /// as tombstones: RocksDB treats a file that is mostly tombstones as one that hides large
    /// values and moves it through all levels. With values of 64 KiB, that compacted the whole
    /// database every few seconds.
    #[test]
    fn forgotten_session_records_leave_no_tombstones() {
        let dir = tempfile::tempdir().unwrap();
        let state = open(dir.path());
        for index in 1..=1000 {
            write(&state, Space::Table, session_key(SessionId(1), index), Some(b"done"));
            write(&state, Space::Table, session_key(SessionId(1), index - 1), None);
        }
        write(&state, Space::Data, b"gone".to_vec(), None);
        state.flush().unwrap();
        let files = state.db.live_files().unwrap();
        let tombstones: u64 = files.iter().map(|file| file.num_deletions).sum();
        assert_eq!(tombstones, 2, "of the key that never existed, and of a record that the database never had");
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Writes the next record of a session and deletes its oldest ones until this many are
        /// left.
        Record {
            session: u64,
            left: usize,
        },
        Data {
            key: u8,
            delete: bool,
        },
        Flush,
        Compact,
        /// Installs a snapshot of the current state over itself.
        Install,
        /// Pins the state and drops the previous pin.
        Hold,
        /// Installs the pinned state.
        Back,
        Reopen,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (1..3u64, 0..3usize).prop_map(|(session, left)| Step::Record { session, left }),
            2 => (0..4u8, any::<bool>()).prop_map(|(key, delete)| Step::Data { key, delete }),
            2 => Just(Step::Flush),
            1 => Just(Step::Compact),
            1 => Just(Step::Install),
            1 => Just(Step::Hold),
            1 => Just(Step::Back),
            1 => Just(Step::Reopen),
        ]
    }

    fn contents(state: &RocksState) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut found = BTreeMap::new();
        for space in [Space::Table, Space::Data] {
            let mut visit = |key: &[u8], value: &[u8]| {
                found.insert(key.to_vec(), value.to_vec());
                std::ops::ControlFlow::Continue(())
            };
            state.view(&mut |view| view.scan(REPLICA, space, b"", &mut visit)).unwrap();
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A deleted record stays deleted and no other record is lost, for any flushes,
        /// compactions, installed snapshots and held snapshots between a put and its deletion.
        #[test]
        fn put_once_records_stay_deleted(steps in vec(step(), 1..80)) {
            let dir = tempfile::tempdir().unwrap();
            let mut state = open(dir.path());
            let mut model = BTreeMap::new();
            let mut records = BTreeMap::<u64, Vec<u64>>::new();
            let mut held = None;
            let install = |state: &RocksState, pinned: &dyn Pinned| {
                let staging = tempfile::tempdir().unwrap();
                let files = pinned.write_files(staging.path(), REPLICA).unwrap();
                state.verify(REPLICA, &files, pinned.meta(), &mut || {}).unwrap();
                state.install(REPLICA, &files).unwrap();
            };
            for (index, step) in (1..).zip(steps) {
                match step {
                    Step::Record { session, left } => {
                        let records = records.entry(session).or_default();
                        let key = session_key(SessionId(session), index);
                        write(&state, Space::Table, key.clone(), Some(&[7]));
                        model.insert(key, vec![7]);
                        records.push(index);
                        while records.len() > left {
                            let key = session_key(SessionId(session), records.remove(0));
                            write(&state, Space::Table, key.clone(), None);
                            model.remove(&key);
                        }
                    }
                    Step::Data { key, delete: true } => {
                        write(&state, Space::Data, vec![key], None);
                        model.remove(&vec![key]);
                    }
                    Step::Data { key, delete: false } => {
                        write(&state, Space::Data, vec![key], Some(&[key]));
                        model.insert(vec![key], vec![key]);
                    }
                    Step::Flush => state.flush().unwrap(),
                    Step::Compact => state.db.compact_range::<&[u8], &[u8]>(None, None),
                    Step::Install => install(&state, &*state.pin(REPLICA).unwrap()),
                    Step::Hold => held = Some((state.pin(REPLICA).unwrap(), model.clone(), records.clone())),
                    Step::Back => {
                        if let Some((pinned, contents, live)) = &held {
                            install(&state, &**pinned);
                            (model, records) = (contents.clone(), live.clone());
                        }
                    }
                    Step::Reopen => {
                        // A pin keeps the database open.
                        held = None;
                        state.flush().unwrap();
                        drop(state);
                        state = open(dir.path());
                    }
                }
                prop_assert_eq!(&contents(&state), &model, "after step {} {:?}", index, step);
            }
            state.flush().unwrap();
            state.db.compact_range::<&[u8], &[u8]>(None, None);
            prop_assert_eq!(&contents(&state), &model);
            // RocksDB refuses this write if a compaction has found corruption.
            write(&state, Space::Data, b"last".to_vec(), Some(b"write"));
            state.flush().unwrap();
        }
    }
}
