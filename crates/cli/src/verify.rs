//! `shard verify`: the states of all replicas of a shard, hashed at one index and compared.
//!
//! Replicas apply at different times, so they are asked again until all have hashed the same index. A shard that is written
//! without a pause may not show all of them at one; then the answer is that nobody knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::future::join_all;
use quorate_proto::admin::{HashShardRequest, HashShardResponse};
use serde::Serialize;
use tonic::Request;

use crate::admin;
use crate::args::Ask;
use crate::failure::{Exit, Failure};
use crate::output::{self, Kinds, id};
use crate::survey::Survey;

/// The pause before replicas that were apart are asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// What comparing the replicas of one shard found.
#[derive(Debug, Serialize)]
struct Verdict {
    #[serde(serialize_with = "id")]
    shard: u64,
    /// `equal`, `different`, or `unknown`: some replica did not answer, or they were never seen at one index.
    verdict: &'static str,
    applied_index: u64,
    records: u64,
    /// What each node's replica holds, as a hash.
    hashes: BTreeMap<String, String>,
    reason: String,
}

impl Verdict {
    fn unknown(shard: u64, reason: String) -> Self {
        Verdict { shard, verdict: "unknown", applied_index: 0, records: 0, hashes: BTreeMap::new(), reason }
    }
}

/// Verifies one shard or all, and prints a line each.
pub(crate) async fn run(shard: Option<u32>, Ask { connect, output }: &Ask) -> Result<(), Failure> {
    let survey = Survey::take(connect).await?;
    let shards: Vec<_> =
        survey.shards().into_iter().filter(|known| shard.is_none_or(|id| u64::from(id) == known.id)).collect();
    if let (true, Some(id)) = (shards.is_empty(), shard) {
        return Err(Failure::new(Exit::Usage, format!("the cluster has no shard {id}")));
    }
    let addresses: BTreeMap<u64, String> =
        survey.nodes.iter().map(|(node, _)| (node.id, node.client_address.clone())).collect();
    let silent: BTreeSet<u64> =
        survey.nodes.iter().filter(|(_, status)| status.is_none()).map(|(node, _)| node.id).collect();
    let mut verdicts = Vec::with_capacity(shards.len());
    for known in shards {
        let at: Vec<(u64, String)> = known
            .replicas
            .iter()
            .map(|replica| (replica.node, addresses.get(&replica.node).cloned().unwrap_or_default()))
            .collect();
        // A node that did not answer a moment ago is not waited for again, shard by shard.
        let down = at.iter().find(|(node, _)| silent.contains(node));
        verdicts.push(match down {
            Some((node, _)) => Verdict::unknown(known.id, format!("node {node} does not answer")),
            None => verify(known.id, &at, connect.deadline).await,
        });
    }
    let differ = verdicts.iter().filter(|verdict| verdict.verdict == "different").count();
    let unknown = verdicts.iter().filter(|verdict| verdict.verdict == "unknown").count();
    output::show_all(output.output, KINDS, verdicts, |verdicts| output::table(HEADER, verdicts.iter().map(row)))?;
    match (differ, unknown) {
        (0, 0) => Ok(()),
        (0, unknown) => Err(Failure::new(Exit::CheckFailed, format!("{unknown} shards could not be compared"))
            .hint("start the nodes that are down or mend their network (quorate doctor), or try again with less load or a longer --deadline")),
        (differ, _) => Err(Failure::new(Exit::CheckFailed, format!("the replicas of {differ} shards differ"))
            .hint("stop writing to them, and keep the data directories: this is a bug")),
    }
}

const KINDS: Kinds = Kinds { list: "ShardVerification", item: "ShardVerdict" };
const HEADER: [&str; 5] = ["SHARD", "VERDICT", "INDEX", "RECORDS", "HASH"];

fn row(verdict: &Verdict) -> [String; 5] {
    let hashes: Vec<String> = match verdict.verdict {
        "equal" => verdict.hashes.values().take(1).cloned().collect(),
        _ => {
            verdict.hashes.iter().map(|(node, hash)| format!("{node}:{hash}")).chain([verdict.reason.clone()]).collect()
        }
    };
    [
        verdict.shard.to_string(),
        verdict.verdict.to_owned(),
        verdict.applied_index.to_string(),
        verdict.records.to_string(),
        hashes.join(" "),
    ]
}

/// Asks until all replicas were seen at one index, or the deadline has passed.
async fn verify(shard: u64, at: &[(u64, String)], within: Duration) -> Verdict {
    let deadline = Instant::now() + within;
    // What each replica was at each index that it was seen at.
    let mut seen: BTreeMap<u64, BTreeMap<u64, HashShardResponse>> = BTreeMap::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let answers = join_all(at.iter().map(|(node, address)| hash(shard, *node, address, left))).await;
        let mut reason = "the replicas were never seen at one index".to_owned();
        for answer in answers {
            match answer {
                Ok((node, hash)) => drop(seen.entry(hash.applied_index).or_default().insert(node, hash)),
                Err(why) => reason = why,
            }
        }
        if let Some((index, hashes)) = seen.iter().rev().find(|(_, hashes)| hashes.len() == at.len()) {
            let first = hashes.values().next().map(|hash| hash.hash.clone());
            let equal = hashes.values().all(|hash| Some(&hash.hash) == first.as_ref());
            return Verdict {
                shard,
                verdict: if equal { "equal" } else { "different" },
                applied_index: *index,
                records: hashes.values().next().map_or(0, |hash| hash.records),
                hashes: hashes.iter().map(|(node, hash)| (node.to_string(), hash.hash.clone())).collect(),
                reason: String::new(),
            };
        }
        if Instant::now() + AGAIN >= deadline {
            return Verdict::unknown(shard, reason);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn hash(shard: u64, node: u64, address: &str, within: Duration) -> Result<(u64, HashShardResponse), String> {
    let asked = async {
        let mut admin = admin::connect(address, within).await.map_err(|status| status.message().to_owned())?;
        let request = HashShardRequest { shard: u32::try_from(shard).unwrap_or(u32::MAX) };
        let hash = admin.hash_shard(Request::new(request)).await.map_err(|status| status.message().to_owned())?;
        Ok::<_, String>(hash.into_inner())
    };
    match tokio::time::timeout(within, asked).await {
        Ok(Ok(hash)) => Ok((node, hash)),
        Ok(Err(reason)) => Err(format!("node {node}: {reason}")),
        Err(_) => Err(format!("node {node}: no answer in time")),
    }
}
