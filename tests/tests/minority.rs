//! Without a quorum: eventual reads go on, strong reads and writes say so inside their deadline, and nothing needs help after.

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

/// Two of three nodes are stopped: the third answers eventual reads; strong reads exit 3, puts 3 or 10, within the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_minority_answers_eventual_reads_and_refuses_the_rest_in_time() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { shards: 4, ..ClusterOptions::default() }).await?;
    let endpoints = cluster.endpoints();
    let put = run_cli(&endpoints, &["kv", "put", "greeting", "hello"]).await?;
    ensure!(put.status.success(), "put: {}", text(&put));
    // The write is acknowledged once two of three have it; the third applies it a moment later.
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

    // An eventual read may prefer a dead node first, so it is asked a few times: it must succeed each time.
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

/// A paused leader (SIGSTOP) is replaced, and its strong reads after it wakes up do not show an older value.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_node_never_answers_a_strong_read_with_an_older_value() -> anyhow::Result<()> {
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
