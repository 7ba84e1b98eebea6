//! Faults: made, seen to be there, held, taken away, seen to be gone, and written down.
//!
//! ```text
//!   Schedule ── which fault when ──► Nemesis::install ── plan ──► Harm ── apply ──► the cluster's network, disks, processes
//!                                    Nemesis::heal    ◄─ Active ──┘  ── cure  ──►
//!                                        └─► Journal: nemesis.jsonl
//! ```
//!
//! Of a fault that this machine does not allow the harness says that it is *unable*, one that is not possible now is *skipped*, each
//! with the reason; one that went wrong half way is *indeterminate*, and what was there of it is healed. None of these counts as a
//! fault that a run has stood.
//!
//! Read `fault` for what there is, `plan` for how targets are chosen, `harm` for what is done.

mod damage;
mod fault;
mod harm;
mod journal;
mod membership;
mod partition;
mod plan;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
pub use fault::{Class, Fault};
use harm::Harm;
pub use journal::{Journal, Line, Phase};
use rand::rngs::StdRng;
pub use schedule::{Schedule, Summary};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, Rules};

/// How long the cluster may take to be well after everything was healed.
const WELL_MAX: Duration = Duration::from_secs(120);
/// A node that ended so often without a reason is left alone: its data is the evidence.
const FINDINGS_MAX: usize = 3;
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(200);

/// Breaks one cluster, and mends it. Shared by all who break it.
pub struct Nemesis {
    cluster: Arc<Cluster>,
    journal: Arc<Journal>,
    links: tokio::sync::Mutex<Links>,
    /// Starting nodes that died is one task's work at a time.
    tending: tokio::sync::Mutex<()>,
    books: Mutex<Books>,
    flaps: Mutex<BTreeMap<u64, Flap>>,
}

/// How a flapping partition is stopped, and its task.
type Flap = (CancellationToken, JoinHandle<anyhow::Result<()>>);

/// What every fault wants of the network, and what the network does.
#[derive(Default)]
struct Links {
    wanted: BTreeMap<u64, Rules>,
    done: Rules,
}

#[derive(Default)]
struct Books {
    last_id: u64,
    active: BTreeMap<u64, Hit>,
    /// Nodes that a fault gave a reason to die.
    excused: BTreeSet<usize>,
    /// Nodes whose disk was full in their present life: what failed for that may end them when there is space again.
    filled: BTreeSet<usize>,
    /// Nodes whose disk may hold anything: should they refuse to start, they are made anew.
    damaged: BTreeSet<usize>,
    /// Nodes that do not start on a good disk: nobody touches them any more.
    given_up: BTreeSet<usize>,
    findings: Vec<Finding>,
}

impl Books {
    /// Whether something that is active, but for faults of the network, hits a node.
    fn is_hit(&self, node: usize) -> bool {
        let beyond_network = self.active.values().filter(|hit| hit.fault.class() != Class::Network);
        beyond_network.flat_map(|hit| &hit.targets).any(|target| *target == node)
    }

    /// Whether the targets of a fault are as free as when it was planned, which takes a while: another may have taken one since.
    fn check_still_free(&self, fault: Fault, targets: &[usize]) -> Result<(), String> {
        if fault.destroys() {
            self.check_alone()?;
        }
        // What goes on beside other faults.
        if matches!(fault.class(), Class::Network | Class::Log) || fault == Fault::TransferLeaders {
            return Ok(());
        }
        match targets.iter().find(|node| self.is_hit(**node)) {
            Some(node) => Err(format!("node {node} was hit by something else while it was planned")),
            None => Ok(()),
        }
    }

    /// Whether nothing is active that may destroy what a node holds.
    fn check_alone(&self) -> Result<(), String> {
        let other = self.active.values().find(|hit| hit.fault.destroys()).map(|hit| hit.fault);
        other.map_or(Ok(()), |other| {
            Err(format!("{other} is not healed yet, and both may destroy what a majority held"))
        })
    }
}

/// What an active fault keeps.
#[derive(Clone)]
struct Hit {
    fault: Fault,
    targets: Vec<usize>,
    out: BTreeSet<usize>,
}

/// A fault that is there.
#[must_use = "it stays until it is healed"]
pub struct Active {
    id: u64,
    fault: Fault,
    targets: Vec<usize>,
    leaders_hit: bool,
    harm: Harm,
    /// Whether it, with what else is active, may leave shards without a quorum.
    quorum_lost: bool,
}

