//! Plans: the targets and parameters of a fault, chosen by the seed among the nodes that no other
//! fault affects.

use std::collections::BTreeSet;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};

use super::fault::{Class, Fault};
use super::injection::{Injection, Part};
use super::ledger::Ledger;
use super::partition::partition;
use super::refusal::{Skip, Unable};
use super::view::View;
use crate::cluster::clock::Skew;
use crate::cluster::{Clocks, Cluster, Delay, Link, Rules};

/// The percentages of packets that a lossy link loses.
const LOSS_PERCENT: &[u8] = &[5, 20, 50];
/// The delays of slow links.
const DELAYS: &[Delay] = &[
    Delay { base_ms: 20, jitter_ms: 5 },
    Delay { base_ms: 80, jitter_ms: 60 },
    Delay { base_ms: 250, jitter_ms: 250 },
];
/// The bandwidths towards a node, in kilobits a second.
const RATES_KBIT: &[u32] = &[100, 500, 2000];
/// The election time-out of the store, in milliseconds. Pauses last one to three of it, so that
/// another replica becomes leader during most of them.
const ELECTION_MS: u64 = quorate_sim::LEASE_MS_DEFAULT;
/// Jumps of wall clocks, in seconds.
const JUMPS: &[i64] = &[-86_400, -60, -2, 2, 60, 86_400];
/// Jumps of monotonic clocks, in seconds. These clocks never go back; after a jump they continue as
/// if the machine had slept.
const MONOTONIC_JUMPS: &[i64] = &[1, 10];
/// Rates of wall clocks. Any rate is possible.
const WALL_DRIFTS: &[f64] = &[0.2, 0.9, 1.1, 5.0];
/// Rates of monotonic clocks. Two nodes differ by at most a tenth, which no oscillator reaches.
const DRIFTS: &[f64] = &[0.95, 1.05];
/// Writes per second of a slow disk.
const SLOW_WRITES: &[u32] = &[10, 30, 100];

/// The targets and the injection of a fault.
pub(super) struct Plan {
    pub(super) targets: Vec<usize>,
    /// Nodes that cannot take part in a quorum while the fault lasts.
    pub(super) out: BTreeSet<usize>,
    pub(super) injection: Injection,
}

impl Plan {
    /// A fault that takes its targets out of every quorum.
    fn disabling(targets: Vec<usize>, injection: Injection) -> Self {
        Plan { out: targets.iter().copied().collect(), targets, injection }
    }

    /// A fault whose targets keep working.
    fn hindering(targets: Vec<usize>, injection: Injection) -> Self {
        Plan { out: BTreeSet::new(), targets, injection }
    }
}

/// Chooses targets and parameters.
pub(super) struct Planner<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) ledger: &'a Ledger,
}

impl Planner<'_> {
    /// The present state of the cluster.
    pub(super) async fn view(&self) -> View {
        let statuses = self.cluster.admin().statuses().await;
        let members: Vec<usize> =
            self.cluster.nodes().iter().filter(|node| node.id().is_some()).map(|node| node.number()).collect();
        let records = self.ledger.records();
        let runs = |node: &usize| self.cluster.node(*node).is_running();
        let free = members.iter().copied().filter(|node| runs(node) && !records.is_hit(*node)).collect();
        View { statuses, members, free }
    }

    /// Checks that this machine and the binary under test support a fault.
    pub(super) fn check_able(&self, fault: Fault, view: &View) -> Result<(), Unable> {
        let images = self.cluster.disk(1).is_some();
        let link = Link { from: 1, to: 2 };
        let mut rules = Rules::default();
        match fault {
            Fault::DiskFull | Fault::SyncFails | Fault::DiskDies | Fault::SlowDisk | Fault::HungDisk if !images => {
                return Err(Unable::DiskImages);
            }
            Fault::PowerCutOne | Fault::PowerCutMajority | Fault::PowerCutAll | Fault::PowerCutVote if !images => {
                return Err(Unable::PowerCuts);
            }
            Fault::FailPoint | Fault::PowerCutVote if view.has_fail_points() == Some(false) => {
                return Err(Unable::FailPoints);
            }
            Fault::ClockJump | Fault::ClockDrift if self.cluster.options().clocks == Clocks::Real => {
                return Err(Unable::Clocks);
            }
            Fault::Loss => _ = rules.loss_percent.insert(link, LOSS_PERCENT[0]),
            Fault::Latency => _ = rules.delay.insert(link, DELAYS[0]),
            Fault::Bandwidth => _ = rules.rate_kbit.insert(link.to, RATES_KBIT[0]),
            _ => {}
        }
        Ok(self.cluster.network().check_supported(&rules)?)
    }

    /// Chooses the targets and parameters of a fault.
    pub(super) async fn plan(&self, fault: Fault, view: &View, rng: &mut StdRng) -> Result<Plan, Skip> {
        if fault.destroys() {
            self.check_may_destroy().await?;
        }
        match fault.class() {
            Class::Network => plan_network(fault, view, rng),
            Class::Disk => plan_disk(fault, view, rng),
            Class::Clock => plan_clock(fault, self.cluster.options().clocks, view, rng),
            Class::Membership => plan_membership(fault, view, rng),
            Class::Log => Ok(Plan::hindering(view.free.clone(), Injection::PurgeLogs)),
            Class::Process => plan_process(fault, view, rng),
        }
    }

    /// Checks that no other fault is destructive, no disk is damaged, and every shard has all
    /// replicas.
    async fn check_may_destroy(&self) -> Result<(), Skip> {
        self.ledger.records().check_alone()?;
        if let Some(node) = self.ledger.records().damaged.first() {
            return Err(Skip::Damaged(*node));
        }
        match self.cluster.admin().is_healthy().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Skip::Unhealthy),
            Err(error) => Err(Skip::HealthUnknown(error)),
        }
    }
}

