//! `shard verify`: compares the hashes of all replicas of a shard at one log index.
//!
//! Replicas apply entries at different times, so they are polled until all have hashed the same
//! index. Under constant writes this may never happen; the verdict is then `unknown`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use quorate_client::{AdminError, admin};
use quorate_proto::admin::{HashShardRequest, HashShardResponse};
use serde::Serialize;

use crate::connect::Ask;
use crate::failure::{Exit, Failure};
use crate::output::{self, Kinds, id};
use crate::presence::Presence;
use crate::shard_row::Shard;
use crate::survey::Survey;

/// The pause before replicas at different indexes are polled again.
const POLL: Duration = Duration::from_millis(50);

/// The result of comparing the replicas of one shard.
#[derive(Debug, Serialize)]
struct Verdict {
    #[serde(serialize_with = "id")]
    shard: u64,
    /// `equal`, `different`, or `unknown`: a replica did not respond, or they never reported the
    /// same index.
    verdict: &'static str,
    applied_index: u64,
    records: u64,
    /// The hash of each node's replica.
    hashes: BTreeMap<String, String>,
    reason: String,
}

impl Verdict {
    fn unknown(shard: u64, reason: String) -> Self {
        Verdict { shard, verdict: "unknown", applied_index: 0, records: 0, hashes: BTreeMap::new(), reason }
    }
}

/// Verifies one shard or all, and prints a line for each.
pub(crate) async fn run(shard: Option<u32>, Ask { connect, output }: &Ask) -> Result<(), Failure> {
    let survey = Survey::take(connect).await?;
    let shards = match shard {
        Some(id) => vec![Shard::find(&survey, id)?],
        None => Shard::all(&survey),
    };
    let addresses: BTreeMap<u64, String> =
        survey.nodes.iter().map(|(node, _)| (node.id, node.client_address.clone())).collect();
    let mut verdicts = Vec::with_capacity(shards.len());
    for known in shards {
        let at: Vec<(u64, String)> = known
            .replicas
            .iter()
            .map(|replica| (replica.node, addresses.get(&replica.node).cloned().unwrap_or_default()))
            .collect();
        // A node that did not respond to the survey is not waited for again, shard by shard.
        let absent = at.iter().map(|(node, _)| (node, survey.presence(*node)));
        let absent = absent.into_iter().find(|(_, presence)| *presence != Presence::Up);
        verdicts.push(match absent {
            Some((node, Presence::Down)) => Verdict::unknown(known.id, format!("node {node} is down")),
            Some((node, _)) => Verdict::unknown(known.id, format!("node {node} is unreachable from here")),
            None => verify(known.id, &at, connect.deadline).await,
        });
    }
    let differ = verdicts.iter().filter(|verdict| verdict.verdict == "different").count();
    let unknown = verdicts.iter().filter(|verdict| verdict.verdict == "unknown").count();
    output::show_all(output.output, KINDS, verdicts, |verdicts| output::table(HEADER, verdicts.iter().map(row)))?;
    match (differ, unknown) {
        (0, 0) => Ok(()),
        (0, unknown) => Err(Failure::new(Exit::CheckFailed, format!("{unknown} shards could not be compared"))
            .hint("restart the nodes that are down or repair their network (quorate doctor), or retry with less load or a longer --deadline")),
        (differ, _) => Err(Failure::new(Exit::CheckFailed, format!("the replicas of {differ} shards differ"))
            .hint("stop writing to them and keep the data directories: this is a bug")),
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

/// Polls until all replicas have reported the same index, or the deadline has passed.
async fn verify(shard: u64, at: &[(u64, String)], within: Duration) -> Verdict {
    let deadline = Instant::now() + within;
    // The hash of each replica at each index that it reported.
    let mut seen: BTreeMap<u64, BTreeMap<u64, HashShardResponse>> = BTreeMap::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let answers = join_all(at.iter().map(|(_, address)| hash(shard, address, left))).await;
        let mut reason = "the replicas never reported the same index".to_owned();
        for ((node, _), answer) in at.iter().zip(answers) {
            match answer {
                Ok(hash) => {
                    seen.entry(hash.applied_index).or_default().insert(*node, hash);
                }
                Err(error) => reason = format!("node {node}: {}", error.reason),
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
        if Instant::now() + POLL >= deadline {
            return Verdict::unknown(shard, reason);
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn hash(shard: u64, address: &str, within: Duration) -> Result<HashShardResponse, AdminError> {
    let deadline = Instant::now() + within;
    let node = admin(address, within).await?;
    let request = HashShardRequest { shard: u32::try_from(shard).unwrap_or(u32::MAX) };
    node.hash_shard(request, deadline.saturating_duration_since(Instant::now())).await
}
