//! Faults that are no faults: leaders hand over, replicas move, nodes come and go, logs are purged; and nodes that die in the
//! middle of it, at a named step.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use quorate_proto::admin::NodeStatus;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use serde_json::{Value, json};

use super::Nemesis;
use crate::cluster::leaders_of;

/// How many leaders hand over at once.
const TRANSFERS: usize = 4;
/// How long an operation may take.
const OPERATION_MAX: Duration = Duration::from_secs(60);
/// How long a move may take until it comes to a step.
const STEP_MAX: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(100);
/// How often it is looked whether a node has died.
const LOOK_CLOSELY: Duration = Duration::from_millis(2);

/// Whose death a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// The node that leads the topology group.
    Reconciler,
    /// The node that leads the shard.
    Leader,
    /// The node that gets a replica.
    Target,
    /// The node that gives its replica away.
    Source,
    /// Any node that holds the shard.
    Holder,
}

/// What brings a node to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// A shard moves.
    Move,
    /// Clients write, as they do all the time.
    Load,
    /// Another replica is made the leader.
    Transfer,
    /// The node purges its logs.
    Purge,
}

/// The steps at which a node can die, which node comes by there, and why.
const STEPS: &[(Victim, &str, Cause)] = &[
    (Victim::Reconciler, "start-move-planned", Cause::Move),
    (Victim::Reconciler, "start-move-done", Cause::Move),
    (Victim::Reconciler, "add-learner-planned", Cause::Move),
    (Victim::Leader, "add-learner-received", Cause::Move),
    (Victim::Leader, "add-learner-done", Cause::Move),
    (Victim::Target, "replica-made", Cause::Move),
    (Victim::Leader, "snapshot-written", Cause::Move),
    (Victim::Target, "snapshot-staged", Cause::Move),
    (Victim::Target, "snapshot-installed", Cause::Move),
    (Victim::Reconciler, "change-voters-planned", Cause::Move),
    (Victim::Leader, "change-voters-received", Cause::Move),
    (Victim::Leader, "joint-change-applied", Cause::Move),
    (Victim::Target, "joint-change-applied", Cause::Move),
    (Victim::Leader, "change-voters-done", Cause::Move),
    (Victim::Reconciler, "finish-move-planned", Cause::Move),
    (Victim::Reconciler, "finish-move-done", Cause::Move),
    (Victim::Source, "replica-leaves", Cause::Move),
    (Victim::Source, "tombstone-written", Cause::Move),
    (Victim::Reconciler, "finish-operation-planned", Cause::Move),
    (Victim::Reconciler, "finish-operation-done", Cause::Move),
    (Victim::Leader, "append-unwritten", Cause::Load),
    (Victim::Leader, "append-written", Cause::Load),
    (Victim::Holder, "append-unwritten", Cause::Load),
    (Victim::Holder, "append-written", Cause::Load),
    (Victim::Leader, "entries-unapplied", Cause::Load),
    (Victim::Leader, "entries-applied", Cause::Load),
    (Victim::Holder, "entries-applied", Cause::Load),
    (Victim::Holder, "vote-unwritten", Cause::Transfer),
    (Victim::Holder, "vote-written", Cause::Transfer),
    (Victim::Holder, "vote-saved", Cause::Transfer),
    (Victim::Holder, "state-flushed", Cause::Purge),
    (Victim::Holder, "purge-unwritten", Cause::Purge),
    (Victim::Holder, "purge-written", Cause::Purge),
];

/// A move that is possible now.
struct Move {
    shard: u32,
    from: u64,
    to: u64,
}

impl Nemesis {
    /// Purges the logs of nodes to their tips.
    pub(super) async fn purge_logs(&self, nodes: &[usize]) -> anyhow::Result<Value> {
        let compacted = futures::future::join_all(nodes.iter().map(|node| self.cluster.compact(*node))).await;
        let purged: Vec<u64> = compacted.into_iter().filter_map(Result::ok).collect();
        ensure!(!purged.is_empty(), "no node purged its logs");
        Ok(json!({ "nodes": purged.len(), "purged_entries": purged.iter().sum::<u64>() }))
    }

