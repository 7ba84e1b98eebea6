//! Nodes are added, drained, replaced and removed under load, and are killed midway. No
//! acknowledged write is lost or wrong, and in the end every shard has three equal replicas on
//! distinct nodes, and no others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use quorate_client::{Client, admin};
use quorate_proto::admin::NodeStatus;
use quorate_tests::{Cluster, ClusterOptions, NOTHING_LISTENS, eventually, run_cli};
use serde_json::Value;
use tokio::task::JoinSet;

const SHARDS: u32 = 8;
const PATIENCE: Duration = Duration::from_secs(120);
const ASK: Duration = Duration::from_secs(5);
/// Large enough that a move can be interrupted.
const VALUE_BYTES: usize = 4 << 10;
const PRELOADED: usize = 4_000;
const WRITERS: usize = 4;

/// Writes without a pause, each key once, and records the acknowledged keys.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: JoinSet<anyhow::Result<Vec<String>>>,
}

impl Load {
    fn start(client: &Client) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (client, stop, count) = (client.clone(), stop.clone(), acknowledged.clone());
            writers.spawn(async move {
                let mut written = Vec::new();
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("load-{writer}-{number}");
                    // A failed write promises nothing; continue with the next key.
                    if client.put(&key, key.clone()).deadline(PATIENCE).await.is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                        let read = client.get(&key).deadline(PATIENCE).await?.value;
                        let value = read.with_context(|| format!("{key} was acknowledged and is missing"))?.value;
                        ensure!(value.as_bytes() == key.as_bytes(), "{key} has another value");
                        written.push(key);
                    }
                }
                Ok(written)
            });
        }
        Load { stop, acknowledged, writers }
    }

    /// Waits for `more` acknowledged writes.
    async fn progress(&self, more: u64) -> anyhow::Result<()> {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + more;
        eventually("the load makes progress", PATIENCE, || async {
            self.acknowledged.load(Ordering::Relaxed) >= wanted
        })
        .await
    }

    /// Stops the load, reads all keys back, and prints the counts.
    async fn end(mut self, client: &Client) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let mut keys = Vec::new();
        while let Some(written) = self.writers.join_next().await {
            keys.extend(written??);
        }
        let (mut lost, mut wrong) = (0, 0);
        for key in &keys {
            match client.get(key).deadline(PATIENCE).await?.value {
                None => lost += 1,
                Some(record) if record.value.as_bytes() != key.as_bytes() => wrong += 1,
                Some(_) => {}
            }
        }
        println!("acknowledged {}, lost {lost}, wrong {wrong}", keys.len());
        ensure!(lost == 0 && wrong == 0 && !keys.is_empty(), "acknowledged {}, lost {lost}, wrong {wrong}", keys.len());
        Ok(())
    }
}

async fn preload(client: &Client) -> anyhow::Result<()> {
    let value = "x".repeat(VALUE_BYTES);
    let mut writes = JoinSet::new();
    for key in 0..PRELOADED {
        let (client, value) = (client.clone(), value.clone());
        writes.spawn(async move { client.put(format!("preloaded-{key}"), value).deadline(PATIENCE).await });
        if writes.len() >= 64 {
            writes.join_next().await.context("a write is in progress")???;
        }
    }
    while let Some(write) = writes.join_next().await {
        write??;
    }
    Ok(())
}

async fn status(cluster: &Cluster, node: usize) -> Option<NodeStatus> {
    admin(&cluster.endpoint(node), ASK).await.ok()?.node(ASK).await.ok()
}

/// The id of a running node: bootstrap numbers the initial nodes by address.
async fn id(cluster: &Cluster, node: usize) -> anyhow::Result<String> {
    Ok(status(cluster, node).await.context("the node responds")?.id.to_string())
}

