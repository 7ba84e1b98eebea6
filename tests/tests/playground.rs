//! A playground as a new user tries it: nodes are added, killed, paused and partitioned while it
//! runs, and the cluster recovers each time.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use quorate_tests::{eventually, quorate, run_cli};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::Child;

const PATIENCE: Duration = Duration::from_secs(60);
const USAGE: i32 = 2;
const UNREACHABLE: i32 = 3;
const REFUSED: i32 = 5;
const CONFLICT: i32 = 6;

struct Playground {
    process: Child,
    base: u16,
    ready: PathBuf,
    endpoints: String,
}

impl Playground {
    async fn start(dir: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let base = free_base()?;
        let ready = dir.join("ready.json");
        let log = std::fs::File::options().create(true).append(true).open(dir.join("playground.log"))?;
        let mut command = quorate()?;
        command.args(["playground", "--shards", "4", "--no-shortener", "--port-base", &base.to_string()]);
        command.arg("--dir").arg(dir.join("home")).arg("--ready-file").arg(&ready).args(more);
        let process = command.stdout(Stdio::null()).stderr(Stdio::from(log)).spawn()?;
        eventually("the playground serves", PATIENCE, || async { ready.is_file() })
            .await
            .with_context(|| std::fs::read_to_string(dir.join("playground.log")).unwrap_or_default())?;
        let nodes: Value = serde_json::from_slice(&std::fs::read(&ready)?)?;
        let nodes = nodes["nodes"].as_array().context("a list of nodes")?;
        let endpoints: Vec<&str> = nodes.iter().filter_map(|node| node["client"].as_str()).collect();
        let endpoints = endpoints.join(",");
        Ok(Playground { process, base, ready, endpoints })
    }

    /// Runs a verb. Returns its exit code and its output.
    async fn verb(&self, words: &[&str]) -> anyhow::Result<(i32, String)> {
        let base = self.base.to_string();
        let arguments: Vec<&str> = ["playground"].iter().chain(words).copied().chain(["--port-base", &base]).collect();
        Ok(outcome(&run_cli(&self.endpoints, &arguments).await?))
    }

    async fn done(&self, words: &[&str]) -> anyhow::Result<String> {
        let (code, said) = self.verb(words).await?;
        ensure!(code == 0, "playground {words:?}: exit {code}: {said}");
        Ok(said)
    }

    async fn refused(&self, words: &[&str], exit: i32, why: &str) -> anyhow::Result<()> {
        let (code, said) = self.verb(words).await?;
        ensure!(code == exit && said.contains(why), "playground {words:?}: exit {code}, not {exit}: {said}");
        Ok(())
    }

    async fn cli(&self, arguments: &[&str]) -> anyhow::Result<(i32, String)> {
        Ok(outcome(&run_cli(&self.endpoints, arguments).await?))
    }

    async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let (_, said) = self.cli(&[arguments, &["-o", "json"]].concat()).await?;
        serde_json::from_str(&said).with_context(|| said)
    }

    /// The nodes that respond, by `status`.
    async fn up(&self) -> Vec<String> {
        let Ok(status) = self.json(&["status"]).await else { return Vec::new() };
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let up = nodes.iter().filter(|node| node["up"] == true);
        up.filter_map(|node| node["id"].as_str().map(str::to_owned)).collect()
    }

    async fn is_healthy(&self) -> anyhow::Result<()> {
        eventually("the cluster is healthy", PATIENCE, || async {
            self.cli(&["status", "--check"]).await.is_ok_and(|(code, _)| code == 0)
        })
        .await
    }

    /// The applied index of a node's replica of each shard, and the highest of the other replicas.
    async fn applied(&self, node: &str) -> anyhow::Result<Vec<(u64, u64)>> {
        let shards = self.json(&["shard", "list"]).await?;
        let shards = shards["items"].as_array().context("a list of shards")?;
        let of = |shard: &Value, own: bool| {
            let replicas = shard["replicas"].as_array().cloned().unwrap_or_default();
            let chosen = replicas.iter().filter(|replica| (replica["node"] == node) == own);
            chosen.filter_map(|replica| replica["applied_index"].as_u64()).max().unwrap_or_default()
        };
        Ok(shards.iter().map(|shard| (of(shard, true), of(shard, false))).collect())
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        let process = self.process.id().context("the playground is running")?;
        kill_process(Pid::from_raw(i32::try_from(process)?).context("a process has a pid")?, Signal::TERM)?;
        let status =
            tokio::time::timeout(PATIENCE, self.process.wait()).await.context("the playground did not stop")??;
        ensure!(status.success(), "the playground ended with {status}");
        ensure!(!self.ready.exists(), "the ready file still exists");
        let (code, said) = self.verb(&["heal"]).await?;
        ensure!(code == UNREACHABLE && said.contains("no playground runs on port base"), "exit {code}: {said}");
        Ok(())
    }
}

fn outcome(output: &Output) -> (i32, String) {
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    (output.status.code().unwrap_or(-1), said.concat())
}

