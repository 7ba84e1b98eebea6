//! The faults and their names.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A fault that can be injected into a cluster. The command line (`--nemesis`) and the journal use
/// the names in kebab-case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// One leader is cut off from all other nodes.
    PartitionLeader,
    /// A minority is cut off from the majority.
    PartitionMinority,
    /// Two halves are cut off from each other.
    PartitionHalves,
    /// Two halves are cut off from each other, except for one node that reaches both.
    PartitionBridge,
    /// Every node reaches a majority, and no two nodes reach the same one.
    PartitionRing,
    /// One node receives nothing from the others, or the others receive nothing from it.
    PartitionOneWay,
    /// Every node reaches only one common node.
    PartitionOnlyOne,
    /// A minority is cut off and reconnected repeatedly.
    PartitionFlapping,
    /// Links lose packets at random.
    Loss,
    /// Links delay packets, each by another time.
    Latency,
    /// The bandwidth towards some nodes is low.
    Bandwidth,
    /// One node is killed with SIGKILL.
    KillOne,
    /// A majority is killed with SIGKILL.
    KillMajority,
    /// All nodes are killed with SIGKILL.
    KillAll,
    /// One or two leaders are paused for 1 to 3 election time-outs, and then resumed.
    PauseLeaders,
    /// One node loses its power, and with it the data that was not synced.
    PowerCutOne,
    /// A majority loses its power.
    PowerCutMajority,
    /// All nodes lose their power.
    PowerCutAll,
    /// A node votes, and loses its power before it does anything else. Needs a build with seeded
    /// bugs.
    PowerCutVote,
    /// A node dies at a named step of a membership change, a snapshot or a move. Needs a build with
    /// seeded bugs.
    FailPoint,
    /// The clocks of some nodes jump.
    ClockJump,
    /// The clocks of some nodes are too fast or too slow.
    ClockDrift,
    /// A disk is full.
    DiskFull,
    /// Syncing a disk fails; a retry would succeed.
    SyncFails,
    /// A disk answers every request with an error.
    DiskDies,
    /// Disks accept only a few writes per second.
    SlowDisk,
    /// A disk does not answer.
    HungDisk,
    /// A bit of a node's log is flipped while the node is down.
    BitFlipLog,
    /// A bit of a node's state is flipped while the node is down.
    BitFlipState,
    /// A bit of a snapshot is flipped during its transfer.
    BitFlipSnapshot,
    /// A node restarts with its identity but without its data, which it must refuse. A new node
    /// then takes its place.
    WipedDisk,
    /// All logs are purged to their tips, so that a lagging follower needs a snapshot.
    PurgeLogs,
    /// Leaderships are transferred.
    TransferLeaders,
    /// A replica moves to another node.
    MoveShard,
    /// A node joins; another one is drained, removed, and replaced by a new one.
    Churn,
}

/// The resource that a fault affects. Each class has its own lane of an overlapping schedule, so
/// two faults of one class are never active at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Links between nodes.
    Network,
    /// Processes.
    Process,
    /// Clocks.
    Clock,
    /// Disks and the files on them.
    Disk,
    /// Log retention.
    Log,
    /// Leadership and the placement of replicas.
    Membership,
}

/// A name that is neither a fault, nor a prefix of one, nor a class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no fault is named '{name}'; faults: {}; groups of faults: all, none, network, process, clock, disk, log, \
     membership, or a common prefix",
    known()
)]
pub struct UnknownFault {
    name: String,
}

fn known() -> String {
    let names: Vec<String> = Fault::all().iter().map(|fault| fault.name()).collect();
    names.join(", ")
}

impl Fault {
    /// All faults.
    pub fn all() -> &'static [Fault] {
        Fault::value_variants()
    }

    /// The name in kebab-case.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).expect("no fault is hidden")
    }

    /// The resource that it affects.
    pub fn class(self) -> Class {
        use Fault::*;
        match self {
            PartitionLeader | PartitionMinority | PartitionHalves | PartitionBridge | PartitionRing
            | PartitionOneWay | PartitionOnlyOne | PartitionFlapping | Loss | Latency | Bandwidth => Class::Network,
            KillOne | KillMajority | KillAll | PauseLeaders | PowerCutOne | PowerCutMajority | PowerCutAll => {
                Class::Process
            }
            ClockJump | ClockDrift => Class::Clock,
            DiskFull | SyncFails | DiskDies | SlowDisk | HungDisk | BitFlipLog | BitFlipState | BitFlipSnapshot
            | WipedDisk => Class::Disk,
            PurgeLogs => Class::Log,
            PowerCutVote | FailPoint | TransferLeaders | MoveShard | Churn => Class::Membership,
        }
    }

    /// Whether the damage stays until the cluster has created the data elsewhere. Two such faults
    /// at a time may destroy the data of a majority, which no system survives.
    pub fn destroys(self) -> bool {
        use Fault::*;
        matches!(self, SyncFails | DiskDies | BitFlipLog | BitFlipState | BitFlipSnapshot | WipedDisk | Churn)
    }

    /// The faults that a list such as `kill-one,partition,clock` names. A name that is not a fault
    /// stands for all faults with that prefix (`partition`, `kill`, `power-cut`, `bit-flip`) or of
    /// that class (`network`, `disk`, `membership`, …). `all` stands for all faults, `none` for no
    /// fault.
    pub fn parse_list(list: &str) -> Result<Vec<Fault>, UnknownFault> {
        let mut faults = Vec::new();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let meant = Fault::meant(name);
            if meant.is_empty() && name != "none" {
                return Err(UnknownFault { name: name.to_owned() });
            }
            faults.extend(meant);
        }
        faults.sort_unstable();
        faults.dedup();
        Ok(faults)
    }

    fn meant(name: &str) -> Vec<Fault> {
        let that =
            |wanted: &dyn Fn(Fault) -> bool| Fault::all().iter().copied().filter(|fault| wanted(*fault)).collect();
        let class = match name {
            "all" => return Fault::all().to_vec(),
            "network" => Some(Class::Network),
            "process" => Some(Class::Process),
            "clock" => Some(Class::Clock),
            "disk" => Some(Class::Disk),
            "log" => Some(Class::Log),
            "membership" => Some(Class::Membership),
            _ => None,
        };
        if let Some(class) = class {
            return that(&|fault| fault.class() == class);
        }
        if let Ok(fault) = Fault::from_str(name, false) {
            return vec![fault];
        }
        that(&|fault| fault.name().strip_prefix(name).is_some_and(|rest| rest.starts_with('-')))
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_journal() {
        for fault in Fault::all() {
            assert_eq!(serde_json::to_value(fault).unwrap(), fault.name());
            assert_eq!(Fault::parse_list(&fault.name()), Ok(vec![*fault]));
        }
    }

    #[test]
    fn a_name_can_stand_for_many_faults() {
        let count = |list| Fault::parse_list(list).map(|faults| faults.len());
        assert_eq!(count("all"), Ok(Fault::all().len()));
        assert_eq!((count("partition"), count("kill"), count("power-cut, kill-all")), (Ok(8), Ok(3), Ok(5)));
        assert_eq!((count("none"), count("clock"), count("kill,kill-one")), (Ok(0), Ok(2), Ok(3)));
        assert!(Fault::parse_list("kil").unwrap_err().to_string().contains("no fault is named 'kil'"));
    }
}
