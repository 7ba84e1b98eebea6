//! Helpers for tests of a log: entries from short names, and calls that wait until they are
//! durable. The tests of `quorate-rocks` include this file too.

#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::sync::mpsc;

use bytes::Bytes;
use quorate_machine::log::{Done, Log, LogError};
use quorate_types::{Entry, LogId, ReplicaId, Vote};

/// The replica of most tests.
pub(crate) const A: ReplicaId = ReplicaId(1);
/// Another replica.
pub(crate) const B: ReplicaId = ReplicaId(2);

/// A log id in A's log.
pub(crate) fn id(term: u64, index: u64) -> LogId {
    LogId { term, leader: A, index }
}

/// A vote for A.
pub(crate) fn vote(term: u64, committed: bool) -> Vote {
    Vote { term, candidate: A, committed }
}

/// An entry with `bytes` bytes of payload, derived from its log id.
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

/// A `Done` and the receiver of its result.
pub(crate) fn done() -> (Done, mpsc::Receiver<Result<(), LogError>>) {
    let (sender, receiver) = mpsc::channel();
    (Box::new(move |result| drop(sender.send(result))), receiver)
}

/// Makes a call and waits until it is durable.
pub(crate) fn wait(call: impl FnOnce(Done)) -> Result<(), LogError> {
    let (done, receiver) = done();
    call(done);
    receiver.recv().expect("every Done is called")
}

/// Appends and waits.
pub(crate) fn append(log: &dyn Log, replica: ReplicaId, entries: Vec<Entry>) {
    wait(|done| log.append(replica, entries, done)).unwrap();
}

/// All entries of the replica's log.
pub(crate) fn all(log: &dyn Log, replica: ReplicaId) -> Vec<Entry> {
    log.entries(replica, 0..u64::MAX, usize::MAX).unwrap()
}

/// The indexes of all entries of the replica's log.
pub(crate) fn indexes(log: &dyn Log, replica: ReplicaId) -> Vec<u64> {
    all(log, replica).iter().map(|entry| entry.id.index).collect()
}
