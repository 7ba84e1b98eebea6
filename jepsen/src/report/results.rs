//! `results.json`: all results of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::faults::FaultCounts;

/// Counts from the nodes' metrics, which a run polls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Terms that began after the first poll.
    pub elections: u64,
    /// Snapshots that replicas installed.
    pub snapshots: u64,
    /// Answers of nodes. Without any, the other counts mean nothing.
    pub answers: u64,
}

/// Final outcome of a run or a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All checks held.
    Pass,
    /// A check found a result that no correct store can produce.
    Violation,
    /// A check could not be decided. Never counts as a pass.
    Unknown,
    /// The harness could not do its work: a fault was not installed, or a cluster did not start.
    HarnessFailure,
}

impl Outcome {
    /// The exit code of the process.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Pass => 0,
            Outcome::Violation => 1,
            Outcome::Unknown => 2,
            Outcome::HarnessFailure => 3,
        }
    }

    /// Combines two outcomes. A violation outweighs everything, then a harness failure, then an
    /// unknown.
    pub fn and(self, other: Outcome) -> Outcome {
        let weight = |outcome| match outcome {
            Outcome::Pass => 0,
            Outcome::Unknown => 1,
            Outcome::HarnessFailure => 2,
            Outcome::Violation => 3,
        };
        if weight(other) > weight(self) { other } else { self }
    }

    /// The outcome in capitals, for the first line of the summary.
    pub fn headline(self) -> &'static str {
        match self {
            Outcome::Pass => "PASS",
            Outcome::Violation => "VIOLATION",
            Outcome::Unknown => "UNKNOWN",
            Outcome::HarnessFailure => "HARNESS FAILURE",
        }
    }
}

/// Result of one check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Name of the check.
    pub name: String,
    /// Outcome of the check.
    pub outcome: Outcome,
    /// Its scope or its reason, in one or more sentences.
    pub detail: String,
    /// Indices of the events that show a violation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<u64>,
}

impl Check {
    /// A check that passed.
    pub fn pass(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, Outcome::Pass, detail)
    }

    /// A check with this outcome.
    pub fn new(name: impl Into<String>, outcome: Outcome, detail: impl Into<String>) -> Self {
        Check { name: name.into(), outcome, detail: detail.into(), events: Vec::new() }
    }
}

/// Number of operations by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Operations that took effect.
    pub ok: u64,
    /// Operations refused because their condition did not hold (part of `ok`).
    pub refused: u64,
    /// Operations that did not take effect.
    pub fail: u64,
    /// Operations with an unknown outcome.
    pub info: u64,
}

impl Ended {
    /// Total number of operations.
    pub fn all(&self) -> u64 {
        self.ok + self.fail + self.info
    }
}

/// The longest period in which a shard was unavailable, for one kind of fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unavailable {
    /// Length in milliseconds.
    pub longest_ms: u64,
    /// The shard.
    pub shard: u64,
    /// Start, in milliseconds since the run began.
    pub from_ms: u64,
}

/// Failover times of shards whose leader a fault hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// Number of measurements.
    pub count: u64,
    /// Median, in milliseconds.
    pub p50_ms: u64,
    /// 99th percentile, in milliseconds.
    pub p99_ms: u64,
    /// Maximum, in milliseconds.
    pub max_ms: u64,
}

/// Results of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// The final outcome.
    pub outcome: Outcome,
    /// The result of each check.
    pub checks: Vec<Check>,
    /// Operations by workload and action, such as `register read`.
    pub operations: BTreeMap<String, Ended>,
    /// All operations.
    pub total: Ended,
    /// Operations begun under load, by workload.
    #[serde(default)]
    pub under_load: BTreeMap<String, Ended>,
    /// Operations that an open loop skipped because too many were in flight.
    pub shed: u64,
    /// Successful operations per second under load.
    pub ok_per_second: f64,
    /// Latency of successful operations in milliseconds: median and 99th percentile.
    pub latency_ms: Option<[f64; 2]>,
    /// Faults by kind.
    pub faults: BTreeMap<String, FaultCounts>,
    /// Longest unavailability by kind of fault; `none` covers gaps that no fault caused.
    pub unavailable: BTreeMap<String, Unavailable>,
    /// Failover times.
    pub failover: Failover,
    /// Number of times that a shard's serving node changed.
    pub leader_changes: u64,
    /// Elections and snapshots, from the nodes' metrics.
    pub counts: Counts,
    /// Start and end of the load, in nanoseconds since the run began.
    pub load: (u64, u64),
    /// The command that repeats the run.
    pub command: String,
    /// The seed.
    pub seed: u64,
    /// Network between the nodes, such as `loopback`.
    pub network: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An unknown never counts as a pass, and a violation never as anything else.
    #[test]
    fn worst_outcome_wins() {
        use Outcome::{HarnessFailure, Pass, Unknown, Violation};
        assert_eq!(Pass.and(Unknown), Unknown);
        assert_eq!(Unknown.and(Pass), Unknown);
        assert_eq!(Violation.and(HarnessFailure), Violation);
        assert_eq!(HarnessFailure.and(Violation), Violation);
        assert_eq!(Unknown.and(HarnessFailure), HarnessFailure);
        assert_eq!([Pass, Violation, Unknown, HarnessFailure].map(Outcome::exit_code), [0, 1, 2, 3]);
    }
}
