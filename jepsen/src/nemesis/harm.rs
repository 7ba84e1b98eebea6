//! What is done to the cluster, how it is seen that it was done, and how it is undone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Nemesis;
use crate::cluster::clock::Skew;
use crate::cluster::{Ballast, Clocks, Disk, Rules};

/// How long evidence may take to show.
const EVIDENCE_MAX: Duration = Duration::from_secs(3);
/// How long a node may take to notice that its disk is gone.
const NOTICE_MAX: Duration = Duration::from_secs(10);
/// How long a flapping partition stays as it is, in milliseconds: below and above what an election takes.
const FLAP_MS: &[u64] = &[100, 300, 700, 1500];
const LOOK: Duration = Duration::from_millis(20);

/// Which file of a node gets a bit flipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Part {
    /// The log of all groups.
    Log,
    /// The state of all groups.
    State,
    /// A snapshot that arrives.
    Snapshot,
}

/// What is done to the targets.
#[derive(Clone, Debug)]
pub(super) enum Harm {
    Links(Rules),
    Flapping(Rules),
    Kill,
    PowerCut,
    /// The target's power is cut when it votes, which it does because another node is to lead a shard.
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

impl Harm {
    /// Whether a target may end by itself because of it.
    pub(super) fn excuses(&self) -> bool {
        matches!(self, Harm::DiskFull | Harm::SyncFails | Harm::DiskDies | Harm::HungDisk | Harm::Churn)
            || matches!(self, Harm::FailPoint { .. } | Harm::PowerCutVote { .. } | Harm::BitFlip { .. })
            || self.damages()
    }

    /// Whether it leaves a disk that may have to be given up.
    pub(super) fn damages(&self) -> bool {
        matches!(self, Harm::WipedDisk | Harm::BitFlip { .. })
    }

    /// How long it lasts, where that is part of it.
    pub(super) fn lasts(&self) -> Option<Duration> {
        match self {
            Harm::Pause { pause_ms } => Some(Duration::from_millis(*pause_ms)),
            _ => None,
        }
    }

    /// What it is, for the journal.
    pub(super) fn describe(&self) -> Value {
        match self {
            Harm::Links(rules) | Harm::Flapping(rules) => {
                let cut: Vec<String> = rules.cut.iter().map(|link| format!("{}→{}", link.from, link.to)).collect();
                let loss: Option<&u8> = rules.loss_percent.values().next();
                json!({ "cut": cut, "loss_percent": loss, "delay": rules.delay.values().next(), "kbit": rules.rate_kbit })
            }
            Harm::Pause { pause_ms } => json!({ "pause_ms": pause_ms }),
            Harm::Clocks(skews) => skews
                .iter()
                .map(|(node, skew)| (node.to_string(), json!({ "jump_seconds": skew.jump, "rate": skew.rate })))
                .collect(),
            Harm::SlowDisk { writes_per_second } => json!({ "writes_per_second": writes_per_second }),
            Harm::BitFlip { part, .. } => json!({ "part": part }),
            Harm::PowerCutVote { shard, to } => json!({ "shard": shard, "votes_for": to }),
            _ => Value::Null,
        }
    }
}

impl Nemesis {
    /// Does it, and says what was seen of it.
    pub(super) async fn apply(self: &Arc<Self>, id: u64, harm: &Harm, targets: &[usize]) -> anyhow::Result<Value> {
        let cluster = &self.cluster;
        match harm {
            Harm::Links(rules) => {
                self.want_links(id, Some(rules.clone())).await?;
                cluster.evidence(rules, EVIDENCE_MAX).await
            }
            Harm::Flapping(rules) => {
                self.want_links(id, Some(rules.clone())).await?;
                let seen = cluster.evidence(rules, EVIDENCE_MAX).await?;
                self.flap(id, rules.clone());
                Ok(seen)
            }
            Harm::Kill => {
                cluster.kill(targets).await?;
                Ok(json!({ "gone": targets }))
            }
            Harm::PowerCut => {
                cluster.power_cut(targets).await?;
                Ok(json!({ "lost power": targets }))
            }
            Harm::Pause { .. } => {
                for node in targets {
                    cluster.pause(*node).await?;
                }
                Ok(json!({ "state": "T" }))
            }
            Harm::Clocks(skews) => {
                let mut seen = BTreeMap::new();
                for (node, skew) in skews {
                    seen.insert(node.to_string(), cluster.set_clock(*node, *skew).await?);
                }
                Ok(json!({ "seconds_off": seen }))
            }
            Harm::PurgeLogs => self.purge_logs(targets).await,
            Harm::TransferLeaders { seed } => self.transfer_leaders(*seed).await,
            Harm::MoveShard { seed } => self.move_shard(*seed).await,
            Harm::FailPoint { seed } => self.die_at_fail_point(*seed).await,
            Harm::PowerCutVote { shard, to } => self.cut_power_at_vote(target(targets)?, *shard, *to).await,
            Harm::Churn => self.drain(targets).await,
            Harm::BitFlip { part, seed } => self.flip(target(targets)?, *part, *seed).await,
            Harm::WipedDisk => self.return_without_data(target(targets)?).await,
            Harm::SlowDisk { writes_per_second } => {
                for node in targets {
                    let pid = cluster.node(*node).pid().with_context(|| format!("node {node} does not run"))?;
                    self.disk(*node)?.throttle(pid, *writes_per_second)?;
                }
                Ok(json!({ "throttled": targets }))
            }
            Harm::DiskFull | Harm::SyncFails | Harm::DiskDies | Harm::HungDisk => {
                self.break_disk(harm, target(targets)?).await
            }
        }
    }

