//! The faults by name.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A way to break a cluster. The names are those of `--nemesis`, in kebab-case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A node that leads is cut off from all others.
    PartitionLeader,
    /// A minority is cut off from the others.
    PartitionMinority,
    /// Two halves do not see each other.
    PartitionHalves,
    /// Two halves see each other only through one node, which sees everybody.
    PartitionBridge,
    /// Everybody sees a majority, and no two the same.
    PartitionRing,
    /// A node hears nobody, or nobody hears it.
    PartitionOneWay,
    /// All nodes see only one.
    PartitionOnlyOne,
    /// A minority is cut off and comes back, again and again.
    PartitionFlapping,
    /// Links lose packets at random.
    Loss,
    /// Links hold packets back, each for another time.
    Latency,
    /// Few bytes a second reach some nodes.
    Bandwidth,
    /// One node is killed with SIGKILL.
    KillOne,
    /// A majority is.
    KillMajority,
    /// All nodes are.
    KillAll,
    /// Nodes that lead are stopped for 1 to 3 election time-outs, and go on as if nothing had been.
    PauseLeaders,
    /// One node loses its power, and with it what it had not synced.
    PowerCutOne,
    /// A majority does.
    PowerCutMajority,
    /// All nodes do.
    PowerCutAll,
    /// A node votes, and loses its power before it can do anything else. Needs a build with seeded bugs.
    PowerCutVote,
    /// A node dies at a named step of a membership change, a snapshot or a move. Needs a build with seeded bugs.
    FailPoint,
    /// The clocks of some nodes jump.
    ClockJump,
    /// The clocks of some nodes go too fast or too slowly.
    ClockDrift,
    /// A disk is full.
    DiskFull,
    /// Syncing a disk fails, and would succeed again if it were tried again.
    SyncFails,
    /// A disk answers everything with an error.
    DiskDies,
    /// Disks take only a few writes a second.
    SlowDisk,
    /// A disk does not answer.
    HungDisk,
    /// A bit of a node's log is flipped while it is down.
    BitFlipLog,
    /// A bit of its state is.
    BitFlipState,
    /// A bit of a snapshot on its way to it is.
    BitFlipSnapshot,
    /// A node comes back under its identity without its data, which must be refused, and then as a new node.
    WipedDisk,
    /// All logs are purged to their tips, so that whoever is behind needs a snapshot.
    PurgeLogs,
    /// Leaders hand over.
    TransferLeaders,
    /// A replica moves to another node.
    MoveShard,
    /// A node joins, another one is drained, removed, and comes back as a new one.
    Churn,
}

/// Faults of one class share a resource: two of them are never active at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// What carries the messages.
    Network,
    /// Processes.
    Process,
    /// Clocks.
    Clock,
    /// Disks, and what is on them.
    Disk,
    /// Logs that are purged.
    Log,
    /// Who leads, and where replicas are.
    Membership,
}

impl Fault {
    /// Every fault.
    pub fn all() -> &'static [Fault] {
        Fault::value_variants()
    }

    /// Its name.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).expect("no fault is hidden")
    }

    /// What it shares with others.
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

    /// Whether what it breaks stays broken until the cluster has made it anew elsewhere. Two of them at once may destroy what
    /// a majority held, which no system survives.
    pub fn destroys(self) -> bool {
        use Fault::*;
        matches!(self, SyncFails | DiskDies | BitFlipLog | BitFlipState | BitFlipSnapshot | WipedDisk | Churn)
    }

    /// The faults that a list names: `kill-one,partition,clock`. Where no fault has a name, it stands for all that begin with
    /// it (`partition`, `kill`, `power-cut`, `bit-flip`) or, as the name of a class (`network`, `disk`, `membership`, …), for
    /// all of it; `all` stands for all, `none` for none.
    pub fn parse_list(list: &str) -> Result<Vec<Fault>, String> {
        let mut faults = Vec::new();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let meant = Fault::meant(name);
            if meant.is_empty() && name != "none" {
                let known: Vec<String> = Fault::all().iter().map(|fault| fault.name()).collect();
                return Err(format!(
                    "no fault is called '{name}'; there are: {}; for several at once: all, none, network, process, clock, \
                     disk, log, membership, or how their names begin",
                    known.join(", ")
                ));
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
    fn a_name_may_stand_for_many() {
        let count = |list| Fault::parse_list(list).map(|faults| faults.len());
        assert_eq!(count("all"), Ok(Fault::all().len()));
        assert_eq!((count("partition"), count("kill"), count("power-cut, kill-all")), (Ok(8), Ok(3), Ok(5)));
        assert_eq!((count("none"), count("clock"), count("kill,kill-one")), (Ok(0), Ok(2), Ok(3)));
        assert!(Fault::parse_list("kil").unwrap_err().contains("no fault is called 'kil'"));
    }
}