impl Active {
    /// Its name.
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// The nodes that it hits.
    pub fn targets(&self) -> &[usize] {
        &self.targets
    }

    /// How long it lasts, where that is part of it.
    pub fn lasts(&self) -> Option<Duration> {
        self.harm.lasts()
    }

    /// Whether, with what else is active, shards may be without a quorum: it should not last.
    pub fn quorum_lost(&self) -> bool {
        self.quorum_lost
    }
}

/// What became of a fault that was to be made.
pub enum Outcome {
    /// It is there.
    Installed(Active),
    /// It cannot be made now.
    Skipped {
        /// Why.
        why: String,
    },
    /// It cannot be made on this machine, or with the binary under test.
    Unable {
        /// Why.
        why: String,
    },
    /// It went wrong half way.
    Indeterminate {
        /// Why.
        why: String,
    },
}

/// Something that no fault explains: a bug of the store.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The node.
    pub node: usize,
    /// What it did.
    pub what: String,
    /// The end of its log.
    pub log: String,
}

impl Nemesis {
    /// Breaks that cluster.
    pub fn new(cluster: Arc<Cluster>, journal: Arc<Journal>) -> Self {
        let (links, tending, books, flaps) = Default::default();
        Nemesis { cluster, journal, links, tending, books, flaps }
    }

    /// The cluster.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// What was written down.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// What nodes did that no fault explains, such as ending by themselves. A run with one has found a bug.
    pub fn findings(&self) -> Vec<Finding> {
        self.books().findings.clone()
    }

    /// Makes a fault; returns when it was seen to be there.
    pub async fn install(self: &Arc<Self>, fault: Fault, rng: &mut StdRng) -> Outcome {
        let id = self.new_id();
        let view = self.view().await;
        if let Err(why) = self.check_able(fault, &view) {
            self.note(id, fault, Phase::Unable, &[], false, json!({ "why": why }));
            return Outcome::Unable { why };
        }
        let plan = match self.plan(fault, &view, rng).await {
            Ok(plan) => plan,
            Err(why) => {
                self.note(id, fault, Phase::Skipped, &[], false, json!({ "why": why }));
                return Outcome::Skipped { why };
            }
        };
        let leaders_hit = plan.targets.iter().any(|node| view.leading().contains(node));
        let hit = Hit { fault, targets: plan.targets.clone(), out: plan.out.clone() };
        let booked = {
            let mut books = self.books();
            let free = books.check_still_free(fault, &plan.targets);
            if free.is_ok() {
                books.active.insert(id, hit);
            }
            free
        };
        if let Err(why) = booked {
            self.note(id, fault, Phase::Skipped, &[], false, json!({ "why": why }));
            return Outcome::Skipped { why };
        }
        let quorum_lost = {
            let mut books = self.books();
            if plan.harm.excuses() {
                books.excused.extend(&plan.targets);
            }
            if matches!(plan.harm, Harm::DiskFull) {
                books.filled.extend(&plan.targets);
            }
            if plan.harm.damages() {
                books.damaged.extend(&plan.targets);
            }
            let out: BTreeSet<usize> = books.active.values().flat_map(|hit| hit.out.iter().copied()).collect();
            out.len() > (self.cluster.options().replicas as usize - 1) / 2
        };
        let active = Active { id, fault, targets: plan.targets, leaders_hit, harm: plan.harm, quorum_lost };
        self.say(&active, Phase::Install, active.harm.describe());
        match self.apply(active.id, &active.harm, &active.targets).await {
            Ok(seen) => {
                self.say(&active, Phase::Installed, seen);
                Outcome::Installed(active)
            }
            Err(error) => {
                let why = format!("{error:#}");
                self.say(&active, Phase::Indeterminate, json!({ "why": why }));
                if let Err(error) = self.heal(active).await {
                    eprintln!("nemesis: {error:#}");
                }
                Outcome::Indeterminate { why }
            }
        }
    }