    /// Hands some shards over to other replicas.
    pub(super) async fn transfer_leaders(&self, seed: u64) -> anyhow::Result<Value> {
        let mut rng = StdRng::seed_from_u64(seed);
        let statuses = self.cluster.statuses().await;
        let leaders: Vec<(u32, usize)> = leaders_of(&statuses).into_iter().filter(|(group, _)| *group > 0).collect();
        let mut done = Vec::new();
        for (shard, leader) in leaders.into_iter().sample(&mut rng, TRANSFERS) {
            let others = statuses.iter().filter(|(number, status)| **number != leader && holds(status, shard));
            let Some(to) = others.map(|(_, status)| status.id).choose(&mut rng) else { continue };
            let said =
                self.cluster.run(&["shard", "transfer-leader", &shard.to_string(), "--to", &to.to_string()]).await?;
            if said.code == Some(0) {
                done.push(json!({ "shard": shard, "to": to }));
            }
        }
        ensure!(!done.is_empty(), "no leader handed over");
        Ok(json!({ "transfers": done }))
    }

    /// Lets a replica move to another node.
    pub(super) async fn move_shard(&self, seed: u64) -> anyhow::Result<Value> {
        let mut rng = StdRng::seed_from_u64(seed);
        let chosen = choose_move(&self.cluster.statuses().await, &mut rng)?;
        self.begin(&chosen).await?;
        Ok(json!({ "shard": chosen.shard, "from": chosen.from, "to": chosen.to }))
    }

    async fn begin(&self, chosen: &Move) -> anyhow::Result<()> {
        let [shard, from, to] = [chosen.shard.to_string(), chosen.from.to_string(), chosen.to.to_string()];
        let start = ["shard", "move", &shard, "--from", &from, "--to", &to, "--yes", "--no-wait"];
        let said = self.cluster.run(&start).await?;
        ensure!(said.code == Some(0), "shard move: {}", said.error.trim());
        Ok(())
    }