    async fn break_disk(&self, harm: &Harm, node: usize) -> anyhow::Result<Value> {
        let disk = self.disk(node)?;
        match harm {
            Harm::DiskFull => {
                let taken = disk.fill(Ballast::FileSystem)?;
                Ok(json!({ "taken_bytes": taken, "free_bytes": disk.free(Ballast::FileSystem)? }))
            }
            Harm::SyncFails => {
                disk.trim().await?;
                let taken = disk.fill(Ballast::Device)?;
                let seen = json!({ "taken_bytes": taken, "free_bytes": disk.free(Ballast::Device)? });
                Ok(json!({ "below": seen, "node": self.notices(node).await? }))
            }
            Harm::DiskDies => {
                // A sync that is under way while a journal is aborted may say that it succeeded (ext4; seen in one of four), which is
                // a disk that lies. So none is.
                self.cluster.pause(node).await?;
                let cut = async {
                    self.cluster.node(node).wait_until_all_stopped().await?;
                    disk.shut_down().await
                };
                let cut = cut.await;
                self.cluster.resume(node)?;
                cut?;
                Ok(json!({ "disk": "input/output error", "node": self.notices(node).await? }))
            }
            _ => {
                disk.freeze().await?;
                Ok(json!({ "disk": "frozen" }))
            }
        }
    }

    /// Undoes it, and says what was seen of that. Also called when applying went wrong half way.
    pub(super) async fn cure(&self, id: u64, harm: &Harm, targets: &[usize]) -> anyhow::Result<Value> {
        let cluster = &self.cluster;
        match harm {
            Harm::Links(_) | Harm::Flapping(_) => {
                self.stop_flapping(id).await?;
                self.want_links(id, None).await?;
                Ok(json!({ "still_wrong": self.links.lock().await.done.cut.len() }))
            }
            Harm::Kill | Harm::PowerCut => self.revive_all(targets).await,
            Harm::Pause { .. } => {
                for node in targets.iter().filter(|node| cluster.node(**node).is_running()) {
                    cluster.resume(*node)?;
                    let state = cluster.node(*node).process_state();
                    ensure!(state != Some('T'), "node {node} is still stopped");
                }
                Ok(json!({ "state": "not T" }))
            }
            Harm::Clocks(skews) => {
                let mut seen = BTreeMap::new();
                for (node, _) in skews.iter().filter(|(node, _)| cluster.node(*node).is_running()) {
                    seen.insert(node.to_string(), cluster.set_clock(*node, Skew::NONE).await?);
                }
                Ok(json!({ "seconds_off": seen }))
            }
            Harm::DiskFull => {
                let disk = self.disk(target(targets)?)?;
                disk.release(Ballast::FileSystem)?;
                let free = disk.free(Ballast::FileSystem)?;
                Ok(json!({ "free_bytes": free, "nodes": self.revive_all(targets).await? }))
            }
            Harm::SyncFails | Harm::DiskDies => {
                // The machine is started anew: what the kernel had cached of that disk counts no more.
                let node = target(targets)?;
                self.disk(node)?.release(Ballast::Device)?;
                let ended = cluster.node(node).died().map(|ended| ended.to_string());
                cluster.kill(targets).await?;
                self.disk(node)?.power_up().await?;
                Ok(json!({ "ended": ended, "nodes": self.revive_all(targets).await? }))
            }
            Harm::HungDisk => {
                self.disk(target(targets)?)?.thaw().await?;
                self.revive_all(targets).await
            }
            Harm::SlowDisk { .. } => {
                targets.iter().try_for_each(|node| self.disk(*node)?.unthrottle())?;
                Ok(Value::Null)
            }
            Harm::BitFlip { .. } | Harm::WipedDisk => self.rebuild(target(targets)?).await,
            Harm::PurgeLogs | Harm::TransferLeaders { .. } => Ok(Value::Null),
            Harm::MoveShard { .. } => self.operations_end().await,
            Harm::FailPoint { .. } => self.fail_point_over().await,
            Harm::PowerCutVote { .. } => {
                cluster.clear_fail_point()?;
                self.revive_all(targets).await
            }
            Harm::Churn => self.rejoin(target(targets)?).await,
        }
    }

