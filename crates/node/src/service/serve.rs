//! Serving a part: which replica, which epoch, and what its answer means for each request.

use std::sync::Arc;
use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};
use quorate_proto::kv::Reply;
use quorate_proto::{KvAnswer, reply_to_wire};
use quorate_raft::KvGroup;
use quorate_types::state::Head;
use quorate_types::{Key, Outcome, ReadLevel, Rejection, Role, Served, ServedBy, ShardId};

use super::parts::{Part, Reads, Sized, Writes};
use crate::admission::{Admission, admitted_by_disk};
use crate::member::Member;
use crate::node::Node;
use crate::topology_feed::ClusterMap;

/// Serves the parts of one stream's frames.
pub(crate) struct Server {
    node: Arc<Node>,
    member: Arc<Member>,
    admission: Admission,
    metrics: Metrics,
}

impl Server {
    /// A server of this member.
    pub(crate) fn new(node: Arc<Node>, member: Arc<Member>, admission: Admission) -> Self {
        Server { node, member, admission, metrics: Metrics::new() }
    }

    /// One reply a request.
    pub(crate) async fn serve(&self, part: Sized<Part>) -> Vec<Reply> {
        let started = Instant::now();
        let (kind, replies) = match part.part {
            Part::Write(writes) => (&self.metrics.write, self.write(writes).await),
            Part::Strong(reads) => (&self.metrics.strong, self.read(reads, ReadLevel::Strong).await),
            Part::Eventual(all) => {
                let mut replies = Vec::with_capacity(all.iter().map(|reads| reads.ids.len()).sum());
                for reads in all {
                    replies.extend(self.read(reads, ReadLevel::Eventual).await);
                }
                (&self.metrics.eventual, replies)
            }
        };
        kind.note(&replies, started);
        replies
    }

    async fn write(&self, writes: Writes) -> Vec<Reply> {
        let Writes { shard, within, mut ids, mut commands } = writes;
        let group = match self.group(shard).and_then(|group| self.admission.admit().map(|()| group)) {
            Ok(group) => group,
            Err(rejection) => return reject_all(&ids, &rejection),
        };
        let mut replies = Vec::with_capacity(ids.len());
        if self.node.disk.is_full() {
            let requests = ids.into_iter().zip(commands);
            let (admitted, refused): (Vec<_>, Vec<_>) =
                requests.partition(|(_, command)| admitted_by_disk(command, &self.node.disk));
            replies.extend(refused.into_iter().map(|(id, _)| reply_to_wire(id, Err(Rejection::DiskFull))));
            (ids, commands) = admitted.into_iter().unzip();
            if ids.is_empty() {
                return replies;
            }
        }
        match group.write(commands, within).await {
            Ok(applied) => {
                let by = self.served_by(ReadLevel::Strong, Role::Leader, shard, &applied.head);
                let outcomes = ids.into_iter().zip(applied.reply);
                replies.extend(outcomes.map(|(id, outcome)| {
                    let result = match outcome {
                        // Nothing was applied, and the client's map is not to blame.
                        Outcome::WrongEpoch { epoch: 0 } => Err(unfounded()),
                        outcome => Ok(Served { value: KvAnswer::Outcome(outcome), by }),
                    };
                    reply_to_wire(id, result)
                }));
            }
            Err(rejection) => replies.extend(reject_all(&ids, &rejection)),
        }
        replies
    }

    async fn read(&self, reads: Reads, level: ReadLevel) -> Vec<Reply> {
        let Reads { shard, within, mut ids, mut epochs, mut keys } = reads;
        let group = match self.group(shard) {
            Ok(group) => group,
            Err(rejection) => return reject_all(&ids, &rejection),
        };
        let map = self.member.feed.latest();
        let mut replies = Vec::with_capacity(ids.len());
        if let Some(map) = &map
            && let Some(strays) = strays(map, shard, &epochs, &keys)
        {
            for place in strays.into_iter().rev() {
                replies.push(reply_to_wire(ids.remove(place), Err(outside())));
                epochs.remove(place);
                keys.remove(place);
            }
        }
        match group.read(keys, level, within).await {
            Ok(read) => {
                let by = self.served_by(level, read.role, shard, &read.head);
                let records = ids.into_iter().zip(epochs).zip(read.records);
                replies.extend(records.map(|((id, epoch), record)| {
                    let checked = check_epoch(epoch, by.epoch, shard, map.as_deref());
                    reply_to_wire(id, checked.map(|()| Served { value: KvAnswer::Found(record), by }))
                }));
            }
            Err(rejection) => replies.extend(reject_all(&ids, &rejection)),
        }
        replies
    }

