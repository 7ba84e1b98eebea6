//! The life of a fault: planned, installed, healed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::damage::Damage;
use super::disk::DiskFaults;
use super::fail_point::FailPoints;
use super::fault::Fault;
use super::injection::Injection;
use super::journal::{Journal, Phase};
use super::ledger::{Finding, Hit, Ledger};
use super::membership::{MembershipFaults, purge_logs};
use super::network::NetworkFaults;
use super::plan::{Plan, Planner};
use super::repair::Repair;
use crate::cluster::clock::Skew;
use crate::cluster::{Cluster, Rules};

/// The longest time from the last healing until the cluster is healthy.
const HEALTHY_MAX: Duration = Duration::from_secs(120);
/// The pause between two health checks.
const POLL: Duration = Duration::from_millis(200);
/// The longest time until evidence of a network fault appears.
const EVIDENCE_MAX: Duration = Duration::from_secs(3);

/// Installs and heals the faults of one cluster.
pub struct Nemesis {
    cluster: Arc<Cluster>,
    ledger: Arc<Ledger>,
    network: Arc<NetworkFaults>,
    repair: Repair,
}

/// An installed fault.
#[must_use = "the fault stays until it is healed"]
pub struct Active {
    id: u64,
    fault: Fault,
    targets: Vec<usize>,
    leaders_hit: bool,
    injection: Injection,
    quorum_lost: bool,
}

impl Active {
    /// The nodes that it affects.
    pub fn targets(&self) -> &[usize] {
        &self.targets
    }

    /// Its duration, if that is a parameter of the fault.
    pub fn duration(&self) -> Option<Duration> {
        self.injection.duration()
    }

    /// Whether this fault, together with the other active ones, may leave shards without a quorum.
    /// Such a state should be short.
    pub fn quorum_lost(&self) -> bool {
        self.quorum_lost
    }
}

/// The result of an attempt to install a fault.
pub enum Outcome {
    /// The fault is installed, and its effect was verified.
    Installed(Active),
    /// The fault is not possible at the moment.
    Skipped {
        /// The reason.
        why: String,
    },
    /// The fault is never possible on this machine, or with the binary under test.
    Unable {
        /// The reason.
        why: String,
    },
    /// The injection failed halfway, and was undone.
    Indeterminate {
        /// The error.
        why: String,
    },
}

impl Nemesis {
    /// A nemesis without active faults.
    pub fn new(cluster: Arc<Cluster>, journal: Arc<Journal>) -> Self {
        let ledger = Arc::new(Ledger::new(Arc::clone(&cluster), journal));
        let network = Arc::new(NetworkFaults::new(Arc::clone(&cluster)));
        let repair = Repair::new(Arc::clone(&cluster), Arc::clone(&ledger));
        Nemesis { cluster, ledger, network, repair }
    }

    /// The journal.
    pub fn journal(&self) -> &Arc<Journal> {
        self.ledger.journal()
    }

    /// Behaviour of nodes that no fault explains, such as ending by themselves. Any finding is a
    /// bug.
    pub fn findings(&self) -> Vec<Finding> {
        self.ledger.records().findings.clone()
    }

    /// Installs a fault; returns when its effect was verified.
    pub async fn install(&self, fault: Fault, rng: &mut StdRng) -> Outcome {
        let id = self.ledger.new_id();
        let planner = Planner { cluster: &self.cluster, ledger: &self.ledger };
        let view = planner.view().await;
        if let Err(unable) = planner.check_able(fault, &view) {
            let why = self.note_refusal(id, fault, Phase::Unable, &unable);
            return Outcome::Unable { why };
        }
        let planned = planner.plan(fault, &view, rng).await;
        let reserved = planned.and_then(|plan| {
            let hit = Hit { fault, targets: plan.targets.clone(), out: plan.out.clone() };
            self.ledger.reserve(id, hit).map(|()| plan)
        });
        let Plan { targets, injection, .. } = match reserved {
            Ok(plan) => plan,
            Err(skip) => {
                let why = self.note_refusal(id, fault, Phase::Skipped, &skip);
                return Outcome::Skipped { why };
            }
        };
        let leaders_hit = targets.iter().any(|node| view.leading().contains(node));
        let out = self.ledger.mark(&injection, &targets);
        let quorum_lost = out > (self.cluster.options().replicas as usize - 1) / 2;
        let active = Active { id, fault, targets, leaders_hit, injection, quorum_lost };
        self.note(&active, Phase::Install, active.injection.describe());
        match self.inject(active.id, &active.injection, &active.targets).await {
            Ok(evidence) => {
                self.note(&active, Phase::Installed, evidence);
                Outcome::Installed(active)
            }
            Err(error) => {
                let why = format!("{error:#}");
                self.note(&active, Phase::Indeterminate, json!({ "why": why }));
                if let Err(error) = self.heal(active).await {
                    eprintln!("nemesis: {error:#}");
                }
                Outcome::Indeterminate { why }
            }
        }
    }