    /// Waits until no operation runs, but not for ever: with other faults about, it goes on when they are gone.
    pub(super) async fn operations_end(&self) -> anyhow::Result<Value> {
        let begin = Instant::now();
        loop {
            let list = self.cluster.run_json(&["op", "list"]).await;
            let runs = |operation: &Value| operation["state"] == "running";
            let idle = list.as_ref().is_ok_and(|list| !list["items"].as_array().into_iter().flatten().any(runs));
            if idle {
                return Ok(json!({ "ended": true, "seconds": begin.elapsed().as_secs_f32() }));
            }
            if begin.elapsed() > OPERATION_MAX {
                return Ok(json!({ "ended": false, "operations": list.ok() }));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lets a node die at a step, and brings it there.
    pub(super) async fn die_at_fail_point(&self, seed: u64) -> anyhow::Result<Value> {
        let mut rng = StdRng::seed_from_u64(seed);
        let statuses = self.cluster.statuses().await;
        let (victim, step, cause) = *STEPS.choose(&mut rng).context("there are steps")?;
        let chosen = choose_move(&statuses, &mut rng)?;
        let leaders = leaders_of(&statuses);
        let leader = leaders.get(&chosen.shard).copied();
        let number = match victim {
            Victim::Reconciler => leaders.get(&0).copied(),
            Victim::Leader => leader,
            Victim::Target => self.cluster.numbered(chosen.to),
            Victim::Source => self.cluster.numbered(chosen.from),
            Victim::Holder => {
                let holders = statuses.iter().filter(|(_, status)| holds(status, chosen.shard));
                holders.map(|(number, _)| *number).filter(|number| Some(*number) != leader).choose(&mut rng)
            }
        };
        let number = number.with_context(|| format!("nobody is the {victim:?}"))?;
        if step.starts_with("snapshot") {
            self.purge_logs(&statuses.keys().copied().collect::<Vec<_>>()).await?;
        }
        self.books().excused.insert(number);
        self.cluster.set_fail_point(number, step)?;
        match cause {
            Cause::Load => {}
            Cause::Move => self.begin(&chosen).await?,
            Cause::Transfer => {
                let to = statuses.get(&number).context("its status was read")?.id.to_string();
                // Its answer may be that the node died.
                self.cluster.run(&["shard", "transfer-leader", &chosen.shard.to_string(), "--to", &to]).await?;
            }
            Cause::Purge => drop(self.cluster.compact(number).await),
        }
        if !self.comes_by(number).await {
            self.books().excused.remove(&number);
            bail!("{victim:?} {number} did not die at {step}");
        }
        Ok(json!({ "step": step, "victim": format!("{victim:?}"), "node": number, "shard": chosen.shard }))
    }

    /// Waits until a node has died; whether it did at its step.
    async fn comes_by(&self, number: usize) -> bool {
        let deadline = Instant::now() + STEP_MAX;
        while self.cluster.node(number).died().is_none() {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(LOOK_CLOSELY).await;
        }
        self.cluster.node(number).died_at_fail_point()
    }

    /// Lets a node vote for another one, and cuts its power when it has: it dies by itself right after that, so that nothing it does
    /// later can save the vote by accident.
    pub(super) async fn cut_power_at_vote(&self, voter: usize, shard: u32, to: u64) -> anyhow::Result<Value> {
        self.cluster.set_fail_point(voter, "vote-saved")?;
        let (shard, to) = (shard.to_string(), to.to_string());
        let transfer = ["shard", "transfer-leader", &shard, "--to", &to];
        let cut = async {
            ensure!(self.comes_by(voter).await, "node {voter} did not vote, or died of something else");
            self.cluster.power_cut(&[voter]).await
        };
        let (said, cut) = tokio::join!(self.cluster.run(&transfer), cut);
        cut?;
        Ok(json!({ "lost power": [voter], "transfer": said?.code }))
    }

    /// Takes the fail point away; whoever died is started, and the move comes to its end.
    pub(super) async fn fail_point_over(&self) -> anyhow::Result<Value> {
        self.cluster.clear_fail_point()?;
        self.tend().await?;
        {
            let mut books = self.books();
            let hit: BTreeSet<usize> = books.active.values().flat_map(|hit| hit.targets.clone()).collect();
            let damaged = books.damaged.clone();
            books.excused.retain(|node| hit.contains(node) || damaged.contains(node));
        }
        self.operations_end().await
    }

    /// Begins to drain a node; before that, an empty place is filled with a new one.
    pub(super) async fn drain(&self, targets: &[usize]) -> anyhow::Result<Value> {
        let node = *targets.first().context("a node to drain")?;
        let id = self.cluster.node(node).id().context("the node is in the cluster")?;
        let mut joined = None;
        if let Some(empty) = self.cluster.nodes().iter().find(|node| node.id().is_none() && !node.is_running()) {
            self.cluster.wipe(empty.number())?;
            joined = Some(self.join_anew(empty.number()).await?);
        }
        let said = self.cluster.run(&["node", "drain", &id.to_string(), "--yes", "--no-wait"]).await?;
        ensure!(said.code == Some(0), "node drain {id}: {}", said.error.trim());
        Ok(json!({ "joined": joined, "draining": id }))
    }

    /// Waits until a node is drained, removes it, and lets its place join again as a new node.
    pub(super) async fn rejoin(&self, number: usize) -> anyhow::Result<Value> {
        let old = self.cluster.node(number).id().context("the node was in the cluster")?.to_string();
        let drained = self.operations_end().await?;
        if drained["ended"] == false {
            let said = self.cluster.run(&["node", "undrain", &old]).await?;
            return Ok(json!({ "kept": old, "drain": drained, "undrain": said.code }));
        }
        let said = self.cluster.run(&["node", "remove", &old, "--yes", "--timeout", "60s"]).await?;
        ensure!(said.code == Some(0), "node remove {old}: {}", said.error.trim());
        self.cluster.kill(&[number]).await?;
        self.cluster.wipe(number)?;
        let new = self.join_anew(number).await?;
        Ok(json!({ "removed": old, "joined": new }))
    }
}

pub(super) fn holds(status: &NodeStatus, group: u32) -> bool {
    status.replicas.iter().any(|replica| replica.group == group)
}

/// A shard that has a replica on one node and none on another.
fn choose_move(statuses: &std::collections::BTreeMap<usize, NodeStatus>, rng: &mut StdRng) -> anyhow::Result<Move> {
    let shards: BTreeSet<u32> = statuses.values().flat_map(|status| &status.replicas).map(|at| at.group).collect();
    let shard = shards.into_iter().filter(|group| *group > 0).choose(rng).context("no shard is known")?;
    let with = |has: bool| statuses.values().filter(move |status| holds(status, shard) == has).map(|status| status.id);
    let from = with(true).choose(rng).context("nobody has the shard")?;
    let to = with(false).choose(rng).context("everybody has the shard")?;
    Ok(Move { shard, from, to })
}
