//! The concrete changes that a fault makes to its targets, with all parameters chosen.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::cluster::Rules;
use crate::cluster::clock::Skew;

/// The file of a node in which a bit is flipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Part {
    /// The log of all groups.
    Log,
    /// The state of all groups.
    State,
    /// A snapshot during its transfer to the node.
    Snapshot,
}

/// The change that is made to the targets.
#[derive(Clone, Debug)]
pub(super) enum Injection {
    Links(Rules),
    Flapping(Rules),
    Kill,
    PowerCut,
    /// Cuts the target's power right after its vote. It is asked for a vote by transferring the
    /// leadership of a shard to another node.
    PowerCutVote {
        shard: u32,
        to: u64,
    },
    Pause {
        pause_ms: u64,
    },
    Clocks(Vec<(usize, Skew)>),
    DiskFull,
    SyncFails,
    DiskDies,
    SlowDisk {
        writes_per_second: u32,
    },
    HungDisk,
    BitFlip {
        part: Part,
        seed: u64,
    },
    WipedDisk,
    PurgeLogs,
    TransferLeaders {
        seed: u64,
    },
    MoveShard {
        seed: u64,
    },
    FailPoint {
        seed: u64,
    },
    Churn,
}

impl Injection {
    /// Whether it gives a target a reason to end by itself.
    pub(super) fn excuses(&self) -> bool {
        use Injection::*;
        matches!(self, DiskFull | SyncFails | DiskDies | HungDisk | Churn)
            || matches!(self, FailPoint { .. } | PowerCutVote { .. } | BitFlip { .. })
            || self.damages()
    }

    /// Whether it may leave a disk that cannot be used again.
    pub(super) fn damages(&self) -> bool {
        matches!(self, Injection::WipedDisk | Injection::BitFlip { .. })
    }

    /// The duration, if it is a parameter of the fault.
    pub(super) fn duration(&self) -> Option<Duration> {
        match self {
            Injection::Pause { pause_ms } => Some(Duration::from_millis(*pause_ms)),
            _ => None,
        }
    }

    /// The parameters, for the journal.
    pub(super) fn describe(&self) -> Value {
        match self {
            Injection::Links(rules) | Injection::Flapping(rules) => {
                let cut: Vec<String> = rules.cut.iter().map(|link| format!("{}→{}", link.from, link.to)).collect();
                let loss: Option<&u8> = rules.loss_percent.values().next();
                json!({ "cut": cut, "loss_percent": loss, "delay": rules.delay.values().next(), "kbit": rules.rate_kbit })
            }
            Injection::Pause { pause_ms } => json!({ "pause_ms": pause_ms }),
            Injection::Clocks(skews) => skews
                .iter()
                .map(|(node, skew)| (node.to_string(), json!({ "jump_seconds": skew.jump, "rate": skew.rate })))
                .collect(),
            Injection::SlowDisk { writes_per_second } => json!({ "writes_per_second": writes_per_second }),
            Injection::BitFlip { part, .. } => json!({ "part": part }),
            Injection::PowerCutVote { shard, to } => json!({ "shard": shard, "votes_for": to }),
            _ => Value::Null,
        }
    }
}
