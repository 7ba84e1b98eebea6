//! What the tests of the log share: short names for entries, and calls that wait until they are durable.

#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::path::Path;
use std::sync::mpsc;

use bytes::Bytes;
use quorate_machine::log::{Done, Log, LogError};
use quorate_rocks::{LogOptions, RocksLog};
use quorate_types::{Entry, LogId, ReplicaId, Vote};

/// The replica that most tests are about.
pub(crate) const A: ReplicaId = ReplicaId(1);
/// Another one.
pub(crate) const B: ReplicaId = ReplicaId(2);

/// A place in A's log.
pub(crate) fn id(term: u64, index: u64) -> LogId {
    LogId { term, leader: A, index }
}

/// A vote for A.
pub(crate) fn vote(term: u64, committed: bool) -> Vote {
    Vote { term, candidate: A, committed }
}

/// An entry whose content follows from its place, with a payload of `bytes` bytes.
pub(crate) fn entry(id: LogId, bytes: usize) -> Entry {
    let seed = id.term.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ id.index ^ (id.leader.0 << 32);
    let content: Vec<u8> =
        (0..bytes as u64).map(|i| (seed.wrapping_add(i.wrapping_mul(0x5851_f42d)) >> 7) as u8).collect();
    Entry::normal(id, Bytes::from(content))
}

/// Small entries of one term.
pub(crate) fn entries(term: u64, indexes: std::ops::Range<u64>) -> Vec<Entry> {
    indexes.map(|index| entry(id(term, index), 100)).collect()
}

/// A `Done` and where its result arrives.
pub(crate) fn done() -> (Done, mpsc::Receiver<Result<(), LogError>>) {
    let (sender, receiver) = mpsc::channel();
    (Box::new(move |result| drop(sender.send(result))), receiver)
}

/// Calls, and waits until it is durable.
pub(crate) fn wait(call: impl FnOnce(Done)) -> Result<(), LogError> {
    let (done, receiver) = done();
    call(done);
    receiver.recv().expect("every Done is called")
}

/// Appends and waits.
pub(crate) fn append(log: &dyn Log, replica: ReplicaId, entries: Vec<Entry>) {
    wait(|done| log.append(replica, entries, done)).unwrap();
}

/// Everything that the replica's log holds.
pub(crate) fn all(log: &dyn Log, replica: ReplicaId) -> Vec<Entry> {
    log.entries(replica, 0..u64::MAX, usize::MAX).unwrap()
}

/// The indexes of everything that the replica's log holds.
pub(crate) fn indexes(log: &dyn Log, replica: ReplicaId) -> Vec<u64> {
    all(log, replica).iter().map(|entry| entry.id.index).collect()
}

/// Options with which a small test reaches flushes and cold reads.
pub(crate) fn small() -> LogOptions {
    LogOptions { memtable_bytes: 256 << 10, tails_bytes_max: 64 << 10, tail_bytes_max: 16 << 10, ..Default::default() }
}

/// Opens what must open.
pub(crate) fn open(path: &Path) -> RocksLog {
    RocksLog::open(path, small()).unwrap()
}
