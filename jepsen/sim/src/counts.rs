//! What a run did: a run that never reached its faults proves nothing.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one run.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) crashes: Count,
    pub(crate) cuts: Count,
    pub(crate) slow_disks: Count,
    pub(crate) clock_jumps: Count,
    pub(crate) elections: Count,
    pub(crate) snapshots: Count,
    pub(crate) purges: Count,
    pub(crate) transfers: Count,
    pub(crate) operations: Count,
    pub(crate) moves: Count,
    pub(crate) checks: Count,
}

/// One of them.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one run, or many together, did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Operations of clients that were answered.
    pub answered: u64,
    /// Operations of clients whose outcome stayed unknown.
    pub unknown: u64,
    /// Operations of clients that certainly were not done.
    pub failed: u64,
    /// Nodes that lost their power.
    pub crashes: u64,
    /// Faults of the network that began.
    pub cuts: u64,
    /// Disks that became slow or hung.
    pub slow_disks: u64,
    /// Clocks that jumped.
    pub clock_jumps: u64,
    /// Leaders that were seen.
    pub elections: u64,
    /// Snapshots that were installed.
    pub snapshots: u64,
    /// Replicas whose log was seen to be purged.
    pub purges: u64,
    /// Orders to hand leadership over.
    pub transfers: u64,
    /// Operations of an operator that were taken on.
    pub operations: u64,
    /// Replicas that came to the end of a move.
    pub moves: u64,
    /// Times that the invariants were checked.
    pub checks: u64,
    /// Keys whose history was too long to be decided.
    pub undecided: u64,
    /// Messages and other events.
    pub events: u64,
}

impl Totals {
    pub(crate) fn of(counts: &Counts) -> Self {
        Totals {
            crashes: counts.crashes.get(),
            cuts: counts.cuts.get(),
            slow_disks: counts.slow_disks.get(),
            clock_jumps: counts.clock_jumps.get(),
            elections: counts.elections.get(),
            snapshots: counts.snapshots.get(),
            purges: counts.purges.get(),
            transfers: counts.transfers.get(),
            operations: counts.operations.get(),
            moves: counts.moves.get(),
            checks: counts.checks.get(),
            ..Totals::default()
        }
    }

    pub(crate) fn fields(&self) -> [(&'static str, u64); 16] {
        [
            ("answered", self.answered),
            ("unknown", self.unknown),
            ("failed", self.failed),
            ("crashes", self.crashes),
            ("network faults", self.cuts),
            ("slow disks", self.slow_disks),
            ("clock jumps", self.clock_jumps),
            ("leaders", self.elections),
            ("snapshots", self.snapshots),
            ("purges", self.purges),
            ("transfers", self.transfers),
            ("operations", self.operations),
            ("moves", self.moves),
            ("checks", self.checks),
            ("undecided", self.undecided),
            ("events", self.events),
        ]
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Totals) {
        self.answered += other.answered;
        self.unknown += other.unknown;
        self.failed += other.failed;
        self.crashes += other.crashes;
        self.cuts += other.cuts;
        self.slow_disks += other.slow_disks;
        self.clock_jumps += other.clock_jumps;
        self.elections += other.elections;
        self.snapshots += other.snapshots;
        self.purges += other.purges;
        self.transfers += other.transfers;
        self.operations += other.operations;
        self.moves += other.moves;
        self.checks += other.checks;
        self.undecided += other.undecided;
        self.events += other.events;
    }
}
