//! What exactly a fault is to hit: chosen by the seed among the nodes that nothing else hits.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::admin::NodeStatus;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};

use super::Nemesis;
use super::fault::{Class, Fault};
use super::harm::{Harm, Part};
use super::membership::holds;
use super::partition::partition;
use crate::cluster::clock::Skew;
use crate::cluster::{Clocks, Delay, Link, Rules, leaders_of};

/// How many of a hundred packets a lossy link loses.
const LOSS_PERCENT: &[u8] = &[5, 20, 50];
/// How long packets are held back, in milliseconds, and how much longer by chance.
const DELAYS: &[Delay] = &[
    Delay { base_ms: 20, jitter_ms: 5 },
    Delay { base_ms: 80, jitter_ms: 60 },
    Delay { base_ms: 250, jitter_ms: 250 },
];
/// Kilobits a second that reach a node.
const RATES_KBIT: &[u32] = &[100, 500, 2000];
/// An election time-out, in milliseconds: pauses last one to three of them.
const ELECTION_MS: u64 = 450;
/// How far clocks jump, in seconds.
const JUMPS: &[i64] = &[-86_400, -60, -2, 2, 60, 86_400];
/// A monotonic clock never goes back. It goes on after a jump as if the machine had slept.
const MONOTONIC_JUMPS: &[i64] = &[1, 10];
/// How fast a wall clock goes: as it likes.
const WALL_DRIFTS: &[f64] = &[0.2, 0.9, 1.1, 5.0];
/// How fast a monotonic clock goes: two nodes differ by a tenth at most. No oscillator is that bad.
const DRIFTS: &[f64] = &[0.95, 1.05];
/// Writes a second of a slow disk.
const SLOW_WRITES: &[u32] = &[10, 30, 100];

/// What the cluster looks like when a fault is planned.
pub(super) struct View {
    /// What the nodes that answer say.
    pub(super) statuses: BTreeMap<usize, NodeStatus>,
    /// Nodes that are in the cluster.
    members: Vec<usize>,
    /// Those that run and that no active fault hits, but for faults of the network.
    free: Vec<usize>,
}

impl View {
    /// Nodes that lead a group.
    pub(super) fn leading(&self) -> BTreeSet<usize> {
        leaders_of(&self.statuses).into_values().collect()
    }

    /// Some of the free ones; `count` at most, one at least.
    fn some(&self, count: usize, rng: &mut StdRng) -> Result<Vec<usize>, String> {
        let mut chosen = self.free.iter().copied().sample(rng, count.max(1));
        chosen.sort_unstable();
        if chosen.is_empty() { Err("every node is hit by something already".to_owned()) } else { Ok(chosen) }
    }

    /// A free node that will be asked for its vote, by whom, and for which shard: of a shard's three replicas one leads, and one is
    /// to lead.
    fn voter(&self, rng: &mut StdRng) -> Option<(usize, u32, u64)> {
        let shards = leaders_of(&self.statuses).into_iter().filter(|(group, _)| *group > 0);
        let asked = shards.filter_map(|(shard, leader)| {
            let free = self.statuses.iter().filter(|(number, _)| self.free.contains(number));
            let followers = free.filter(|(number, status)| **number != leader && holds(status, shard));
            let followers: Vec<_> = followers.map(|(number, status)| (*number, status.id)).collect();
            (followers.len() > 1).then_some((shard, followers))
        });
        let (shard, followers) = asked.choose(rng)?;
        let mut two = followers.into_iter().sample(rng, 2).into_iter();
        let ((voter, _), (_, candidate)) = (two.next()?, two.next()?);
        Some((voter, shard, candidate))
    }

    /// Whether nodes can be told to die at a step: only builds for tests can, and their version says so. None: nobody answers.
    fn has_fail_points(&self) -> Option<bool> {
        let any = self.statuses.values().any(|status| status.version.ends_with("+bugs"));
        (!self.statuses.is_empty()).then_some(any)
    }

    fn one(&self, rng: &mut StdRng) -> Result<usize, String> {
        self.free.choose(rng).copied().ok_or_else(|| "every node is hit by something already".to_owned())
    }
}