fn plan_process(fault: Fault, view: &View, rng: &mut StdRng) -> Result<Plan, Skip> {
    let count = match fault {
        Fault::KillMajority | Fault::PowerCutMajority => view.members.len() / 2 + 1,
        Fault::KillAll | Fault::PowerCutAll => view.members.len(),
        _ => 1,
    };
    if fault == Fault::PauseLeaders {
        let leading: Vec<usize> = view.leading().into_iter().filter(|node| view.free.contains(node)).collect();
        let count = rng.random_range(1..=2);
        let targets = leading.into_iter().sample(rng, count);
        if targets.is_empty() {
            return Err(Skip::NoLeader);
        }
        let pause_ms = rng.random_range(ELECTION_MS..=3 * ELECTION_MS);
        return Ok(Plan::disabling(targets, Injection::Pause { pause_ms }));
    }
    let targets = view.some(count, rng)?;
    let kills = matches!(fault, Fault::KillOne | Fault::KillMajority | Fault::KillAll);
    Ok(Plan::disabling(targets, if kills { Injection::Kill } else { Injection::PowerCut }))
}

fn plan_network(fault: Fault, view: &View, rng: &mut StdRng) -> Result<Plan, Skip> {
    let mut links = Vec::new();
    for from in &view.members {
        links.extend(view.members.iter().filter(|to| *to != from).map(|to| Link { from: *from, to: *to }));
    }
    let mut rules = Rules::default();
    let mut out = BTreeSet::new();
    let targets = match fault {
        Fault::Loss => {
            let percent = *LOSS_PERCENT.choose(rng).unwrap_or(&50);
            rules.loss_percent = links.into_iter().map(|link| (link, percent)).collect();
            view.members.clone()
        }
        Fault::Latency => {
            let delay = *DELAYS.choose(rng).unwrap_or(&DELAYS[0]);
            rules.delay = links.into_iter().map(|link| (link, delay)).collect();
            view.members.clone()
        }
        Fault::Bandwidth => {
            let targets = view.some(2, rng)?;
            let kbit = *RATES_KBIT.choose(rng).unwrap_or(&500);
            rules.rate_kbit = targets.iter().map(|node| (*node, kbit)).collect();
            targets
        }
        _ => {
            let partition = partition(fault, &view.members, &view.leading(), rng).ok_or(Skip::NoPartition)?;
            rules.cut = partition.cut;
            out = partition.alone;
            if out.is_empty() { view.members.clone() } else { out.iter().copied().collect() }
        }
    };
    let flaps = fault == Fault::PartitionFlapping;
    let injection = if flaps { Injection::Flapping(rules) } else { Injection::Links(rules) };
    Ok(Plan { targets, out, injection })
}

fn plan_disk(fault: Fault, view: &View, rng: &mut StdRng) -> Result<Plan, Skip> {
    let node = view.one(rng)?;
    let injection = match fault {
        Fault::DiskFull => Injection::DiskFull,
        Fault::SyncFails => Injection::SyncFails,
        Fault::DiskDies => Injection::DiskDies,
        Fault::HungDisk => Injection::HungDisk,
        Fault::SlowDisk => {
            let writes_per_second = *SLOW_WRITES.choose(rng).unwrap_or(&30);
            return Ok(Plan::hindering(view.some(2, rng)?, Injection::SlowDisk { writes_per_second }));
        }
        Fault::BitFlipLog => Injection::BitFlip { part: Part::Log, seed: rng.random() },
        Fault::BitFlipState => Injection::BitFlip { part: Part::State, seed: rng.random() },
        Fault::BitFlipSnapshot => Injection::BitFlip { part: Part::Snapshot, seed: rng.random() },
        _ => Injection::WipedDisk,
    };
    Ok(Plan::disabling(vec![node], injection))
}

fn plan_clock(fault: Fault, clocks: Clocks, view: &View, rng: &mut StdRng) -> Result<Plan, Skip> {
    let count = rng.random_range(1..=view.free.len().max(1));
    let targets = view.some(count, rng)?;
    let (jumps, drifts) = if clocks == Clocks::Wall { (JUMPS, WALL_DRIFTS) } else { (MONOTONIC_JUMPS, DRIFTS) };
    let skews = targets.iter().map(|node| {
        let skew = match fault {
            Fault::ClockJump => Skew { jump: *jumps.choose(rng).unwrap_or(&60), rate: 1.0 },
            _ => Skew { jump: 0, rate: *drifts.choose(rng).unwrap_or(&1.05) },
        };
        (*node, skew)
    });
    let skews = skews.collect();
    Ok(Plan::hindering(targets, Injection::Clocks(skews)))
}

fn plan_membership(fault: Fault, view: &View, rng: &mut StdRng) -> Result<Plan, Skip> {
    let seed = rng.random();
    Ok(match fault {
        Fault::TransferLeaders => Plan::hindering(view.free.clone(), Injection::TransferLeaders { seed }),
        Fault::MoveShard => Plan::hindering(vec![], Injection::MoveShard { seed }),
        Fault::FailPoint | Fault::PowerCutVote if view.has_fail_points().is_none() => {
            return Err(Skip::FailPointsUnknown);
        }
        Fault::FailPoint => Plan::hindering(vec![], Injection::FailPoint { seed }),
        Fault::PowerCutVote => {
            let (voter, shard, to) = view.voter(rng).ok_or(Skip::NoVoter)?;
            Plan::disabling(vec![voter], Injection::PowerCutVote { shard, to })
        }
        _ => {
            let node = view.one(rng)?;
            Plan::hindering(vec![node], Injection::Churn)
        }
    })
}
