//! Encodes operations into the batch of a drain.

use std::ops::Range;

use quorate_types::codec::{self, Kind};
use quorate_types::{Entry, ReplicaId};
use rocksdb::WriteBatch;

use super::replica_log::{Change, Operation};
use quorate_machine::keys::{LogSpace, log_entry_key, log_key};

/// The scratch buffer shrinks to this size after a larger entry.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

/// Builds the batch of one drain.
pub(super) struct BatchBuilder {
    batch: WriteBatch,
    scratch: Vec<u8>,
    entries: usize,
}

impl BatchBuilder {
    pub(super) fn new() -> Self {
        BatchBuilder { batch: WriteBatch::default(), scratch: Vec::new(), entries: 0 }
    }

    /// Starts a batch of about this many bytes.
    pub(super) fn start(&mut self, bytes: usize) {
        self.batch = WriteBatch::with_capacity_bytes(bytes);
        self.entries = 0;
    }

    /// Takes the batch and the number of entries that it appends.
    pub(super) fn finish(&mut self) -> (WriteBatch, usize) {
        (std::mem::take(&mut self.batch), self.entries)
    }

    /// Adds an operation. Operations of one replica must come in their order, because a later one
    /// wins.
    pub(super) fn add(&mut self, operation: &Operation) {
        let replica = operation.replica.id;
        match &operation.change {
            Change::Create => self.put(&log_key(LogSpace::Replica, replica), |out| {
                codec::encode_into(out, Kind::Replica, &operation.replica.group)
            }),
            Change::Destroy { .. } => {
                self.batch.put(log_key(LogSpace::Tombstone, replica), []);
                sweep(&mut self.batch, replica);
                return;
            }
            Change::Append(entries) => {
                let follows = |pair: &[Entry]| pair[0].id.index + 1 == pair[1].id.index;
                assert!(entries.windows(2).all(follows), "an append of replica {replica} has a hole");
                self.entries += entries.len();
                for entry in entries {
                    self.put(&log_entry_key(replica, entry.id.index), |out| {
                        codec::encode_into(out, Kind::Entry, entry)
                    });
                }
            }
            Change::Vote(vote) => {
                self.put(&log_key(LogSpace::Vote, replica), |out| codec::encode_into(out, Kind::Vote, vote))
            }
            Change::Truncate(gone) => gone.iter().for_each(|gone| self.delete(replica, gone.clone())),
            Change::Purge { gone, upto, .. } => {
                self.delete(replica, gone.clone());
                self.put(&log_key(LogSpace::Purged, replica), |out| codec::encode_into(out, Kind::LogId, upto));
            }
            Change::Doubtful => self.batch.put(log_key(LogSpace::Doubtful, replica), []),
            Change::Mark => {}
        }
        if let Some(vote) = &operation.won {
            self.put(&log_key(LogSpace::Vote, replica), |out| codec::encode_into(out, Kind::Vote, vote));
        }
        match &operation.committed {
            Some(Some(committed)) => {
                self.put(&log_key(LogSpace::Committed, replica), |out| codec::encode_into(out, Kind::LogId, committed))
            }
            Some(None) => self.batch.delete(log_key(LogSpace::Committed, replica)),
            None => {}
        }
    }

    /// Puts a value written by `encode`.
    fn put(&mut self, key: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_BYTES_MAX);
        encode(&mut self.scratch);
        self.batch.put(key, &self.scratch);
    }

    /// Deletes one entry with a point tombstone and several with a range tombstone, which costs
    /// each later read a little.
    fn delete(&mut self, replica: ReplicaId, gone: Range<u64>) {
        match gone.end - gone.start {
            0 => {}
            1 => self.batch.delete(log_entry_key(replica, gone.start)),
            _ => self.batch.delete_range(log_entry_key(replica, gone.start), log_entry_key(replica, gone.end)),
        }
    }
}

/// Deletes all keys of a replica except its tombstone.
pub(super) fn sweep(batch: &mut WriteBatch, replica: ReplicaId) {
    for space in [LogSpace::Replica, LogSpace::Vote, LogSpace::Committed, LogSpace::Purged, LogSpace::Doubtful] {
        batch.delete(log_key(space, replica));
    }
    batch.delete_range(log_entry_key(replica, 0), log_entry_key(replica, u64::MAX));
}
