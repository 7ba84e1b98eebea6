//! What the harness asks the cluster: who leads, who is whom, whether replicas are equal, and operators' commands. All of it
//! goes through the harness's own namespace, where no fault cuts anything.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::future::join_all;
use quorate_client::{AdminClient, admin};
use quorate_proto::admin::{CompactLogsRequest, NodeStatus};
use serde::Serialize;
use serde_json::Value;

use super::Cluster;

/// How long one node may take to answer. Nodes that are cut off answer at once; paused ones never.
const ASK_MAX: Duration = Duration::from_millis(500);
/// How long purging all logs of a node may take.
const COMPACT_MAX: Duration = Duration::from_secs(10);
/// How long an operator's command may take.
const COMMAND_MAX: Duration = Duration::from_secs(120);
/// How long all shards together may take to compare their replicas.
const VERIFY_MAX: Duration = Duration::from_secs(60);

/// What an operator's command said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub error: String,
}

/// Whether the replicas of all shards are equal, each shard at one index.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// All are.
    pub equal: bool,
    /// Some certainly differ. (Where neither holds it could not be told.)
    pub differ: bool,
    /// What `quorate shard verify -o json` said.
    pub detail: Value,
}

impl Cluster {
    /// What every node that runs and answers says of itself and its replicas, by its number. Takes note of their ids.
    pub async fn statuses(&self) -> BTreeMap<usize, NodeStatus> {
        let asked = self.nodes().iter().filter(|node| node.is_running()).map(|node| {
            let (number, address) = (node.number(), node.client_address().to_owned());
            self.on_control(async move {
                let ask = async { admin(&address, ASK_MAX).await.ok()?.node(ASK_MAX).await.ok() };
                (number, tokio::time::timeout(ASK_MAX, ask).await.ok().flatten())
            })
        });
        let mut statuses = BTreeMap::new();
        for answer in join_all(asked).await {
            let Ok((number, Some(status))) = answer else { continue };
            if status.id != 0 {
                self.node(number).learn_id(Some(status.id));
            }
            statuses.insert(number, status);
        }
        statuses
    }

    /// The number of the node that leads each group (0 is the topology's), as far as somebody claims it: the claim with the
    /// highest term counts.
    pub async fn leaders(&self) -> BTreeMap<u32, usize> {
        leaders_of(&self.statuses().await)
    }

    /// The number of the node with an id.
    pub fn numbered(&self, id: u64) -> Option<usize> {
        self.nodes().iter().find(|node| node.id() == Some(id)).map(super::Node::number)
    }

    /// A connection for operators' requests to a node.
    pub async fn admin(&self, number: usize) -> anyhow::Result<AdminClient> {
        let address = self.node(number).client_address().to_owned();
        Ok(self.on_control(async move { admin(&address, ASK_MAX).await }).await??)
    }

    /// Flushes the state of all groups of a node and purges their logs to the tip: a follower that was away needs a snapshot
    /// then. Gives how many entries went.
    pub async fn compact(&self, number: usize) -> anyhow::Result<u64> {
        let admin = self.admin(number).await?;
        let compact = async move { admin.compact_logs(CompactLogsRequest {}, COMPACT_MAX).await };
        Ok(self.on_control(compact).await??.purged_entries)
    }

    /// Runs a command of the binary under test against the cluster, such as `["shard", "list"]`.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<Said> {
        let mut command = self.command(None)?;
        command.args(arguments).env("QUORATE_ENDPOINTS", self.endpoints().join(","));
        let shown = arguments.join(" ");
        let output = self.on_control(async move { tokio::time::timeout(COMMAND_MAX, command.output()).await });
        let output = output.await?.with_context(|| format!("quorate {shown} does not end"))??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said { code: output.status.code(), output: text(&output.stdout), error: text(&output.stderr) })
    }

    /// The same for a command that must succeed and prints JSON.
    pub async fn run_json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let said = self.run(&[arguments, &["-o", "json"]].concat()).await?;
        ensure!(said.code == Some(0), "quorate {}: {}", arguments.join(" "), said.error.trim());
        Ok(serde_json::from_str(&said.output)?)
    }

    /// Compares the states of all replicas. To be asked when everything is healed and nobody writes.
    pub async fn verify(&self) -> anyhow::Result<Verified> {
        let deadline = format!("{}s", VERIFY_MAX.as_secs());
        let said = self.run(&["shard", "verify", "--deadline", &deadline, "-o", "json"]).await?;
        let Ok(detail) = serde_json::from_str::<Value>(&said.output) else {
            bail!("shard verify: exit code {:?}: {}", said.code, said.error.trim());
        };
        let verdicts: Vec<&str> =
            detail["items"].as_array().into_iter().flatten().filter_map(|item| item["verdict"].as_str()).collect();
        let equal = said.code == Some(0) && !verdicts.is_empty() && verdicts.iter().all(|verdict| *verdict == "equal");
        Ok(Verified { equal, differ: verdicts.contains(&"different"), detail })
    }

    /// Whether the cluster says that it is well: every shard has all its replicas, and nothing moves.
    pub async fn is_well(&self) -> anyhow::Result<bool> {
        let status = self.run_json(&["status"]).await?;
        Ok(status["health"] == "ok" && status["moving"] == 0)
    }
}

/// Who leads each group.
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
