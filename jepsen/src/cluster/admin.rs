//! The harness's requests to the cluster: leaders, node ids, replica comparison, and operators'
//! commands. They are sent from the harness's own namespace, which no fault cuts off.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::future::join_all;
use quorate_client::admin;
use quorate_proto::admin::{CompactLogsRequest, NodeStatus};
use serde::Serialize;
use serde_json::Value;

use super::parts::Cluster;

/// The time-out of a status request to one node. Unreachable nodes fail immediately; paused nodes
/// never answer.
const STATUS_MAX: Duration = Duration::from_millis(500);
/// The time-out of purging all logs of a node.
const COMPACT_MAX: Duration = Duration::from_secs(10);
/// The time-out of an operator's command.
const COMMAND_MAX: Duration = Duration::from_secs(120);
/// The time-out of comparing the replicas of all shards.
const VERIFY_MAX: Duration = Duration::from_secs(60);

/// The output of an operator's command.
#[derive(Clone, Debug)]
pub struct CommandOutput {
    /// Its exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The result of comparing the replicas of every shard at one log index each.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// All replicas are equal.
    pub equal: bool,
    /// Some replicas certainly differ. If neither `equal` nor `differ` is set, the comparison was
    /// not possible.
    pub differ: bool,
    /// The output of `quorate shard verify -o json`.
    pub detail: Value,
}

/// Requests of an operator.
#[derive(Clone, Copy)]
pub struct Admin<'a> {
    cluster: &'a Cluster,
}

impl Cluster {
    /// Requests of an operator to the cluster.
    pub fn admin(&self) -> Admin<'_> {
        Admin { cluster: self }
    }
}

impl Admin<'_> {
    /// The status of every node that runs and answers, by its number. Remembers the nodes' ids.
    pub async fn statuses(self) -> BTreeMap<usize, NodeStatus> {
        let requests = self.cluster.nodes().iter().filter(|node| node.is_running()).map(|node| {
            let (number, address) = (node.number(), node.client_address().to_owned());
            self.cluster.on_control(async move {
                let request = async { admin(&address, STATUS_MAX).await.ok()?.node(STATUS_MAX).await.ok() };
                (number, tokio::time::timeout(STATUS_MAX, request).await.ok().flatten())
            })
        });
        let mut statuses = BTreeMap::new();
        for answer in join_all(requests).await {
            let Ok((number, Some(status))) = answer else { continue };
            if status.id != 0 {
                self.cluster.node(number).learn_id(Some(status.id));
            }
            statuses.insert(number, status);
        }
        statuses
    }

    /// The number of the node that leads each group (0 is the topology group). Of several nodes
    /// that claim to lead a group, the one with the highest term counts.
    pub async fn leaders(self) -> BTreeMap<u32, usize> {
        leaders_of(&self.statuses().await)
    }

    /// Flushes the state of all groups of a node and purges their logs to the tip, so that a
    /// follower that was away needs a snapshot. Returns the number of purged entries.
    pub async fn compact(self, number: usize) -> anyhow::Result<u64> {
        let address = self.cluster.node(number).client_address().to_owned();
        let compact = async move {
            let admin = admin(&address, STATUS_MAX).await?;
            admin.compact_logs(CompactLogsRequest {}, COMPACT_MAX).await
        };
        Ok(self.cluster.on_control(compact).await??.purged_entries)
    }

    /// Runs a command of the binary under test against the cluster, such as `["shard", "list"]`.
    pub async fn run(self, arguments: &[&str]) -> anyhow::Result<CommandOutput> {
        let mut command = self.cluster.command(None);
        command.args(arguments).env("QUORATE_ENDPOINTS", self.cluster.endpoints().join(","));
        let shown = arguments.join(" ");
        let output = self.cluster.on_control(async move { tokio::time::timeout(COMMAND_MAX, command.output()).await });
        let output = output.await?.with_context(|| format!("quorate {shown} timed out"))??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(CommandOutput { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }

    /// Runs a command that must succeed, and parses the JSON that it prints.
    pub async fn run_json(self, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = self.run(&[arguments, &["-o", "json"]].concat()).await?;
        ensure!(output.code == Some(0), "quorate {}: {}", arguments.join(" "), output.stderr.trim());
        Ok(serde_json::from_str(&output.stdout)?)
    }

    /// Compares the states of all replicas. Call it when all faults are healed and no client
    /// writes.
    pub async fn verify(self) -> anyhow::Result<Verified> {
        let deadline = format!("{}s", VERIFY_MAX.as_secs());
        let output = self.run(&["shard", "verify", "--deadline", &deadline, "-o", "json"]).await?;
        let Ok(detail) = serde_json::from_str::<Value>(&output.stdout) else {
            bail!("shard verify: exit code {:?}: {}", output.code, output.stderr.trim());
        };
        let verdicts: Vec<&str> =
            detail["items"].as_array().into_iter().flatten().filter_map(|item| item["verdict"].as_str()).collect();
        let equal =
            output.code == Some(0) && !verdicts.is_empty() && verdicts.iter().all(|verdict| *verdict == "equal");
        Ok(Verified { equal, differ: verdicts.contains(&"different"), detail })
    }

    /// Whether the cluster reports itself healthy: every shard has all its replicas, and none
    /// moves.
    pub async fn is_healthy(self) -> anyhow::Result<bool> {
        let status = self.run_json(&["status"]).await?;
        Ok(status["health"] == "ok" && status["moving"] == 0)
    }
}

/// The number of the node that leads each group.
pub(crate) fn leaders_of(statuses: &BTreeMap<usize, NodeStatus>) -> BTreeMap<u32, usize> {
    let mut best: BTreeMap<u32, (u64, usize)> = BTreeMap::new();
    for (number, status) in statuses {
        for replica in status.replicas.iter().filter(|replica| replica.leader == status.id) {
            let claim = best.entry(replica.group).or_insert((replica.term, *number));
            *claim = (*claim).max((replica.term, *number));
        }
    }
    best.into_iter().map(|(group, (_, number))| (group, number)).collect()
}