    /// Undoes whatever may be there, for the end of a run.
    pub(super) async fn mend(&self) -> anyhow::Result<()> {
        let flapping: Vec<u64> = self.flaps().keys().copied().collect();
        for id in flapping {
            self.stop_flapping(id).await?;
        }
        self.whole_network().await?;
        self.cluster.clear_fail_point()?;
        for node in self.cluster.nodes() {
            if let Some(disk) = self.cluster.disk(node.number()) {
                // Refused where it is not frozen.
                let _ = disk.thaw().await;
                if !disk.is_mounted()? {
                    disk.mount().await?;
                }
                disk.release(Ballast::Device)?;
                disk.release(Ballast::FileSystem)?;
                disk.unthrottle()?;
            }
            if node.process_state() == Some('T') {
                self.cluster.resume(node.number())?;
            }
            if self.cluster.options().clocks != Clocks::Real && node.is_running() {
                self.cluster.set_clock(node.number(), Skew::NONE).await?;
            }
        }
        self.books().active.clear();
        Ok(())
    }

    pub(super) fn disk(&self, node: usize) -> anyhow::Result<&Disk> {
        self.cluster.disk(node).context("disks are plain directories")
    }

    /// How a node took what happened to its disk: it must end, with the code for that. One that goes on did not touch its disk, or does
    /// not mind; that does not count as a fault that was there.
    async fn notices(&self, node: usize) -> anyhow::Result<String> {
        let deadline = Instant::now() + NOTICE_MAX;
        while Instant::now() < deadline {
            if let Some(ended) = self.cluster.node(node).died() {
                if !ended.is_disk_failure() {
                    let what = format!("a node whose disk failed ended with {ended} instead of the exit code for that");
                    self.find(node, &what, self.cluster.node(node).log_tail());
                }
                return Ok(format!("ended with {ended}"));
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("node {node} still runs {} s after its disk failed", NOTICE_MAX.as_secs())
    }

    /// Adds to, or takes from, what the network is to do.
    async fn want_links(&self, id: u64, rules: Option<Rules>) -> anyhow::Result<()> {
        let mut links = self.links.lock().await;
        match rules {
            Some(rules) => links.wanted.insert(id, rules),
            None => links.wanted.remove(&id),
        };
        let mut all = Rules::default();
        links.wanted.values().for_each(|rules| all.merge(rules));
        self.cluster.change_links(&links.done, &all).await?;
        links.done = all;
        Ok(())
    }

    async fn whole_network(&self) -> anyhow::Result<()> {
        let mut links = self.links.lock().await;
        links.wanted.clear();
        if !links.done.is_empty() {
            self.cluster.change_links(&links.done, &Rules::default()).await?;
            links.done = Rules::default();
        }
        Ok(())
    }

    /// Takes the rules away and puts them back, again and again, until it is told to stop.
    fn flap(self: &Arc<Self>, id: u64, rules: Rules) {
        let (this, stop) = (self.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut turn = usize::try_from(id).unwrap_or(0);
            loop {
                let pause = Duration::from_millis(FLAP_MS[turn % FLAP_MS.len()]);
                if stopped.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return Ok(());
                }
                turn += 1;
                let there = this.links.lock().await.wanted.contains_key(&id);
                this.want_links(id, (!there).then(|| rules.clone())).await?;
            }
        });
        self.flaps().insert(id, (stop, task));
    }

    async fn stop_flapping(&self, id: u64) -> anyhow::Result<()> {
        let flap = self.flaps().remove(&id);
        let Some((stop, task)) = flap else { return Ok(()) };
        stop.cancel();
        task.await?
    }
}

fn target(targets: &[usize]) -> anyhow::Result<usize> {
    match targets {
        [node] => Ok(*node),
        _ => bail!("the fault hits one node, not {}", targets.len()),
    }
}
