//! Counts of the events in a run. They show whether a run had faults at all: without faults it
//! proves nothing.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A kind of event that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Client operations that were answered.
    Answered,
    /// Client operations with an unknown outcome.
    Unknown,
    /// Client operations that were certainly not executed.
    Failed,
    /// Crashes of nodes.
    Crashes,
    /// Network faults.
    NetworkFaults,
    /// Disks that became slow or hung.
    SlowDisks,
    /// Clock jumps.
    ClockJumps,
    /// Replicas whose disk lost durable entries.
    LostEntries,
    /// Replicas that became doubtful.
    Doubtful,
    /// Leaders observed.
    Leaders,
    /// Snapshots installed.
    Snapshots,
    /// Snapshots refused by their receivers.
    SnapshotsRefused,
    /// Purges of a replica's log observed.
    Purges,
    /// Leader transfers ordered.
    Transfers,
    /// Operator operations accepted.
    Operations,
    /// Pings received.
    Pings,
    /// Removals of living nodes as dead that were refused.
    RefusedRemovals,
    /// Dead nodes that were removed.
    DeadRemoved,
    /// Replicas that completed a move.
    Moves,
    /// Checks of the invariants.
    Checks,
    /// Keys whose history was too long to decide.
    Undecided,
    /// Messages and other events of the trace.
    Events,
}

impl Count {
    /// All kinds, in the order in which a summary lists them.
    pub const ALL: [Count; 22] = [
        Count::Answered,
        Count::Unknown,
        Count::Failed,
        Count::Crashes,
        Count::NetworkFaults,
        Count::SlowDisks,
        Count::ClockJumps,
        Count::LostEntries,
        Count::Doubtful,
        Count::Leaders,
        Count::Snapshots,
        Count::SnapshotsRefused,
        Count::Purges,
        Count::Transfers,
        Count::Operations,
        Count::Pings,
        Count::RefusedRemovals,
        Count::DeadRemoved,
        Count::Moves,
        Count::Checks,
        Count::Undecided,
        Count::Events,
    ];
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Count::Answered => "answered",
            Count::Unknown => "unknown",
            Count::Failed => "failed",
            Count::Crashes => "crashes",
            Count::NetworkFaults => "network faults",
            Count::SlowDisks => "slow disks",
            Count::ClockJumps => "clock jumps",
            Count::LostEntries => "lost entries",
            Count::Doubtful => "doubtful",
            Count::Leaders => "leaders",
            Count::Snapshots => "snapshots",
            Count::SnapshotsRefused => "snapshots refused",
            Count::Purges => "purges",
            Count::Transfers => "transfers",
            Count::Operations => "operations",
            Count::Pings => "pings",
            Count::RefusedRemovals => "refused removals",
            Count::DeadRemoved => "dead removed",
            Count::Moves => "moves",
            Count::Checks => "checks",
            Count::Undecided => "undecided",
            Count::Events => "events",
        })
    }
}

/// The counters of a run in progress.
#[derive(Default)]
pub(crate) struct Counts([AtomicU64; Count::ALL.len()]);

impl Counts {
    pub(crate) fn one(&self, kind: Count) {
        self.add(kind, 1);
    }

    pub(crate) fn add(&self, kind: Count, count: u64) {
        self.0[kind as usize].fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals(std::array::from_fn(|kind| self.0[kind].load(Ordering::Relaxed)))
    }
}

/// The counts of one run, or of many together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals([u64; Count::ALL.len()]);

impl Totals {
    /// The number of events of a kind.
    pub fn get(&self, kind: Count) -> u64 {
        self.0[kind as usize]
    }

    pub(crate) fn set(&mut self, kind: Count, count: u64) {
        self.0[kind as usize] = count;
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Totals) {
        self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own += other);
    }
}