/// What a fault will do.
pub(super) struct Plan {
    pub(super) targets: Vec<usize>,
    /// Nodes that take no part while it lasts.
    pub(super) out: BTreeSet<usize>,
    pub(super) harm: Harm,
}

impl Plan {
    /// A fault whose targets take no part.
    fn disabling(targets: Vec<usize>, harm: Harm) -> Self {
        Plan { out: targets.iter().copied().collect(), targets, harm }
    }

    /// A fault whose targets go on.
    fn hindering(targets: Vec<usize>, harm: Harm) -> Self {
        Plan { out: BTreeSet::new(), targets, harm }
    }
}

impl Nemesis {
    pub(super) async fn view(&self) -> View {
        let statuses = self.cluster.statuses().await;
        let members: Vec<usize> =
            self.cluster.nodes().iter().filter(|node| node.id().is_some()).map(|node| node.number()).collect();
        let books = self.books();
        let runs = |node: &usize| self.cluster.node(*node).is_running();
        let free = members.iter().copied().filter(|node| runs(node) && !books.is_hit(*node)).collect();
        View { statuses, members, free }
    }

    /// Whether this machine and what is tested on it allow such a fault at all; the error says why not.
    pub(super) fn check_able(&self, fault: Fault, view: &View) -> Result<(), String> {
        let images = self.cluster.disk(1).is_some();
        let link = Link { from: 1, to: 2 };
        let mut rules = Rules::default();
        match fault {
            Fault::DiskFull | Fault::SyncFails | Fault::DiskDies | Fault::SlowDisk | Fault::HungDisk if !images => {
                return Err("disks can be broken only where they are images".to_owned());
            }
            Fault::PowerCutOne | Fault::PowerCutMajority | Fault::PowerCutAll | Fault::PowerCutVote if !images => {
                return Err("power can be cut only where disks are images".to_owned());
            }
            Fault::FailPoint | Fault::PowerCutVote if view.has_fail_points() == Some(false) => {
                return Err("the binary under test has no fail points: build it with the feature 'bugs'".to_owned());
            }
            Fault::ClockJump | Fault::ClockDrift if self.cluster.options().clocks == Clocks::Real => {
                return Err("the nodes were started with real clocks".to_owned());
            }
            Fault::Loss => _ = rules.loss_percent.insert(link, LOSS_PERCENT[0]),
            Fault::Latency => _ = rules.delay.insert(link, DELAYS[0]),
            Fault::Bandwidth => _ = rules.rate_kbit.insert(link.to, RATES_KBIT[0]),
            _ => {}
        }
        self.cluster.can(&rules)
    }

    /// What a fault will do; an error says why it cannot be made now.
    pub(super) async fn plan(&self, fault: Fault, view: &View, rng: &mut StdRng) -> Result<Plan, String> {
        if fault.destroys() {
            self.may_destroy().await?;
        }
        let majority = view.members.len() / 2 + 1;
        match fault.class() {
            Class::Network => self.plan_network(fault, view, rng),
            Class::Disk => self.plan_disk(fault, view, rng),
            Class::Clock => self.plan_clock(fault, view, rng),
            Class::Membership => self.plan_membership(fault, view, rng),
            Class::Log => Ok(Plan::hindering(view.free.clone(), Harm::PurgeLogs)),
            Class::Process => {
                let count = match fault {
                    Fault::KillMajority | Fault::PowerCutMajority => majority,
                    Fault::KillAll | Fault::PowerCutAll => view.members.len(),
                    _ => 1,
                };
                if fault == Fault::PauseLeaders {
                    let leading: Vec<usize> =
                        view.leading().into_iter().filter(|node| view.free.contains(node)).collect();
                    let count = rng.random_range(1..=2);
                    let targets = leading.into_iter().sample(rng, count);
                    if targets.is_empty() {
                        return Err("nobody leads".to_owned());
                    }
                    let pause_ms = rng.random_range(ELECTION_MS..=3 * ELECTION_MS);
                    return Ok(Plan::disabling(targets, Harm::Pause { pause_ms }));
                }
                let targets = view.some(count, rng)?;
                if fault.name().starts_with("kill") {
                    return Ok(Plan::disabling(targets, Harm::Kill));
                }
                Ok(Plan::disabling(targets, Harm::PowerCut))
            }
        }
    }

