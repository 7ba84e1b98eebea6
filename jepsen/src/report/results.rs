//! `results.json`: everything that a run found, in numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::faults::FaultCounts;
use crate::run::Counts;

/// What a run says in the end. Later ones outweigh earlier ones, but for a violation, which outweighs everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything was checked and held.
    Pass,
    /// Something was seen that no correct store shows.
    Violation,
    /// Something could not be decided. Never a pass.
    Unknown,
    /// The harness did not do what it was asked for: a fault that was not installed, a cluster that did not start.
    HarnessFailure,
}

impl Outcome {
    /// The exit code of a run that ends so.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Pass => 0,
            Outcome::Violation => 1,
            Outcome::Unknown => 2,
            Outcome::HarnessFailure => 3,
        }
    }

    /// What two outcomes are together: a violation stays one whatever else went wrong.
    pub fn and(self, other: Outcome) -> Outcome {
        let weight = |outcome| match outcome {
            Outcome::Pass => 0,
            Outcome::Unknown => 1,
            Outcome::HarnessFailure => 2,
            Outcome::Violation => 3,
        };
        if weight(other) > weight(self) { other } else { self }
    }

    /// In capitals, as a run's first line has it.
    pub fn headline(self) -> &'static str {
        match self {
            Outcome::Pass => "PASS",
            Outcome::Violation => "VIOLATION",
            Outcome::Unknown => "UNKNOWN",
            Outcome::HarnessFailure => "HARNESS FAILURE",
        }
    }
}

/// What one of the checks said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// What it said.
    pub outcome: Outcome,
    /// Of what, or why, in a sentence or more.
    pub detail: String,
    /// The events that show a violation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<u64>,
}

impl Check {
    /// A check that held.
    pub fn pass(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, Outcome::Pass, detail)
    }

    /// A check and what it said.
    pub fn new(name: impl Into<String>, outcome: Outcome, detail: impl Into<String>) -> Self {
        Check { name: name.into(), outcome, detail: detail.into(), events: Vec::new() }
    }
}

/// How many operations ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Happened.
    pub ok: u64,
    /// Of these: refused, because their condition did not hold.
    pub refused: u64,
    /// Did not happen.
    pub fail: u64,
    /// May have happened.
    pub info: u64,
}

impl Ended {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.ok + self.fail + self.info
    }
}

/// The longest time in which some shard did not answer, for a kind of fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unavailable {
    /// How long.
    pub longest_ms: u64,
    /// Which shard.
    pub shard: u64,
    /// When it began, in milliseconds since the run began.
    pub from_ms: u64,
}

/// How long shards took to answer again after a fault hit their leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// How often it was measured.
    pub count: u64,
    /// The median, in milliseconds.
    pub p50_ms: u64,
    /// The 99th percentile.
    pub p99_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

/// What a run found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// The verdict.
    pub outcome: Outcome,
    /// What each check said.
    pub checks: Vec<Check>,
    /// Operations by workload and action, such as `register read`.
    pub operations: BTreeMap<String, Ended>,
    /// All operations.
    pub total: Ended,
    /// What each workload began while the load lasted.
    #[serde(default)]
    pub under_load: BTreeMap<String, Ended>,
    /// Operations that an open loop did not begin, because too many were under way.
    pub shed: u64,
    /// Operations a second that succeeded while the load lasted.
    pub ok_per_second: f64,
    /// Latency of the successful ones in milliseconds: median and 99th percentile.
    pub latency_ms: Option<[f64; 2]>,
    /// Faults by kind.
    pub faults: BTreeMap<String, FaultCounts>,
    /// By kind of fault; `none` is what belongs to no fault.
    pub unavailable: BTreeMap<String, Unavailable>,
    /// Failovers that were measured.
    pub failover: Failover,
    /// How often another node answered for a shard than before.
    pub leader_changes: u64,
    /// Elections and snapshots, from the nodes' metrics.
    pub counts: Counts,
    /// The load's beginning and end, in nanoseconds since the run began.
    pub load: (u64, u64),
    /// Repeats the run.
    pub command: String,
    /// The seed.
    pub seed: u64,
    /// How the nodes were connected, such as `loopback`.
    pub network: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An unknown is never a pass, and a violation is never anything else.
    #[test]
    fn the_worst_outcome_wins() {
        use Outcome::{HarnessFailure, Pass, Unknown, Violation};
        assert_eq!(Pass.and(Unknown), Unknown);
        assert_eq!(Unknown.and(Pass), Unknown);
        assert_eq!(Violation.and(HarnessFailure), Violation);
        assert_eq!(HarnessFailure.and(Violation), Violation);
        assert_eq!(Unknown.and(HarnessFailure), HarnessFailure);
        assert_eq!([Pass, Violation, Unknown, HarnessFailure].map(Outcome::exit_code), [0, 1, 2, 3]);
    }
}