    /// Heals a fault; returns when its absence was verified.
    pub async fn heal(&self, active: Active) -> anyhow::Result<()> {
        self.note(&active, Phase::Heal, Value::Null);
        let undone = self.undo(active.id, &active.injection, &active.targets).await;
        self.ledger.records().active.remove(&active.id);
        let evidence = match undone {
            Ok(evidence) => evidence,
            Err(error) => {
                self.note(&active, Phase::Indeterminate, json!({ "why": format!("not healed: {error:#}") }));
                return Err(error.context(format!("{} was not healed", active.fault)));
            }
        };
        self.note(&active, Phase::Healed, evidence);
        let running = active.targets.iter().copied().filter(|node| self.cluster.node(*node).is_running());
        self.ledger.withdraw_excuse(running);
        Ok(())
    }

    /// Undoes the effects of all faults, restarts nodes that are down, and waits until the cluster
    /// reports itself healthy.
    pub async fn settle(&self) -> anyhow::Result<()> {
        self.network.heal_all().await?;
        self.repair.undo_all().await?;
        let deadline = Instant::now() + HEALTHY_MAX;
        loop {
            self.restart_fallen().await?;
            if self.cluster.admin().is_healthy().await.unwrap_or(false) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the cluster is not healthy {} s after the last fault",
                HEALTHY_MAX.as_secs()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Restarts the nodes that are down although no active fault keeps them down. An end without a
    /// reason is recorded as a finding first.
    pub async fn restart_fallen(&self) -> anyhow::Result<()> {
        self.repair.restart_fallen().await
    }

    /// Makes the changes of a fault; returns the evidence.
    async fn inject(&self, id: u64, injection: &Injection, targets: &[usize]) -> anyhow::Result<Value> {
        let (cluster, processes) = (&self.cluster, self.cluster.processes());
        match injection {
            Injection::Links(rules) => self.cut_links(id, rules).await,
            Injection::Flapping(rules) => {
                let evidence = self.cut_links(id, rules).await?;
                self.network.flap(id, rules.clone());
                Ok(evidence)
            }
            Injection::Kill => {
                processes.kill(targets).await?;
                Ok(json!({ "gone": targets }))
            }
            Injection::PowerCut => {
                processes.power_cut(targets).await?;
                Ok(json!({ "lost power": targets }))
            }
            Injection::Pause { .. } => {
                for node in targets {
                    processes.pause(*node).await?;
                }
                Ok(json!({ "state": "T" }))
            }
            Injection::Clocks(skews) => {
                let mut offsets = BTreeMap::new();
                for (node, skew) in skews {
                    offsets.insert(node.to_string(), processes.set_clock(*node, *skew).await?);
                }
                Ok(json!({ "seconds_off": offsets }))
            }
            Injection::PurgeLogs => purge_logs(cluster, targets).await,
            Injection::TransferLeaders { seed } => self.membership().transfer_leaders(*seed).await,
            Injection::MoveShard { seed } => self.membership().move_shard(*seed).await,
            Injection::FailPoint { seed } => self.fail_points().die_at_step(*seed).await,
            Injection::PowerCutVote { shard, to } => {
                self.fail_points().cut_power_at_vote(only(targets)?, *shard, *to).await
            }
            Injection::Churn => self.membership().drain(only(targets)?).await,
            Injection::BitFlip { part, seed } => self.damage().flip(only(targets)?, *part, *seed).await,
            Injection::WipedDisk => self.damage().return_without_data(only(targets)?).await,
            Injection::SlowDisk { writes_per_second } => self.disks().throttle(targets, *writes_per_second),
            Injection::DiskFull | Injection::SyncFails | Injection::DiskDies | Injection::HungDisk => {
                self.disks().break_disk(injection, only(targets)?).await
            }
        }
    }

    /// Undoes the changes of a fault, also those of an injection that failed halfway; returns the
    /// evidence.
    async fn undo(&self, id: u64, injection: &Injection, targets: &[usize]) -> anyhow::Result<Value> {
        let (cluster, processes) = (&self.cluster, self.cluster.processes());
        match injection {
            Injection::Links(_) | Injection::Flapping(_) => {
                self.network.stop_flapping(id).await?;
                self.network.set(id, None).await?;
                Ok(json!({ "still_wrong": self.network.cut_links().await }))
            }
            Injection::Kill | Injection::PowerCut => self.repair.restart_all(targets).await,
            Injection::Pause { .. } => {
                for node in targets.iter().filter(|node| cluster.node(**node).is_running()) {
                    processes.resume(*node)?;
                    let state = cluster.node(*node).process_state();
                    ensure!(state != Some('T'), "node {node} is still stopped");
                }
                Ok(json!({ "state": "not T" }))
            }
            Injection::Clocks(skews) => {
                let mut offsets = BTreeMap::new();
                for (node, _) in skews.iter().filter(|(node, _)| cluster.node(*node).is_running()) {
                    offsets.insert(node.to_string(), processes.set_clock(*node, Skew::NONE).await?);
                }
                Ok(json!({ "seconds_off": offsets }))
            }
            Injection::DiskFull | Injection::SyncFails | Injection::DiskDies | Injection::HungDisk => {
                self.disks().mend_disk(injection, only(targets)?).await
            }
            Injection::SlowDisk { .. } => self.disks().unthrottle(targets),
            Injection::BitFlip { .. } | Injection::WipedDisk => self.repair.replace(only(targets)?).await,
            Injection::PurgeLogs | Injection::TransferLeaders { .. } => Ok(Value::Null),
            Injection::MoveShard { .. } => self.membership().wait_for_operations().await,
            Injection::FailPoint { .. } => self.fail_points().undo().await,
            Injection::PowerCutVote { .. } => {
                processes.clear_fail_point()?;
                self.repair.restart_all(targets).await
            }
            Injection::Churn => self.membership().rejoin(only(targets)?).await,
        }
    }

    async fn cut_links(&self, id: u64, rules: &Rules) -> anyhow::Result<Value> {
        self.network.set(id, Some(rules.clone())).await?;
        self.cluster.network().evidence(rules, EVIDENCE_MAX).await
    }

    fn disks(&self) -> DiskFaults<'_> {
        DiskFaults { cluster: &self.cluster, ledger: &self.ledger, repair: &self.repair }
    }

    fn damage(&self) -> Damage<'_> {
        Damage { cluster: &self.cluster, ledger: &self.ledger, repair: &self.repair }
    }

    fn membership(&self) -> MembershipFaults<'_> {
        MembershipFaults { cluster: &self.cluster, repair: &self.repair }
    }

    fn fail_points(&self) -> FailPoints<'_> {
        FailPoints { cluster: &self.cluster, ledger: &self.ledger, repair: &self.repair }
    }

    fn note(&self, active: &Active, phase: Phase, detail: Value) {
        self.ledger.note(active.id, active.fault, phase, (&active.targets, active.leaders_hit), detail);
    }

    /// Writes to the journal why a fault is not installed; returns the reason.
    fn note_refusal(&self, id: u64, fault: Fault, phase: Phase, why: &impl std::fmt::Display) -> String {
        let why = why.to_string();
        self.ledger.note(id, fault, phase, (&[], false), json!({ "why": why }));
        why
    }
}

/// The target of a fault that affects exactly one node.
fn only(targets: &[usize]) -> anyhow::Result<usize> {
    match targets {
        [node] => Ok(*node),
        _ => bail!("the fault affects one node, not {}", targets.len()),
    }
}
