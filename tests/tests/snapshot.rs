//! A follower that was down while the log was purged catches up by snapshot.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use quorate_client::admin;
use quorate_proto::admin::{CompactLogsRequest, HashShardRequest};
use quorate_tests::{Cluster, ClusterOptions};

const KEYS: usize = 2_000;
const SHARDS: u32 = 2;
/// Few clients make many small entries: a purge keeps the newest few hundred entries of any size.
const CLIENTS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// The replicas of a node: shard → (applied index, state hash).
async fn hashes(cluster: &Cluster, node: usize) -> anyhow::Result<BTreeMap<u32, (u64, String)>> {
    let admin = admin(&cluster.endpoint(node), PATIENCE).await?;
    let mut hashes = BTreeMap::new();
    for shard in 1..=SHARDS {
        let hash = admin.hash_shard(HashShardRequest { shard }, PATIENCE).await?;
        hashes.insert(shard, (hash.applied_index, hash.hash));
    }
    Ok(hashes)
}

async fn write(cluster: &Cluster, round: &str) -> anyhow::Result<()> {
    let client = cluster.client(PATIENCE).await?;
    let mut writes = tokio::task::JoinSet::new();
    for key in 0..KEYS {
        let (client, value) = (client.clone(), format!("{round} {key} {}", "x".repeat(200)));
        writes.spawn(async move { client.put(format!("key-{key}"), value).await });
        if writes.len() >= CLIENTS {
            writes.join_next().await.context("a write is in progress")???;
        }
    }
    while let Some(write) = writes.join_next().await {
        write??;
    }
    Ok(())
}

/// The follower misses overwritten and deleted keys, gets a snapshot, and then has the state hash
/// of its leader.
#[tokio::test(flavor = "multi_thread")]
async fn follower_catches_up_by_snapshot_after_a_purge() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { shards: SHARDS, ..ClusterOptions::default() }).await?;
    write(&cluster, "first").await?;
    cluster.kill(3).await?;
    write(&cluster, "second").await?;
    let client = cluster.client(PATIENCE).await?;
    for key in (0..KEYS).step_by(10) {
        client.delete(format!("key-{key}")).await?;
    }
    for node in [1, 2] {
        let purged =
            admin(&cluster.endpoint(node), PATIENCE).await?.compact_logs(CompactLogsRequest {}, PATIENCE).await?;
        ensure!(purged.purged_entries > 0, "node {node} purged nothing");
    }
    cluster.restart(3).await?;

    quorate_tests::eventually("the replicas are equal", PATIENCE, || async {
        let (Ok(one), Ok(two), Ok(three)) =
            (hashes(&cluster, 1).await, hashes(&cluster, 2).await, hashes(&cluster, 3).await)
        else {
            return false;
        };
        one.len() == SHARDS as usize && one == two && two == three
    })
    .await?;
    let status = admin(&cluster.endpoint(3), PATIENCE).await?.node(PATIENCE).await?;
    let installed: u64 = status.replicas.iter().map(|replica| replica.snapshots_installed).sum();
    println!("snapshots installed by node 3: {installed}");
    ensure!(installed > 0, "node 3 caught up without a snapshot: {status:?}");
    Ok(())
}
