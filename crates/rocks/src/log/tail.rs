//! The newest entries of one replica's log, in memory: what replication and apply read, mostly, and the only place where an
//! entry is before it is written.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_types::Entry;

/// The newest entries of a log.
///
/// # Invariants
/// * The entries are consecutive and end with the log's last one; what is before them is on disk.
/// * An entry that is not yet written is never evicted, whatever the bound.
#[derive(Debug)]
pub(super) struct Tail {
    slots: VecDeque<Slot>,
    bytes: usize,
    /// The last operation of the replica that is written.
    written: u64,
}

#[derive(Debug)]
struct Slot {
    entry: Entry,
    /// The operation that appended it.
    operation: u64,
}

impl Tail {
    pub(super) fn new() -> Self {
        Tail { slots: VecDeque::new(), bytes: 0, written: 0 }
    }

    /// Adds the entry after the last one.
    pub(super) fn push(&mut self, entry: Entry, operation: u64) {
        self.bytes += entry.size_bytes();
        self.slots.push_back(Slot { entry, operation });
    }

    /// Notes that everything up to `operation` is on disk.
    pub(super) fn written(&mut self, operation: u64) {
        debug_assert!(operation >= self.written, "operations of a replica are written in order");
        self.written = operation;
    }

    /// Whether `operation` is on disk.
    pub(super) fn is_written(&self, operation: u64) -> bool {
        operation <= self.written
    }

    /// Forgets the oldest written entries until the rest fits `bytes_max`, or is not written.
    pub(super) fn evict(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && self.slots.front().is_some_and(|slot| slot.operation <= self.written) {
            self.pop_front();
        }
    }

    /// Forgets the entries below `index`, which were purged.
    pub(super) fn drop_below(&mut self, index: u64) {
        while self.slots.front().is_some_and(|slot| slot.entry.id.index < index) {
            self.pop_front();
        }
        self.shrink();
    }

    /// Forgets the entries from `index` on, which were truncated.
    pub(super) fn drop_from(&mut self, index: u64) {
        while let Some(slot) = self.slots.pop_back_if(|slot| slot.entry.id.index >= index) {
            self.bytes -= slot.entry.size_bytes();
        }
    }

    /// The index of the first entry here.
    pub(super) fn first(&self) -> Option<u64> {
        self.slots.front().map(|slot| slot.entry.id.index)
    }

    /// The entries here from `index` on, which must not be before the first.
    pub(super) fn from(&self, index: u64) -> impl Iterator<Item = &Entry> {
        let skip = self.first().map_or(0, |first| index - first);
        self.slots.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).map(|slot| &slot.entry)
    }

    fn pop_front(&mut self) {
        if let Some(slot) = self.slots.pop_front() {
            self.bytes -= slot.entry.size_bytes();
        }
    }

    /// Gives room back after much was dropped.
    fn shrink(&mut self) {
        if self.slots.capacity() > 64 && self.slots.len() < self.slots.capacity() / 8 {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }
}

/// How many bytes each tail may keep, so that all tails of a node stay within one bound. Every replica has the same share:
/// simple, and a busy replica can never starve the others.
#[derive(Debug)]
pub(super) struct TailBudget {
    node_bytes_max: usize,
    replica_bytes_max: usize,
    replicas: AtomicUsize,
}

impl TailBudget {
    pub(super) fn new(node_bytes_max: usize, replica_bytes_max: usize) -> Self {
        TailBudget { node_bytes_max, replica_bytes_max, replicas: AtomicUsize::new(0) }
    }

    /// Shares the bound among so many replicas from now on. A tail shrinks to it when it is next written to.
    pub(super) fn share_among(&self, replicas: usize) {
        self.replicas.store(replicas, Ordering::Relaxed);
    }

    /// The bytes that one replica's tail may keep.
    pub(super) fn share(&self) -> usize {
        let replicas = self.replicas.load(Ordering::Relaxed).max(1);
        self.replica_bytes_max.min(self.node_bytes_max / replicas)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_types::{LogId, ReplicaId};

    use super::*;

    fn entry(index: u64) -> Entry {
        Entry::normal(LogId { term: 1, leader: ReplicaId(1), index }, Bytes::from(vec![7; 36]))
    }

    /// Shows that the bound holds for written entries only, and that truncated entries' operations do not count for their
    /// successors.
    #[test]
    fn what_is_not_written_stays() {
        let mut tail = Tail::new();
        (0..10).for_each(|i| tail.push(entry(i), i + 1));
        tail.evict(300);
        assert_eq!(tail.first(), Some(0));
        tail.written(4);
        tail.evict(300);
        assert_eq!(tail.first(), Some(4));
        tail.drop_from(6);
        tail.push(entry(6), 20);
        tail.written(10);
        tail.evict(0);
        assert_eq!(tail.first(), Some(6));
        assert_eq!(tail.from(6).count(), 1);
        tail.written(20);
        tail.evict(0);
        assert_eq!((tail.first(), tail.bytes), (None, 0));
    }

    #[test]
    fn purged_entries_go_whether_written_or_not() {
        let mut tail = Tail::new();
        (5..10).for_each(|i| tail.push(entry(i), i));
        tail.drop_below(8);
        assert_eq!(tail.from(9).map(|e| e.id.index).collect::<Vec<_>>(), [9]);
        assert_eq!(tail.bytes, 200);
    }
}