    /// This node's replica of a shard.
    fn group(&self, shard: ShardId) -> Result<KvGroup, Rejection> {
        if let Some(group) = self.member.shards.get(shard) {
            return Ok(group);
        }
        let map = self.member.feed.latest();
        let wanted = map.as_ref().and_then(|map| map.shard(shard));
        let own = self.member.identity.node;
        if wanted.is_some_and(|shard| shard.replicas.iter().any(|placement| placement.node == own)) {
            return Err(Rejection::Unavailable { reason: "the replica is being opened".to_owned() });
        }
        Err(Rejection::WrongShard { shard: wanted.cloned() })
    }

    fn served_by(&self, level: ReadLevel, role: Role, shard: ShardId, head: &Head) -> ServedBy {
        ServedBy {
            level,
            node: self.member.identity.node,
            role,
            shard,
            epoch: head.epoch,
            revision: head.revision,
            applied: head.applied.map_or(0, |applied| applied.index),
        }
    }
}

/// The places of keys that are not in the shard's arc although the client knows it as this node does; none, usually.
fn strays(map: &ClusterMap, shard: ShardId, epochs: &[u64], keys: &[Key]) -> Option<Vec<usize>> {
    let info = map.shard(shard)?;
    let hash_key = &map.topology.cluster.hash_key;
    let is_stray = |place: &usize| {
        epochs[*place] == info.epoch && !info.arc.contains(quorate_ring::token(hash_key, &keys[*place]))
    };
    let strays: Vec<usize> = (0..keys.len()).filter(is_stray).collect();
    (!strays.is_empty()).then_some(strays)
}

fn outside() -> Rejection {
    Rejection::Invalid {
        reason: "the key's token is not in the shard's arc; hash it with the cluster's key".to_owned(),
    }
}

fn unfounded() -> Rejection {
    Rejection::Unavailable { reason: "the shard is being founded".to_owned() }
}

/// Whether a state of epoch `state` may answer a client that routed by epoch `client`.
fn check_epoch(client: u64, state: u64, shard: ShardId, map: Option<&ClusterMap>) -> Result<(), Rejection> {
    if client == state {
        return Ok(());
    }
    if state < client {
        // Behind: this replica has not applied what the client's map knows of.
        return Err(Rejection::Unavailable { reason: format!("the replica is at epoch {state} of the shard") });
    }
    Err(Rejection::WrongShard { shard: map.and_then(|map| map.shard(shard)).cloned() })
}

fn reject_all(ids: &[u64], rejection: &Rejection) -> Vec<Reply> {
    ids.iter().map(|&id| reply_to_wire(id, Err(rejection.clone()))).collect()
}

/// Counters and histograms by kind of operation, looked up once a stream.
struct Metrics {
    write: KindMetrics,
    strong: KindMetrics,
    eventual: KindMetrics,
}

struct KindMetrics {
    served: Counter,
    rejected: Counter,
    seconds: Histogram,
}

impl Metrics {
    fn new() -> Self {
        let kind = |kind: &'static str| KindMetrics {
            served: counter!("quorate_requests_total", "kind" => kind, "outcome" => "served"),
            rejected: counter!("quorate_requests_total", "kind" => kind, "outcome" => "rejected"),
            seconds: histogram!("quorate_request_batch_seconds", "kind" => kind),
        };
        Metrics { write: kind("write"), strong: kind("strong"), eventual: kind("eventual") }
    }
}

impl KindMetrics {
    /// Once for a part, not for a request.
    fn note(&self, replies: &[Reply], started: Instant) {
        use quorate_proto::kv::reply::Result as Wire;
        let rejected = replies.iter().filter(|reply| matches!(reply.result, Some(Wire::Rejection(_)))).count() as u64;
        let served = replies.len() as u64 - rejected;
        if served > 0 {
            self.served.increment(served);
        }
        if rejected > 0 {
            self.rejected.increment(rejected);
        }
        self.seconds.record(started.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_answered_only_from_the_epoch_that_it_was_routed_by() {
        let check = |client, state| check_epoch(client, state, ShardId(1), None);
        assert_eq!(check(2, 2), Ok(()));
        assert!(matches!(check(2, 0), Err(Rejection::Unavailable { .. })), "not founded yet here");
        assert!(matches!(check(2, 1), Err(Rejection::Unavailable { .. })), "behind");
        assert_eq!(check(2, 3), Err(Rejection::WrongShard { shard: None }));
    }
}
