//! Exactly once: increments by compare-and-set while replies are lost and leaders are killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use quorate_client::{Client, Error};
use quorate_tests::{Cluster, ClusterOptions};

const CLIENTS: usize = 16;
const COUNTERS: usize = 8;
const INCREMENTS: u64 = 20_000;
/// How many of a million chunks of replies are lost, with their connections.
const LOST_PER_MILLION: u32 = 3_000;
const DEADLINE: Duration = Duration::from_secs(60);

fn number(value: &[u8]) -> anyhow::Result<u64> {
    Ok(std::str::from_utf8(value)?.parse()?)
}

/// Increments one counter by one. `None` if another client was faster.
async fn increment(client: &Client, key: &str) -> anyhow::Result<Option<()>> {
    let record = client.get(key).await?.value.context("the counter exists")?;
    let next = number(record.value.as_bytes())? + 1;
    match client.put(key, next.to_string()).if_version(record.version).await {
        Ok(_) => Ok(Some(())),
        Err(Error::Refused { .. }) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

/// Runs increments until `increments` are acknowledged, while replies are lost and, with `kill`,
/// two nodes are killed. Returns the sum of the counters and the number of acknowledged increments.
async fn count(environment: Vec<(String, String)>, increments: u64, kill: bool) -> anyhow::Result<(u64, u64)> {
    let options = ClusterOptions { shards: 8, proxied: true, environment, ..ClusterOptions::default() };
    let mut cluster = Cluster::start(options).await?;
    let setup = cluster.client(DEADLINE).await?;
    for counter in 0..COUNTERS {
        setup.put(format!("counter-{counter}"), "0").if_absent().await?;
    }
    for node in 1..=cluster.len() {
        cluster.proxy(node).lose(LOST_PER_MILLION);
    }
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, acknowledged) = (cluster.client(DEADLINE).await?, acknowledged.clone());
        clients.spawn(async move {
            while acknowledged.load(Ordering::SeqCst) < increments {
                let key = format!("counter-{}", rand::random_range(0..COUNTERS));
                if increment(&client, &key).await?.is_some() {
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
            }
            anyhow::Ok(())
        });
    }
    if kill {
        for (node, at) in [(1, increments / 4), (2, increments / 2)] {
            let reached = || async { acknowledged.load(Ordering::SeqCst) >= at };
            quorate_tests::eventually("the increments make progress", Duration::from_secs(300), reached).await?;
            cluster.kill(node).await?;
            cluster.restart(node).await?;
        }
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let lost: u64 = (1..=cluster.len()).map(|node| cluster.proxy(node).lost()).sum();
    ensure!(lost > 0, "the test lost no reply, so it showed nothing");
    for node in 1..=cluster.len() {
        cluster.proxy(node).lose(0);
    }
    let mut sum = 0;
    for counter in 0..COUNTERS {
        let record = setup.get(format!("counter-{counter}")).await?.value.context("the counter exists")?;
        sum += number(record.value.as_bytes())?;
    }
    let acknowledged = acknowledged.load(Ordering::SeqCst);
    println!("acknowledged {acknowledged}, counted {sum}, replies lost {lost}");
    Ok((sum, acknowledged))
}

/// Every acknowledged increment counts once, and every increment that counts was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn lost_replies_apply_no_increment_twice() -> anyhow::Result<()> {
    let (sum, acknowledged) = count(vec![], INCREMENTS, true).await?;
    ensure!(sum == acknowledged, "counted {sum}, acknowledged {acknowledged}");
    Ok(())
}

/// Shows that the test above can fail: without the session table, a retry is applied again, or is
/// refused although it was applied.
#[tokio::test(flavor = "multi_thread")]
async fn lost_replies_are_noticed_without_the_session_table() -> anyhow::Result<()> {
    let bug = ("QUORATE_BUG".to_owned(), "session-table-off".to_owned());
    let (sum, acknowledged) = count(vec![bug], INCREMENTS / 4, false).await?;
    ensure!(sum != acknowledged, "without the session table the counts must differ, both are {sum}");
    Ok(())
}