/// A port base whose ports were free a moment ago, above the ports of other tests' clusters. Each
/// process starts at a different one.
fn free_base() -> anyhow::Result<u16> {
    const BLOCKS: u32 = 68;
    for turn in 0..BLOCKS {
        let base = u16::try_from(30_000 + (std::process::id() + turn) % BLOCKS * 40)?;
        if (base..base + 40).all(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return Ok(base);
        }
    }
    anyhow::bail!("no free ports on loopback")
}

/// All verbs of a running playground, in the order in which a new user tries them.
#[tokio::test(flavor = "multi_thread")]
async fn every_verb_works_and_the_cluster_recovers() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let playground = Playground::start(dir.path(), &[]).await?;
    let put = playground.cli(&["kv", "put", "greeting", "hello"]).await?;
    ensure!(put.0 == 0, "{}", put.1);

    // An impossible request names the reason and changes nothing.
    playground.refused(&["kill", "9"], USAGE, "no node 9").await?;
    playground.refused(&["resume", "2"], CONFLICT, "node 2 is not paused").await?;
    playground.refused(&["start", "2"], CONFLICT, "node 2 runs already").await?;
    playground.refused(&["partition", "1,2,3"], USAGE, "there is no other side").await?;
    ensure!(playground.up().await.len() == 3);

    playground.done(&["kill", "2"]).await?;
    playground.refused(&["kill", "2"], CONFLICT, "it does not run").await?;
    eventually("node 2 is down", PATIENCE, || async { playground.up().await == ["1", "3"] }).await?;
    let put = playground.cli(&["kv", "put", "greeting", "without 2", "--deadline", "30s"]).await?;
    ensure!(put.0 == 0, "{}", put.1);
    playground.done(&["start", "2"]).await?;
    playground.is_healthy().await?;

    playground.done(&["pause", "3"]).await?;
    playground.refused(&["pause", "3"], CONFLICT, "paused already").await?;
    eventually("node 3 is unresponsive", PATIENCE, || async { playground.up().await == ["1", "2"] }).await?;
    playground.done(&["resume", "3"]).await?;
    playground.is_healthy().await?;

    // A playground can be named by its directory.
    let home = dir.path().join("home").display().to_string();
    let added = playground.cli(&["playground", "add", "--dir", &home]).await?;
    ensure!(added.0 == 0 && added.1.contains("is in the cluster"), "exit {}: {}", added.0, added.1);
    eventually("node 4 is up", PATIENCE, || async { playground.up().await.len() == 4 }).await?;
    playground.done(&["kill", "4"]).await?;
    playground.done(&["start", "4"]).await?;
    playground.is_healthy().await?;
    playground.stop().await
}

/// The node that leads most shards is cut off from the two others. They elect leaders and take
/// writes; the node receives none of them, still serves eventual reads, and catches up after the
/// partition.
#[tokio::test(flavor = "multi_thread")]
async fn partition_cuts_replication_and_heals() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let playground = Playground::start(dir.path(), &[]).await?;
    for key in 0..20 {
        let put = playground.cli(&["kv", "put", &format!("key-{key}"), "before"]).await?;
        ensure!(put.0 == 0, "{}", put.1);
    }
    let status = playground.json(&["status"]).await?;
    let nodes = status["nodes"].as_array().context("a list of nodes")?;
    let most = nodes.iter().max_by_key(|node| node["leaders"].as_u64()).context("a node")?;
    let cut = most["id"].as_str().context("an id")?.to_owned();
    let said = playground.done(&["partition", &cut]).await?;
    ensure!(said.contains("are partitioned"), "{said}");

    // The majority serves reads and writes once it has elected. Every shard gets some of these
    // keys.
    for key in 0..20 {
        let put = playground.cli(&["kv", "put", &format!("key-{key}"), "during", "--deadline", "30s"]).await?;
        ensure!(put.0 == 0, "put during the partition: exit {}: {}", put.0, put.1);
    }
    let behind = |applied: &[(u64, u64)]| applied.iter().filter(|(own, others)| own < others).count();
    let shards = playground.applied(&cut).await?;
    ensure!(behind(&shards) == shards.len(), "node {cut} received writes across the partition: {shards:?}");
    // Clients still reach the cut-off node and get its own view.
    ensure!(playground.up().await.len() == 3, "clients reach both sides");
    for key in 0..20 {
        let get = playground.cli(&["kv", "get", &format!("key-{key}"), "--read", "eventual"]).await?;
        ensure!(get.0 == 0 && (get.1.contains("before") || get.1.contains("during")), "exit {}: {}", get.0, get.1);
    }

    playground.done(&["heal"]).await?;
    eventually("node {cut} has caught up", PATIENCE, || async {
        playground.applied(&cut).await.is_ok_and(|applied| behind(&applied) == 0)
    })
    .await?;
    playground.is_healthy().await?;
    let get = playground.cli(&["kv", "get", "key-7", "--deadline", "30s"]).await?;
    ensure!(get.0 == 0 && get.1.contains("during"), "exit {}: {}", get.0, get.1);
    playground.stop().await
}

/// Without proxies a partition is refused, and the error names `--direct`.
#[tokio::test(flavor = "multi_thread")]
async fn direct_playground_refuses_a_partition() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let playground = Playground::start(dir.path(), &["--direct", "--nodes", "1"]).await?;
    playground.refused(&["partition", "1"], REFUSED, "--direct").await?;
    playground.stop().await
}
