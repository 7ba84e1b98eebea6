//! A rolling restart fails no request, because a stopping node transfers its leaderships first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use quorate_client::Client;
use quorate_tests::{Cluster, ClusterOptions, eventually, run_cli};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(60);
/// The deadline that an application gives one request.
const DEADLINE: Duration = Duration::from_secs(5);
const WRITERS: usize = 8;
const ROUNDS: usize = 2;
/// Requests between two steps, so that each step happens under load.
const REQUESTS_BETWEEN: u64 = 200;

/// Writes and reads back without a pause. The first failed request, or wrong answer, ends the load.
struct Load {
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
    slowest_ms: Arc<AtomicU64>,
    writers: JoinSet<anyhow::Result<()>>,
}

impl Load {
    fn start(client: &Client) -> Self {
        let (stop, requests, slowest_ms) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (client, stop, requests, slowest) =
                (client.clone(), stop.clone(), requests.clone(), slowest_ms.clone());
            writers.spawn(async move {
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Every shard has a few of these keys. They repeat, so that a lost write shows
                    // as an older value.
                    let key = format!("load-{writer}-{}", number % 32);
                    let value = number.to_string();
                    let began = Instant::now();
                    let put = client.put(&key, value.clone()).deadline(DEADLINE).await;
                    put.with_context(|| format!("put {number} of writer {writer} after {:?}", began.elapsed()))?;
                    let put_ms = began.elapsed().as_millis();
                    let began = Instant::now();
                    let got = client.get(&key).deadline(DEADLINE).await;
                    let got =
                        got.with_context(|| format!("get {number} of writer {writer} after {:?}", began.elapsed()))?;
                    let record = got.value.with_context(|| format!("{key} was acknowledged and is missing"))?;
                    ensure!(record.value.as_bytes() == value.as_bytes(), "{key} holds {:?}, not {value}", record.value);
                    slowest.fetch_max(u64::try_from(put_ms.max(began.elapsed().as_millis()))?, Ordering::Relaxed);
                    requests.fetch_add(2, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        Load { stop, requests, slowest_ms, writers }
    }

    /// Waits for `REQUESTS_BETWEEN` more answers. A writer that ended has failed.
    async fn progress(&mut self) -> anyhow::Result<()> {
        let wanted = self.requests.load(Ordering::Relaxed) + REQUESTS_BETWEEN;
        let done = self.requests.clone();
        let enough =
            eventually("the load makes progress", PATIENCE, || async { done.load(Ordering::Relaxed) >= wanted });
        tokio::select! {
            enough = enough => enough,
            Some(ended) = self.writers.join_next() => {
                ended??;
                anyhow::bail!("a writer ended by itself")
            }
        }
    }

    async fn end(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            ended??;
        }
        let (requests, slowest) = (self.requests.load(Ordering::Relaxed), self.slowest_ms.load(Ordering::Relaxed));
        println!("requests {requests}, failed 0, the slowest took {slowest} ms");
        Ok(())
    }
}

async fn is_healthy(cluster: &Cluster) -> anyhow::Result<()> {
    eventually("the cluster is healthy", PATIENCE, || async {
        run_cli(&cluster.endpoints(), &["status", "--check"]).await.is_ok_and(|output| output.status.success())
    })
    .await
}

/// Every node in turn stops with SIGTERM and starts again, twice, under load. No request fails, and
/// no node is killed.
#[tokio::test(flavor = "multi_thread")]
async fn rolling_restart_fails_no_request() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { shards: 8, ..ClusterOptions::default() }).await?;
    let client = cluster.client(PATIENCE).await?;
    let mut load = Load::start(&client);
    load.progress().await?;
    for round in 0..ROUNDS {
        for number in 1..=cluster.len() {
            let code = cluster.stop(number).await?;
            ensure!(code == Some(0), "node {number} ended with {code:?}: {}", cluster.log_tail(number));
            load.progress().await.with_context(|| format!("node {number} was stopped, round {round}"))?;
            cluster.restart(number).await?;
            is_healthy(&cluster).await.with_context(|| cluster.log_tail(number))?;
            load.progress().await.with_context(|| format!("node {number} was started, round {round}"))?;
        }
    }
    load.end().await
}
