//! Checks of a healed cluster: every shard serves, every key can be read, replicas converge, and
//! their state hashes are equal.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::StreamExt as _;
use quorate_client::{Client, ReadLevel};
use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use super::clients::Clients;
use crate::history::EventKind;
use crate::workload::{Op, Workload};

/// The longest time from healing until every shard accepts writes: many times a failover and a
/// replay of the log.
pub(super) const SERVING_MAX: Duration = Duration::from_secs(90);
/// The longest time until the replicas are equal.
const CONVERGING_MAX: Duration = Duration::from_secs(60);
/// Concurrent final reads.
const READS_AT_A_TIME: usize = 64;
/// The attempts of one final read.
const READ_TRIES_MAX: usize = 20;
/// Keys that are read through every connection to check convergence. The hashes cover all keys.
const CONVERGING_KEYS_MAX: usize = 300;
/// Keys written per shard, enough that every shard gets at least one.
const PROBES_PER_SHARD: u32 = 8;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until every shard accepts writes.
///
/// # Errors
///
/// A shard accepts no writes after [`SERVING_MAX`]: healed, but not available.
pub(super) async fn serving(client: &Client, within: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    let topology = loop {
        match client.router().refresh(Duration::from_secs(2)).await {
            Ok(topology) => break topology,
            Err(error) if Instant::now() > deadline => return Err(error).context("no node returns the cluster's map"),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let shards = u32::try_from(topology.shards.len())?;
    let probes = futures::stream::iter(0..shards * PROBES_PER_SHARD).map(|probe| async move {
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).min(Duration::from_secs(5));
            match client.put(format!("probe/{probe}"), "serving").deadline(left).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                // An unknown outcome is fine: the retry writes the same value.
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    });
    let done: Vec<Result<(), quorate_client::Error>> = probes.buffer_unordered(READS_AT_A_TIME).collect().await;
    let failed = done.iter().filter_map(|done| done.as_ref().err()).next();
    failed.map_or(Ok(()), |error| {
        Err(anyhow::anyhow!("a shard accepts no writes {} s after healing: {error}", within.as_secs()))
    })
}

/// The results of the final reads.
#[derive(Debug, Default)]
pub(super) struct FinalReads {
    /// The number of keys that were read.
    pub read: usize,
    /// The keys that could not be read.
    pub unread: Vec<String>,
}

/// Reads every key of every workload with a strong read, which the history records.
pub(super) async fn final_reads(clients: &Arc<Clients>) -> FinalReads {
    let planned = clients.planned_each();
    let mut reads = FinalReads::default();
    for workload in &clients.workloads {
        let tries = futures::stream::iter(workload.finals(planned)).map(|op| async move {
            let read = read(clients, workload, &op).await;
            read.is_none().then_some(op.key)
        });
        let results: Vec<Option<String>> = tries.buffer_unordered(READS_AT_A_TIME).collect().await;
        reads.read += results.iter().filter(|unread| unread.is_none()).count();
        reads.unread.extend(results.into_iter().flatten());
    }
    reads
}

/// Reads one key, with retries.
async fn read(clients: &Arc<Clients>, workload: &Arc<dyn Workload>, op: &Op) -> Option<Value> {
    for _ in 0..READ_TRIES_MAX {
        let completion = clients.perform(workload.as_ref(), clients.new_process(), op).await;
        if completion.kind == EventKind::Ok {
            return Some(completion.value);
        }
        tokio::time::sleep(PAUSE).await;
    }
    None
}

/// Reads keys eventually through every connection, until each read returns the value of a strong
/// read. Returns the keys that do not converge, with the values read.
pub(super) async fn converge(clients: &Arc<Clients>) -> Vec<String> {
    let deadline = Instant::now() + CONVERGING_MAX;
    let mut apart = Vec::new();
    for workload in clients.workloads.iter().filter(|workload| workload.model().is_some()) {
        let mut finals = workload.finals(clients.planned_each());
        let every = finals.len().div_ceil(CONVERGING_KEYS_MAX).max(1);
        finals = finals.into_iter().step_by(every).collect();
        let keys =
            futures::stream::iter(finals).map(|op| async move { converged(clients, workload, &op, deadline).await });
        let results: Vec<Option<String>> = keys.buffer_unordered(READS_AT_A_TIME).collect().await;
        apart.extend(results.into_iter().flatten());
    }
    apart
}

async fn converged(clients: &Arc<Clients>, workload: &Arc<dyn Workload>, op: &Op, deadline: Instant) -> Option<String> {
    let eventual = Op::read(op.key.clone(), ReadLevel::Eventual);
    loop {
        let strong = read(clients, workload, op).await;
        let mut differs = None;
        // Processes alternate between the connections, so each connection performs one of these
        // reads.
        for _ in 0..clients.connections.len() {
            let completion = clients.perform(workload.as_ref(), clients.new_process(), &eventual).await;
            if completion.kind != EventKind::Ok || Some(&completion.value) != strong.as_ref() {
                let strong = strong.clone().unwrap_or_default();
                differs = Some(format!("{}: {} instead of {strong}", op.key, completion.value));
            }
        }
        match differs {
            None => return None,
            Some(differs) if Instant::now() > deadline => return Some(differs),
            Some(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

#[derive(Deserialize)]
struct Verification {
    items: Vec<Shard>,
}

#[derive(Deserialize)]
struct Shard {
    shard: String,
    verdict: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    hashes: serde_json::Map<String, Value>,
}

/// The result of `quorate shard verify`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hashes {
    /// All replicas are equal; the number of shards.
    Equal(usize),
    /// Some replicas have different states at the same index; which.
    Differ(String),
    /// A replica did not answer until the time-out.
    Unknown(String),
}

/// Compares the states of all replicas of every shard at one log index. Retries while a replica is
/// missing.
///
/// # Errors
///
/// The command cannot be run.
pub(super) async fn hashes(
    command: impl Fn() -> anyhow::Result<Command>,
    endpoints: &[String],
) -> anyhow::Result<Hashes> {
    let deadline = Instant::now() + CONVERGING_MAX;
    loop {
        let mut command = command()?;
        command.args(["shard", "verify", "-o", "json", "--deadline", "20s", "--endpoints", &endpoints.join(",")]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output =
            tokio::time::timeout(CONVERGING_MAX, command.output()).await.context("'shard verify' timed out")?;
        let output = output.context("running the binary")?;
        let verdict = match serde_json::from_slice(&output.stdout) {
            Ok(verification) => compare(verification),
            Err(_) => Hashes::Unknown(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        };
        match verdict {
            Hashes::Unknown(_) if Instant::now() < deadline => tokio::time::sleep(PAUSE * 10).await,
            verdict => return Ok(verdict),
        }
    }
}

fn compare(verification: Verification) -> Hashes {
    let shards = verification.items;
    let say = |shard: &Shard| {
        format!("shard {}: {} {} {}", shard.shard, shard.verdict, shard.reason, Value::from(shard.hashes.clone()))
    };
    let differs = |shard: &&Shard| {
        let mut hashes: Vec<_> = shard.hashes.values().map(Value::to_string).collect();
        hashes.sort_unstable();
        hashes.dedup();
        // If a replica is missing, the others may have been compared at different indexes.
        shard.verdict == "different" || (shard.verdict == "equal" && hashes.len() > 1)
    };
    if let Some(shard) = shards.iter().find(differs) {
        return Hashes::Differ(say(shard));
    }
    match shards.iter().find(|shard| shard.verdict != "equal") {
        Some(shard) => Hashes::Unknown(say(shard)),
        None if shards.is_empty() => Hashes::Unknown("no shard was compared".into()),
        None => Hashes::Equal(shards.len()),
    }
}

/// The panics in a node's log.
pub(super) fn panics(log: &str) -> Vec<String> {
    log.lines().filter(|line| line.contains("panicked at")).map(|line| line.chars().take(400).collect()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hashes_are_equal_different_or_unknown() {
        let verdict = |verdict: &str, one: &str, two: &str| {
            let items = json!({"items": [{"shard": "1", "verdict": verdict, "hashes": {"1": one, "2": two}}]});
            compare(serde_json::from_value(items).unwrap())
        };
        assert_eq!(verdict("equal", "a", "a"), Hashes::Equal(1));
        assert!(matches!(verdict("different", "a", "b"), Hashes::Differ(_)));
        assert!(matches!(verdict("equal", "a", "b"), Hashes::Differ(_)));
        assert!(matches!(verdict("unknown", "a", "b"), Hashes::Unknown(_)));
        assert!(matches!(compare(Verification { items: vec![] }), Hashes::Unknown(_)));
    }

    #[test]
    fn panics_are_found_in_logs() {
        let log = "INFO serves\nthread 'main' panicked at src/x.rs:1:2:\nINFO continues\n";
        assert_eq!(panics(log), vec!["thread 'main' panicked at src/x.rs:1:2:"]);
    }
}