    /// Takes a fault away; returns when it was seen to be gone.
    pub async fn heal(&self, active: Active) -> anyhow::Result<()> {
        self.say(&active, Phase::Heal, Value::Null);
        let cured = self.cure(active.id, &active.harm, &active.targets).await;
        self.books().active.remove(&active.id);
        let seen = match cured {
            Ok(seen) => seen,
            Err(error) => {
                self.say(&active, Phase::Indeterminate, json!({ "why": format!("not healed: {error:#}") }));
                return Err(error.context(format!("{} was not healed", active.fault)));
            }
        };
        self.say(&active, Phase::Healed, seen);
        let still: BTreeSet<usize> = self.books().active.values().flat_map(|hit| hit.targets.clone()).collect();
        let mut books = self.books();
        for node in active.targets.iter().filter(|node| !still.contains(node)) {
            // A damaged disk may show later, when what was damaged is read.
            if self.cluster.node(*node).is_running() && !books.damaged.contains(node) {
                books.excused.remove(node);
            }
        }
        Ok(())
    }

    /// Mends everything that faults may have left, starts what is down, and waits until the cluster says that it is well.
    pub async fn settle(&self) -> anyhow::Result<()> {
        self.mend().await?;
        let deadline = Instant::now() + WELL_MAX;
        loop {
            self.tend().await?;
            if self.cluster.is_well().await.unwrap_or(false) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the cluster is not well {} s after the last fault", WELL_MAX.as_secs());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Starts nodes that are down though no active fault keeps them down. One that ended without a reason is written down
    /// first; one that does not start with a damaged disk is made anew.
    pub async fn tend(&self) -> anyhow::Result<()> {
        let _turn = self.tending.lock().await;
        for node in self.cluster.nodes() {
            let number = node.number();
            let kept_down = self.books().active.values().any(|hit| hit.targets.contains(&number));
            let damaged = self.books().damaged.contains(&number);
            let member = node.id().is_some() || damaged;
            if kept_down || !member || node.is_running() || self.books().given_up.contains(&number) {
                continue;
            }
            if damaged {
                self.rebuild(number).await?;
                continue;
            }
            if let Some(ended) = node.died()
                && (ended.is_crash() || !self.is_excused(number))
                && !node.died_at_fail_point()
            {
                let what = format!("a node ended by itself with {ended}");
                self.find(number, &what, node.log_tail());
                let again = self.findings().iter().filter(|finding| finding.node == number).count();
                if again >= FINDINGS_MAX {
                    self.books().given_up.insert(number);
                    continue;
                }
            }
            self.revive(number).await?;
            // It had one death for free.
            self.books().excused.remove(&number);
        }
        Ok(())
    }

    /// Whether a fault gave the node a reason to end by itself.
    fn is_excused(&self, number: usize) -> bool {
        let (excused, filled) = {
            let books = self.books();
            (books.excused.contains(&number), books.filled.contains(&number))
        };
        excused || (filled && self.cluster.node(number).died_for_lack_of_space())
    }

    fn say(&self, active: &Active, phase: Phase, detail: Value) {
        self.note(active.id, active.fault, phase, &active.targets, active.leaders_hit, detail);
    }

    fn note(&self, id: u64, fault: Fault, phase: Phase, targets: &[usize], leaders_hit: bool, detail: Value) {
        let fault = fault.name();
        let nodes = targets.iter().filter_map(|place| self.cluster.node(*place).id()).collect();
        self.journal.write(Line { time: 0, id, fault, phase, targets: targets.to_vec(), nodes, leaders_hit, detail });
    }

    fn new_id(&self) -> u64 {
        let mut books = self.books();
        books.last_id += 1;
        books.last_id
    }

    fn flaps(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Flap>> {
        self.flaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk was wiped of a node whose power was cut while that was planned, and which was started again before it was wiped; and a node
    /// was drained and wiped at once.
    #[test]
    fn two_faults_took_one_node_at_the_same_moment() {
        let mut books = Books::default();
        let hit = |fault, node| Hit { fault, targets: vec![node], out: BTreeSet::new() };
        assert!(books.check_still_free(Fault::WipedDisk, &[4]).is_ok());
        books.active.insert(1, hit(Fault::PowerCutOne, 4));
        assert!(books.check_still_free(Fault::WipedDisk, &[4]).is_err());
        assert!(books.check_still_free(Fault::WipedDisk, &[3]).is_ok());
        assert!(books.check_still_free(Fault::PurgeLogs, &[4]).is_ok());
        books.active.insert(2, hit(Fault::Churn, 2));
        assert!(books.check_still_free(Fault::WipedDisk, &[3]).is_err());
        assert!(books.check_still_free(Fault::KillOne, &[3]).is_ok());
        books.active.clear();
        books.active.insert(3, hit(Fault::Loss, 4));
        assert!(books.check_still_free(Fault::KillOne, &[4]).is_ok());
    }
}