/// The node that leads the topology group, by the nodes' own reports.
async fn reconciler(cluster: &Cluster) -> anyhow::Result<usize> {
    for _ in 0..200 {
        for node in 1..=cluster.len() {
            let Some(status) = status(cluster, node).await else { continue };
            let leads = status.replicas.iter().any(|replica| replica.group == 0 && replica.leader == status.id);
            if leads {
                return Ok(node);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("the topology group has no leader")
}

/// Runs a command until it exits; nodes may fail meanwhile.
async fn verb(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<()> {
    let output = run_cli(&cluster.endpoints(), arguments).await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "quorate {arguments:?}: {said}\n{}", cluster.log_tail(3));
    Ok(())
}

/// Gives up a node that was killed a moment ago: as dead, once the cluster receives no pings from
/// it. The command may be repeated.
async fn give_up(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<()> {
    let judged = eventually("the node is judged as dead", PATIENCE, || async {
        let output = run_cli(&cluster.endpoints(), arguments).await;
        // 5: the others received its pings within the last 10 s. 3: the leader is new.
        output.is_ok_and(|output| !matches!(output.status.code(), Some(3 | 5)))
    });
    judged.await?;
    verb(cluster, arguments).await
}

async fn json(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<Value> {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
    let output = run_cli(&cluster.endpoints(), &arguments).await?;
    serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Waits until no operation is running.
async fn at_rest(cluster: &Cluster) -> anyhow::Result<()> {
    let rest = eventually("every operation is done", PATIENCE, || async {
        let Ok(list) = json(cluster, &["op", "list"]).await else { return false };
        let Some(operations) = list["items"].as_array() else { return false };
        !operations.is_empty() && operations.iter().all(|operation| operation["state"] == "done")
    });
    if let Err(error) = rest.await {
        let operations = json(cluster, &["op", "list"]).await?;
        return Err(error.context(operations.to_string()).context(cluster.log_tail(3)));
    }
    Ok(())
}

/// Checks that every shard has three equal replicas on distinct nodes of `nodes`, and no others.
async fn is_whole(cluster: &Cluster, nodes: &[usize]) -> anyhow::Result<()> {
    let shards = json(cluster, &["shard", "list"]).await?;
    let shards = shards["items"].as_array().context("a list of shards")?.clone();
    ensure!(shards.len() == SHARDS as usize);
    let mut allowed = BTreeSet::new();
    for node in nodes {
        allowed.insert(id(cluster, *node).await?);
    }
    for shard in &shards {
        let replicas = shard["replicas"].as_array().context("a list of replicas")?;
        let on: BTreeSet<String> = replicas.iter().filter_map(|at| at["node"].as_str().map(str::to_owned)).collect();
        ensure!(on.len() == 3 && replicas.len() == 3 && on.is_subset(&allowed), "shard {} is on {on:?}", shard["id"]);
    }
    verb(cluster, &["shard", "verify", "--deadline", "30s"]).await?;
    let alone = eventually("no other node has a replica", PATIENCE, || async {
        let mut held = 0;
        for node in 1..=cluster.len() {
            if let Some(status) = status(cluster, node).await {
                let shards = status.replicas.iter().filter(|replica| replica.group != 0).count();
                if !nodes.contains(&node) && shards > 0 {
                    return false;
                }
                held += shards;
            }
        }
        held == 3 * SHARDS as usize
    });
    if let Err(error) = alone.await {
        let mut said = String::new();
        for node in 1..=cluster.len() {
            let status = status(cluster, node).await.map(|status| status.replicas).unwrap_or_default();
            let held: Vec<_> = status.iter().map(|replica| (replica.group, replica.replica, replica.leader)).collect();
            said += &format!("node {node}: {held:?}\n{}\n", cluster.log_tail(node));
        }
        return Err(error.context(said).context(shards.len()));
    }
    Ok(())
}

/// 3 → 5 → 4 → 4 → 3 nodes: two added, one drained and removed, one replaced, one removed as dead.
/// A node is killed and restarted during each change, twice the leader of the topology group.
#[tokio::test(flavor = "multi_thread")]
async fn membership_changes_lose_nothing_when_nodes_crash_midway() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { shards: SHARDS, ..ClusterOptions::default() }).await?;
    let client = cluster.client(PATIENCE).await?;
    preload(&client).await?;
    let load = Load::start(&client);
    load.progress(100).await?;

    for number in [4, 5] {
        ensure!(cluster.add().await? == number);
        eventually("the node is added", PATIENCE, || async {
            let Ok(list) = json(&cluster, &["op", "list"]).await else { return false };
            list["items"].as_array().is_some_and(|items| items.len() >= number - 3)
        })
        .await?;
        cluster.kill(number).await?;
        load.progress(50).await?;
        cluster.restart(number).await?;
        at_rest(&cluster).await?;
    }
    is_whole(&cluster, &[1, 2, 3, 4, 5]).await?;

    let first = id(&cluster, 1).await?;
    verb(&cluster, &["node", "drain", &first, "--yes", "--no-wait"]).await?;
    let leader = reconciler(&cluster).await?;
    cluster.kill(leader).await?;
    load.progress(50).await?;
    cluster.restart(leader).await?;
    at_rest(&cluster).await?;
    verb(&cluster, &["node", "remove", &first, "--yes"]).await?;
    is_whole(&cluster, &[2, 3, 4, 5]).await?;
    ensure!(cluster.stop(1).await? == Some(0));

    ensure!(cluster.add().await? == 6);
    eventually("the node is added", PATIENCE, || async {
        let Ok(list) = json(&cluster, &["node", "list"]).await else { return false };
        list["items"]
            .as_array()
            .is_some_and(|nodes| nodes.iter().any(|node| node["id"] == "6" && node["state"] == "active"))
    })
    .await?;
    let second = id(&cluster, 2).await?;
    verb(&cluster, &["node", "replace", &second, "--with", "6", "--yes", "--no-wait"]).await?;
    cluster.kill(3).await?;
    load.progress(50).await?;
    cluster.restart(3).await?;
    at_rest(&cluster).await?;
    is_whole(&cluster, &[3, 4, 5, 6]).await?;
    ensure!(cluster.stop(2).await? == Some(0));

    let address = cluster.endpoint(5);
    cluster.kill(5).await?;
    give_up(&cluster, &["node", "remove", "5", "--dead", "--confirm", &address, "--no-wait"]).await?;
    let leader = reconciler(&cluster).await?;
    cluster.kill(leader).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.restart(leader).await?;
    load.progress(50).await?;
    at_rest(&cluster).await?;
    is_whole(&cluster, &[3, 4, 6]).await?;

    load.end(&client).await
}

/// A node that was removed while it was down deletes its replicas when it returns, and logs the
/// reason.
#[tokio::test(flavor = "multi_thread")]
async fn removed_node_deletes_its_replicas_when_it_returns() -> anyhow::Result<()> {
    let options = ClusterOptions { nodes: 4, shards: SHARDS, ..ClusterOptions::default() };
    let mut cluster = Cluster::start(options).await?;
    let (address, second) = (cluster.endpoint(2), id(&cluster, 2).await?);
    cluster.kill(2).await?;
    give_up(&cluster, &["node", "remove", &second, "--dead", "--confirm", &address]).await?;
    is_whole(&cluster, &[1, 3, 4]).await?;
    cluster.restart(2).await?;
    is_whole(&cluster, &[1, 3, 4]).await?;
    eventually("the node logs that it was removed", PATIENCE, || async {
        cluster.log(2).contains("the node was removed from the cluster for good")
    })
    .await
    .with_context(|| cluster.log_tail(2))
}

/// A living node that only the operator's machine cannot reach is not removed as dead: the refusal
/// names the nodes that receive its pings, and the node keeps its data. It once was removed, and
/// erased its replicas.
#[tokio::test(flavor = "multi_thread")]
async fn living_node_is_not_removed_as_dead() -> anyhow::Result<()> {
    let options = ClusterOptions { nodes: 4, shards: SHARDS, misadvertised: Some(3), ..ClusterOptions::default() };
    let cluster = Cluster::start_nodes(options).await?;
    cluster.init().await?;
    let third = id(&cluster, 3).await?;
    let others: Vec<String> = [id(&cluster, 1).await?, id(&cluster, 2).await?, id(&cluster, 4).await?].into();
    let held = async || status(&cluster, 3).await.map(|status| status.replicas.len()).unwrap_or_default();
    eventually("the node has its replicas", PATIENCE, || async { held().await > 1 }).await?;

    let remove = ["node", "remove", &third, "--dead", "--confirm", NOTHING_LISTENS];
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let refused = loop {
        let output = run_cli(&cluster.endpoint(1), &remove).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            // The leader of the topology group is new, or a shard has not elected its first leader.
            Some(3) if tokio::time::Instant::now() < deadline => continue,
            Some(5) if said.contains("have no quorum") && tokio::time::Instant::now() < deadline => continue,
            Some(5) => break said,
            code => anyhow::bail!("exit code {code:?}: {said}"),
        }
    };
    let receivers = format!("nodes {}, {} and {} received pings from it", others[0], others[1], others[2]);
    ensure!(refused.contains(&format!("node {third} is alive: {receivers}")), "{refused}");
    eventually("the node has its replicas still", PATIENCE, || async { held().await > 1 }).await?;
    let nodes = json(&cluster, &["node", "list"]).await?;
    let state = nodes["items"].as_array().and_then(|nodes| nodes.iter().find(|node| node["id"] == third));
    ensure!(state.is_some_and(|node| node["state"] == "active"), "{nodes}");
    Ok(())
}

/// In a cluster of three, a node whose machine is gone is replaced by a new one with one command,
/// which may be asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn dead_node_of_three_is_replaced() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { shards: SHARDS, ..ClusterOptions::default() }).await?;
    let third = id(&cluster, 3).await?;
    cluster.kill(3).await?;
    ensure!(cluster.add().await? == 4);
    eventually("the new node has an id", PATIENCE, || async {
        status(&cluster, 4).await.is_some_and(|status| status.id != 0)
    })
    .await?;
    let fourth = id(&cluster, 4).await?;
    give_up(&cluster, &["node", "replace", &third, "--with", &fourth, "--dead", "--yes"]).await?;
    is_whole(&cluster, &[1, 2, 4]).await?;
    // The node is gone: its removal has nothing to do.
    verb(&cluster, &["node", "remove", &third, "--dead", "--yes"]).await?;
    let nodes = json(&cluster, &["node", "list"]).await?;
    let ids: Vec<&str> = nodes["items"].as_array().context("nodes")?.iter().filter_map(|n| n["id"].as_str()).collect();
    ensure!(!ids.contains(&third.as_str()), "{ids:?}");
    Ok(())
}
