//! A view of the state database: a RocksDB snapshot, taken at the first read.

use std::cell::{OnceCell, RefCell};

use quorate_types::ReplicaId;
use rocksdb::{DB, DBRawIterator, Range, ReadOptions, Snapshot};

use super::error::io;
use quorate_machine::keys::{
    STATE_PREFIX_BYTES, Space, prefix_end, state_key, state_key_into, state_key_replica, state_range,
};
use quorate_machine::state::{StateError, View, Visit};

/// The state at the view's first read.
///
/// Taking a snapshot briefly locks a mutex of the whole database, so a view without reads takes
/// none: for example, a batch of writes without conditions.
pub(super) struct RocksView<'a> {
    db: &'a DB,
    snapshot: OnceCell<Taken<'a>>,
    key: RefCell<Vec<u8>>,
}

/// A snapshot and the read options that use it.
struct Taken<'a> {
    options: ReadOptions,
    snapshot: Snapshot<'a>,
}

impl<'a> RocksView<'a> {
    pub(super) fn new(db: &'a DB) -> Self {
        RocksView { db, snapshot: OnceCell::new(), key: RefCell::default() }
    }

    /// A new view of the same database.
    pub(super) fn newer(&self) -> Self {
        RocksView::new(self.db)
    }

    fn taken(&self) -> &Taken<'a> {
        self.snapshot.get_or_init(|| {
            let snapshot = self.db.snapshot();
            let mut options = ReadOptions::default();
            options.set_snapshot(&snapshot);
            Taken { options, snapshot }
        })
    }

    /// An unpositioned iterator over the keys before `end`.
    fn keys(&self, end: Vec<u8>) -> DBRawIterator<'_> {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.taken().snapshot);
        options.set_iterate_upper_bound(end);
        self.db.raw_iterator_opt(options)
    }

    /// Visits all keys of a replica, as stored in the database, until `visit` fails.
    pub(super) fn scan_replica(
        &self,
        replica: ReplicaId,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let (start, end) = state_range(replica);
        let mut keys = self.keys(end);
        keys.seek(start);
        while let Some((key, value)) = keys.item() {
            visit(key, value)?;
            keys.next();
        }
        keys.status().map_err(io)
    }
}

impl View for RocksView<'_> {
    fn get_with(
        &self,
        replica: ReplicaId,
        space: Space,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<(), StateError> {
        let value = {
            let mut full_key = self.key.borrow_mut();
            state_key_into(&mut full_key, replica, space, key);
            self.db.get_pinned_opt(full_key.as_slice(), &self.taken().options).map_err(io)?
        };
        if let Some(value) = value {
            read(&value);
        }
        Ok(())
    }

    fn scan(&self, replica: ReplicaId, space: Space, prefix: &[u8], visit: Visit<'_>) -> Result<(), StateError> {
        let start = state_key(replica, space, prefix);
        let mut keys = self.keys(prefix_end(&start).expect("a space is not 0xff"));
        keys.seek(start);
        while let Some((key, value)) = keys.item() {
            if visit(&key[STATE_PREFIX_BYTES..], value).is_break() {
                break;
            }
            keys.next();
        }
        keys.status().map_err(io)
    }
}

/// The replicas with any state. Skips from one replica's first key to the next one's, with one seek
/// per replica.
pub(super) fn replicas(db: &DB) -> Result<Vec<ReplicaId>, StateError> {
    let mut replicas = Vec::new();
    let mut keys: DBRawIterator<'_> = db.raw_iterator_opt(ReadOptions::default());
    keys.seek_to_first();
    while let Some(key) = keys.key() {
        let replica = state_key_replica(key)
            .ok_or_else(|| io(format!("the state database has a key without a replica: {}", key.escape_ascii())))?;
        replicas.push(replica);
        keys.seek(state_range(replica).1);
    }
    keys.status().map_err(io)?;
    Ok(replicas)
}

/// Size of the replica's keys in files: compressed, and without the memtables.
pub(super) fn approximate_bytes(db: &DB, replica: ReplicaId) -> u64 {
    let (start, end) = state_range(replica);
    db.get_approximate_sizes(&[Range::new(&start, &end)]).into_iter().sum()
}
