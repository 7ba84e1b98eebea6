//! A follower that was away while its log was purged catches up by snapshot.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use quorate_tests::{Cluster, ClusterOptions, run_cli};

const KEYS: usize = 2_000;
const SHARDS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// Each shard's hash on one node: shard → (applied index, hash).
async fn hashes(cluster: &Cluster, node: usize) -> anyhow::Result<BTreeMap<String, (String, String)>> {
    let output = run_cli(&cluster.endpoint(node), &["debug", "hash", "-o", "json"]).await?;
    ensure!(output.status.success(), "debug hash: {}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let items = json["items"].as_array().context("items")?;
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(items
        .iter()
        .map(|item| (text(&item["shard"]), (text(&item["applied_index"]), text(&item["hash"]))))
        .collect())
}

async fn write(cluster: &Cluster, round: &str) -> anyhow::Result<()> {
    let client = cluster.client(PATIENCE).await?;
    let mut writes = tokio::task::JoinSet::new();
    for key in 0..KEYS {
        let (client, value) = (client.clone(), format!("{round} {key} {}", "x".repeat(200)));
        writes.spawn(async move { client.put(format!("key-{key}"), value).await });
        if writes.len() >= 64 {
            writes.join_next().await.context("a write is under way")???;
        }
    }
    while let Some(write) = writes.join_next().await {
        write??;
    }
    Ok(())
}

/// It misses overwritten and deleted keys, gets them by snapshot, and then its state hashes to the same as the leader's.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_entries_were_purged_catches_up_by_snapshot() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { shards: SHARDS, ..ClusterOptions::default() }).await?;
    write(&cluster, "first").await?;
    cluster.kill(3).await?;
    write(&cluster, "second").await?;
    let client = cluster.client(PATIENCE).await?;
    for key in (0..KEYS).step_by(10) {
        client.delete(format!("key-{key}")).await?;
    }
    for node in [1, 2] {
        let purge = run_cli(&cluster.endpoint(node), &["debug", "compact-logs"]).await?;
        ensure!(purge.status.success(), "compact-logs: {}", String::from_utf8_lossy(&purge.stderr));
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
    let list = run_cli(&cluster.endpoints(), &["shard", "list", "-o", "json"]).await?;
    let list: serde_json::Value = serde_json::from_slice(&list.stdout)?;
    let installed: u64 = list["items"]
        .as_array()
        .context("items")?
        .iter()
        .flat_map(|shard| shard["replicas"].as_array().cloned().unwrap_or_default())
        .filter(|replica| replica["node"] == "3")
        .filter_map(|replica| replica["snapshots_installed"].as_u64())
        .sum();
    println!("snapshots installed by node 3: {installed}");
    ensure!(installed > 0, "node 3 caught up without a snapshot: {list}");
    Ok(())
}
