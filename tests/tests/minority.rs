//! Without a quorum, eventual reads work, strong reads and writes fail within their deadline, and
//! the cluster recovers by itself once the nodes return.

use std::time::{Duration, Instant};

use anyhow::ensure;
use quorate_tests::{Cluster, ClusterOptions, run_cli};

const UNREACHABLE: i32 = 3;
const UNKNOWN: i32 = 10;

fn code(output: &std::process::Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn text(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// With two of three nodes down, the third serves eventual reads. A strong read exits with 3 and a
/// put with 3 or 10, within the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn minority_serves_eventual_reads_and_fails_the_rest_in_time() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { shards: 4, ..ClusterOptions::default() }).await?;
    let endpoints = cluster.endpoints();
    let put = run_cli(&endpoints, &["kv", "put", "greeting", "hello"]).await?;
    ensure!(put.status.success(), "put: {}", text(&put));
    // Two of three replicas acknowledge the write; the third applies it a moment later.
    quorate_tests::eventually("every node has applied it", Duration::from_secs(10), || async {
        let mut all = true;
        for number in 1..=cluster.len() {
            let get = run_cli(&cluster.endpoint(number), &["kv", "get", "greeting", "--read", "eventual"]).await;
            all &= get.is_ok_and(|output| output.status.success());
        }
        all
    })
    .await?;
    cluster.kill(1).await?;
    cluster.kill(2).await?;

    // The client may try a dead node first; each of several reads must succeed.
    for _ in 0..5 {
        let get = run_cli(&endpoints, &["kv", "get", "greeting", "--read", "eventual"]).await?;
        ensure!(get.status.success() && text(&get).contains("hello"), "eventual get: {}", text(&get));
    }
    let began = Instant::now();
    let get = run_cli(&endpoints, &["kv", "get", "greeting", "--read", "strong", "--deadline", "2s"]).await?;
    ensure!(code(&get) == UNREACHABLE, "strong get: exit {}: {}", code(&get), text(&get));
    ensure!(began.elapsed() < Duration::from_secs(10), "strong get took {:?}", began.elapsed());
    let began = Instant::now();
    let put = run_cli(&endpoints, &["kv", "put", "greeting", "again", "--deadline", "2s"]).await?;
    ensure!([UNREACHABLE, UNKNOWN].contains(&code(&put)), "put: exit {}: {}", code(&put), text(&put));
    ensure!(began.elapsed() < Duration::from_secs(10), "put took {:?}", began.elapsed());

    cluster.restart(1).await?;
    cluster.restart(2).await?;
    let put = run_cli(&endpoints, &["kv", "put", "greeting", "back", "--deadline", "30s"]).await?;
    ensure!(put.status.success(), "put after the nodes returned: {}", text(&put));
    let get = run_cli(&endpoints, &["kv", "get", "greeting", "--deadline", "30s"]).await?;
    ensure!(get.status.success() && text(&get).contains("back"), "get after the nodes returned: {}", text(&get));
    Ok(())
}

/// A paused leader (SIGSTOP) is replaced, and serves no older value to strong reads after it
/// resumes.
#[tokio::test(flavor = "multi_thread")]
async fn resumed_leader_serves_no_stale_strong_read() -> anyhow::Result<()> {
    let cluster = Cluster::start(ClusterOptions { shards: 1, ..ClusterOptions::default() }).await?;
    let client = cluster.client(Duration::from_secs(30)).await?;
    for round in 0..cluster.len() * 2 {
        let paused = round % cluster.len() + 1;
        client.put("key", format!("before {round}")).await?;
        cluster.pause(paused)?;
        let written = client.put("key", format!("after {round}")).await;
        cluster.resume(paused)?;
        written?;
        let read = client.get("key").await?;
        let value = read.value.expect("the key was written").value;
        ensure!(value.as_bytes() == format!("after {round}").as_bytes(), "round {round}: read {value:?}");
    }
    Ok(())
}