    fn plan_network(&self, fault: Fault, view: &View, rng: &mut StdRng) -> Result<Plan, String> {
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
                let partition = partition(fault, &view.members, &view.leading(), rng);
                let partition = partition.ok_or("nobody leads, or there are too few nodes")?;
                rules.cut = partition.cut;
                out = partition.alone;
                if out.is_empty() { view.members.clone() } else { out.iter().copied().collect() }
            }
        };
        let harm = if fault == Fault::PartitionFlapping { Harm::Flapping(rules) } else { Harm::Links(rules) };
        Ok(Plan { targets, out, harm })
    }

    fn plan_disk(&self, fault: Fault, view: &View, rng: &mut StdRng) -> Result<Plan, String> {
        let node = view.one(rng)?;
        Ok(match fault {
            Fault::DiskFull => Plan::disabling(vec![node], Harm::DiskFull),
            Fault::SyncFails => Plan::disabling(vec![node], Harm::SyncFails),
            Fault::DiskDies => Plan::disabling(vec![node], Harm::DiskDies),
            Fault::HungDisk => Plan::disabling(vec![node], Harm::HungDisk),
            Fault::SlowDisk => {
                let writes = *SLOW_WRITES.choose(rng).unwrap_or(&30);
                Plan::hindering(view.some(2, rng)?, Harm::SlowDisk { writes_per_second: writes })
            }
            Fault::BitFlipLog => Plan::disabling(vec![node], Harm::BitFlip { part: Part::Log, seed: rng.random() }),
            Fault::BitFlipState => Plan::disabling(vec![node], Harm::BitFlip { part: Part::State, seed: rng.random() }),
            Fault::BitFlipSnapshot => {
                Plan::disabling(vec![node], Harm::BitFlip { part: Part::Snapshot, seed: rng.random() })
            }
            _ => Plan::disabling(vec![node], Harm::WipedDisk),
        })
    }

    fn plan_clock(&self, fault: Fault, view: &View, rng: &mut StdRng) -> Result<Plan, String> {
        let clocks = self.cluster.options().clocks;
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
        Ok(Plan::hindering(targets, Harm::Clocks(skews)))
    }

    fn plan_membership(&self, fault: Fault, view: &View, rng: &mut StdRng) -> Result<Plan, String> {
        let seed = rng.random();
        Ok(match fault {
            Fault::TransferLeaders => Plan::hindering(view.free.clone(), Harm::TransferLeaders { seed }),
            Fault::MoveShard => Plan::hindering(vec![], Harm::MoveShard { seed }),
            Fault::FailPoint | Fault::PowerCutVote if view.has_fail_points().is_none() => {
                return Err("no node says whether it has fail points".to_owned());
            }
            Fault::FailPoint => Plan::hindering(vec![], Harm::FailPoint { seed }),
            Fault::PowerCutVote => {
                let (voter, shard, to) = view.voter(rng).ok_or("nobody who is free can be asked for a vote")?;
                Plan::disabling(vec![voter], Harm::PowerCutVote { shard, to })
            }
            _ => {
                let node = view.one(rng)?;
                Plan::hindering(vec![node], Harm::Churn)
            }
        })
    }

    /// Whether nothing else is destroyed, and every shard has all its replicas.
    async fn may_destroy(&self) -> Result<(), String> {
        self.books().check_alone()?;
        if let Some(node) = self.books().damaged.first() {
            return Err(format!("node {node} runs on a disk that may be damaged"));
        }
        match self.cluster.is_well().await {
            Ok(true) => Ok(()),
            Ok(false) => Err("shards miss replicas, or replicas move: more may not be destroyed now".to_owned()),
            Err(error) => Err(format!("the cluster does not say whether all replicas are there: {error:#}")),
        }
    }
}
