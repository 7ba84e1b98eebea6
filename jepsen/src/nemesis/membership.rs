//! Membership changes as faults: leader transfers, replica moves, nodes that join and leave, and
//! purged logs. An operator may do all of this at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use quorate_proto::admin::NodeStatus;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use serde_json::{Value, json};

use super::repair::Repair;
use super::view::holds;
use crate::cluster::{Cluster, leaders_of};

/// The number of leaders that are transferred at a time.
const TRANSFERS: usize = 4;
/// The longest time for an operation.
const OPERATION_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// A replica move that is possible now.
pub(super) struct Move {
    pub(super) shard: u32,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// Injects and undoes membership changes.
pub(super) struct MembershipFaults<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) repair: &'a Repair,
}

impl MembershipFaults<'_> {
    /// Transfers the leadership of some shards to other replicas.
    pub(super) async fn transfer_leaders(&self, seed: u64) -> anyhow::Result<Value> {
        let mut rng = StdRng::seed_from_u64(seed);
        let statuses = self.cluster.admin().statuses().await;
        let leaders: Vec<(u32, usize)> = leaders_of(&statuses).into_iter().filter(|(group, _)| *group > 0).collect();
        let mut done = Vec::new();
        for (shard, leader) in leaders.into_iter().sample(&mut rng, TRANSFERS) {
            let others = statuses.iter().filter(|(number, status)| **number != leader && holds(status, shard));
            let Some(to) = others.map(|(_, status)| status.id).choose(&mut rng) else { continue };
            let transfer = ["shard", "transfer-leader", &shard.to_string(), "--to", &to.to_string()];
            if self.cluster.admin().run(&transfer).await?.code == Some(0) {
                done.push(json!({ "shard": shard, "to": to }));
            }
        }
        ensure!(!done.is_empty(), "no leadership was transferred");
        Ok(json!({ "transfers": done }))
    }

    /// Moves a replica to another node.
    pub(super) async fn move_shard(&self, seed: u64) -> anyhow::Result<Value> {
        let mut rng = StdRng::seed_from_u64(seed);
        let chosen = choose_move(&self.cluster.admin().statuses().await, &mut rng)?;
        self.begin_move(&chosen).await?;
        Ok(json!({ "shard": chosen.shard, "from": chosen.from, "to": chosen.to }))
    }

    /// Starts a move without waiting for its end.
    pub(super) async fn begin_move(&self, chosen: &Move) -> anyhow::Result<()> {
        let [shard, from, to] = [chosen.shard.to_string(), chosen.from.to_string(), chosen.to.to_string()];
        let start = ["shard", "move", &shard, "--from", &from, "--to", &to, "--yes", "--no-wait"];
        let output = self.cluster.admin().run(&start).await?;
        ensure!(output.code == Some(0), "shard move: {}", output.stderr.trim());
        Ok(())
    }

    /// Waits until no operation runs, for at most [`OPERATION_MAX`]: an operation that other faults
    /// block continues after they are healed.
    pub(super) async fn wait_for_operations(&self) -> anyhow::Result<Value> {
        let begin = Instant::now();
        loop {
            let list = self.cluster.admin().run_json(&["op", "list"]).await;
            let runs = |operation: &Value| operation["state"] == "running";
            let idle = list.as_ref().is_ok_and(|list| !list["items"].as_array().into_iter().flatten().any(runs));
            if idle {
                return Ok(json!({ "ended": true, "seconds": begin.elapsed().as_secs_f32() }));
            }
            if begin.elapsed() > OPERATION_MAX {
                return Ok(json!({ "ended": false, "operations": list.ok() }));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts to drain a node, after filling an empty place with a new node.
    pub(super) async fn drain(&self, node: usize) -> anyhow::Result<Value> {
        let id = self.cluster.node(node).id().context("the node is not in the cluster")?;
        let mut joined = None;
        if let Some(empty) = self.cluster.nodes().iter().find(|node| node.id().is_none() && !node.is_running()) {
            self.cluster.processes().wipe(empty.number())?;
            joined = Some(self.repair.join_as_new(empty.number()).await?);
        }
        let output = self.cluster.admin().run(&["node", "drain", &id.to_string(), "--yes", "--no-wait"]).await?;
        ensure!(output.code == Some(0), "node drain {id}: {}", output.stderr.trim());
        Ok(json!({ "joined": joined, "draining": id }))
    }

    /// Waits until a node is drained, removes it, and lets a new node join in its place.
    pub(super) async fn rejoin(&self, number: usize) -> anyhow::Result<Value> {
        let admin = self.cluster.admin();
        let old = self.cluster.node(number).id().context("the node is not in the cluster")?.to_string();
        let drained = self.wait_for_operations().await?;
        if drained["ended"] == false {
            let undrain = admin.run(&["node", "undrain", &old]).await?;
            return Ok(json!({ "kept": old, "drain": drained, "undrain": undrain.code }));
        }
        let output = admin.run(&["node", "remove", &old, "--yes", "--timeout", "60s"]).await?;
        ensure!(output.code == Some(0), "node remove {old}: {}", output.stderr.trim());
        self.cluster.processes().kill(&[number]).await?;
        self.cluster.processes().wipe(number)?;
        let new = self.repair.join_as_new(number).await?;
        Ok(json!({ "removed": old, "joined": new }))
    }
}

/// Purges the logs of nodes to their tips.
pub(super) async fn purge_logs(cluster: &Cluster, nodes: &[usize]) -> anyhow::Result<Value> {
    let compacted = futures::future::join_all(nodes.iter().map(|node| cluster.admin().compact(*node))).await;
    let purged: Vec<u64> = compacted.into_iter().filter_map(Result::ok).collect();
    ensure!(!purged.is_empty(), "no node purged its logs");
    Ok(json!({ "nodes": purged.len(), "purged_entries": purged.iter().sum::<u64>() }))
}

/// A shard, a node with a replica of it, and a node without.
pub(super) fn choose_move(statuses: &BTreeMap<usize, NodeStatus>, rng: &mut StdRng) -> anyhow::Result<Move> {
    let shards: BTreeSet<u32> = statuses.values().flat_map(|status| &status.replicas).map(|at| at.group).collect();
    let shard = shards.into_iter().filter(|group| *group > 0).choose(rng).context("no shard is known")?;
    let with = |has: bool| statuses.values().filter(move |status| holds(status, shard) == has).map(|status| status.id);
    let from = with(true).choose(rng).context("no node has a replica of the shard")?;
    let to = with(false).choose(rng).context("every node has a replica of the shard")?;
    Ok(Move { shard, from, to })
}
