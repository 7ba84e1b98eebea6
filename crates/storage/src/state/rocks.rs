//! The state store on RocksDB: one database, one column family, no write-ahead log.
//!
//! ```text
//!   write  ─→ memtable ──(flush)──→ SST files          a batch is in one memtable as a whole, and memtables are flushed in
//!   view   ─→ a RocksDB snapshot, taken at its first read      order: after a crash the state is a prefix of the batches
//!   pin    ─→ a thread that holds a snapshot   (rocks/pinned)
//!   files  ←─ SST files under the target's id  (rocks/export)  ─→ one ingestion (rocks/ingest)
//! ```
//!
//! One column family, because two are flushed apart: applied index and data could be torn by a crash.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_types::ReplicaId;
use quorate_types::peer::SnapshotMeta;
use rocksdb::{DB, DBRawIterator, FlushOptions, Range, ReadOptions, WriteBatch, WriteOptions};

use self::pinned::RocksPinned;
use self::view::RocksView;
use super::{Batch, Pinned, State, StateError, View};
use crate::Bug;
use crate::keys::{Space, state_key_into, state_key_replica, state_range};
use crate::torn;

mod export;
mod ingest;
mod options;
mod pinned;
mod view;

pub use options::StateOptions;

/// The state of all replicas of a node, on disk.
///
/// # Invariants
/// * Nothing is written through the write-ahead log; what is durable is what was flushed or ingested.
/// * Every key starts with a replica and a space ([`crate::keys`]).
pub struct RocksState {
    db: Arc<DB>,
    options: StateOptions,
    unlogged: WriteOptions,
}

impl RocksState {
    /// Opens the database in `dir`, or makes it. Fails if another process has it open. Of a flush or an ingestion that a crash cut
    /// short nothing is left: nobody was told that it was durable.
    pub fn open(dir: &Path, options: StateOptions) -> Result<Self, StateError> {
        let db = torn::open(&options.database(), dir).map_err(|reason| StateError::Io(reason.into()))?;
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        Ok(RocksState { db: Arc::new(db), options, unlogged })
    }
}

impl RocksState {
    /// The defect of the same name: a flush in between, and a crash after it, lose data that the head says is there.
    fn write_head_first(&self, replica: ReplicaId, batch: &Batch) -> Result<(), StateError> {
        let mut head = WriteBatch::default();
        let mut full_key = Vec::new();
        for (space, key, value) in batch.operations.iter().filter(|(space, ..)| *space == Space::Meta) {
            state_key_into(&mut full_key, replica, *space, key);
            if let Some(value) = value {
                head.put(&full_key, value);
            }
        }
        self.db.write_opt(head, &self.unlogged).map_err(io)?;
        std::thread::sleep(std::time::Duration::from_millis(2));
        Ok(())
    }
}

impl State for RocksState {
    fn view(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), StateError>) -> Result<(), StateError> {
        read(&RocksView::new(&self.db))
    }

    fn write(&self, replica: ReplicaId, batch: Batch) -> Result<(), StateError> {
        let mut writes = WriteBatch::default();
        let mut full_key = Vec::new();
        if Bug::AppliedBeforeData.is_on() {
            self.write_head_first(replica, &batch)?;
        }
        for (space, key, value) in &batch.operations {
            state_key_into(&mut full_key, replica, *space, key);
            match value {
                Some(value) => writes.put(&full_key, value),
                None => writes.delete(&full_key),
            }
        }
        self.db.write_opt(writes, &self.unlogged).map_err(io)
    }

    fn flush(&self) -> Result<(), StateError> {
        let mut waiting = FlushOptions::default();
        waiting.set_wait(true);
        self.db.flush_opt(&waiting).map_err(io)
    }

    fn pin(&self, replica: ReplicaId) -> Result<Box<dyn Pinned>, StateError> {
        Ok(Box::new(RocksPinned::new(self.db.clone(), self.options.clone(), replica)?))
    }

    fn install(&self, replica: ReplicaId, files: &[PathBuf], meta: &SnapshotMeta) -> Result<(), StateError> {
        ingest::check(files, replica, meta)?;
        ingest::ingest(&self.db, files)
    }

    fn destroy(&self, replica: ReplicaId) -> Result<(), StateError> {
        let (start, end) = state_range(replica);
        let mut writes = WriteBatch::default();
        writes.delete_range(start, end);
        self.db.write_opt(writes, &self.unlogged).map_err(io)
    }

    /// What its keys take in files: compressed, and without what is in memory only.
    fn approximate_bytes(&self, replica: ReplicaId) -> u64 {
        let (start, end) = state_range(replica);
        self.db.get_approximate_sizes(&[Range::new(&start, &end)]).into_iter().sum()
    }

    /// Skips from one replica's first key to the next one's: one seek a replica.
    fn replicas(&self) -> Result<Vec<ReplicaId>, StateError> {
        let mut replicas = Vec::new();
        let mut keys: DBRawIterator<'_> = self.db.raw_iterator_opt(ReadOptions::default());
        keys.seek_to_first();
        while let Some(key) = keys.key() {
            let replica = state_key_replica(key)
                .ok_or_else(|| io(format!("the state database has a key of no replica: {}", key.escape_ascii())))?;
            replicas.push(replica);
            keys.seek(state_range(replica).1);
        }
        keys.status().map_err(io)?;
        Ok(replicas)
    }
}

fn io(error: impl ToString) -> StateError {
    StateError::Io(error.to_string().into())
}
