//! Serving a part: which replica, which epoch, and what its answer means for each request.

use std::sync::Arc;
use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};
use quorate_proto::kv::Reply;
use quorate_proto::reply_to_wire;
use quorate_raft::Shard;
use quorate_types::state::Head;
use quorate_types::{
    Command, Key, KvAnswer, Outcome, ReadLevel, Rejection, Role, Served, ServedBy, ShardId, VALUE_BYTES_MAX,
};
use tokio::sync::OwnedSemaphorePermit;

use super::parts::{Part, Reads, Sized, Writes};
use super::replies::{Batch, ReplyQueue, Room};
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

    /// Serves a part: one reply a request. The requests' room goes with the last reply.
    pub(crate) async fn serve(&self, part: Sized<Part>, queue: &ReplyQueue, room: OwnedSemaphorePermit) {
        let started = Instant::now();
        let (kind, last) = match part.part {
            Part::Write(writes) => {
                let mut replies = self.write(writes).await;
                let bytes = queue.reserve_refused(&mut replies);
                (&self.metrics.write, Batch { replies, requests: None, bytes })
            }
            Part::Strong(reads) => {
                let right = self.right_to_answer(&reads, ReadLevel::Strong).await;
                let mut page = Page::new(queue, &self.metrics.strong).await;
                self.read(reads, ReadLevel::Strong, right, &mut page).await;
                (&self.metrics.strong, page.close())
            }
            Part::Eventual(all) => {
                let mut page = Page::new(queue, &self.metrics.eventual).await;
                for reads in all {
                    let right = self.right_to_answer(&reads, ReadLevel::Eventual).await;
                    self.read(reads, ReadLevel::Eventual, right, &mut page).await;
                }
                (&self.metrics.eventual, page.close())
            }
        };
        kind.count(&last.replies);
        let took = started.elapsed();
        kind.seconds.record(took);
        self.member.foreground.took(took);
        queue.send(Batch { requests: Some(room), ..last }).await;
    }

    async fn write(&self, writes: Writes) -> Vec<Reply> {
        let Writes { shard, within, mut ids, mut commands } = writes;
        let group = match self.group(shard).and_then(|group| self.admission.admit().map(|()| group)) {
            Ok(group) => group,
            Err(rejection) => return reject_all(&ids, &rejection),
        };
        let mut replies = Vec::with_capacity(ids.len());
        if let Some(map) = self.member.feed.latest() {
            let strays = strays(&map, shard, commands.iter().enumerate().filter_map(write_routed));
            for place in strays.into_iter().rev() {
                replies.push(reply_to_wire(ids.remove(place), Err(outside())));
                commands.remove(place);
            }
            if ids.is_empty() {
                return replies;
            }
        }
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
                let outcomes = ids.into_iter().zip(applied.outcomes);
                replies.extend(outcomes.map(|(id, outcome)| {
                    let result = match outcome {
                        // Nothing was applied, and the client's map is not to blame.
                        Outcome::WrongEpoch { epoch: 0 } => Err(not_bootstrapped()),
                        outcome => Ok(Served { value: KvAnswer::Outcome(outcome), by }),
                    };
                    reply_to_wire(id, result)
                }));
            }
            Err(rejection) => replies.extend(reject_all(&ids, &rejection)),
        }
        replies
    }

    async fn right_to_answer(&self, reads: &Reads, level: ReadLevel) -> Result<Shard, Rejection> {
        let group = self.group(reads.shard)?;
        group.read_barrier(level, reads.within).await?;
        Ok(group)
    }

    async fn read(&self, reads: Reads, level: ReadLevel, right: Result<Shard, Rejection>, page: &mut Page<'_>) {
        let Reads { shard, mut ids, mut epochs, mut keys, .. } = reads;
        let group = match right {
            Ok(group) => group,
            Err(rejection) => return page.replies.extend(reject_all(&ids, &rejection)),
        };
        let map = self.member.feed.latest();
        if let Some(map) = &map {
            for place in
                strays(map, shard, (0..).zip(&epochs).zip(&keys).map(|((place, epoch), key)| (place, *epoch, key)))
                    .into_iter()
                    .rev()
            {
                page.replies.push(reply_to_wire(ids.remove(place), Err(outside())));
                epochs.remove(place);
                keys.remove(place);
            }
        }
        let mut next = 0;
        while next < keys.len() {
            if page.room() == 0 {
                page.turn().await;
            }
            let read = match group.read(&keys[next..], page.room()) {
                Ok(read) => read,
                Err(rejection) => return page.replies.extend(reject_all(&ids[next..], &rejection)),
            };
            let by = self.served_by(level, read.role, shard, &read.head);
            for record in read.records {
                page.bytes += record.as_ref().map_or(0, |record| record.value.as_bytes().len());
                let checked = check_epoch(epochs[next], by.epoch, shard, map.as_deref());
                let result = checked.map(|()| Served { value: KvAnswer::Found(record), by });
                page.replies.push(reply_to_wire(ids[next], result));
                next += 1;
            }
        }
    }

    /// This node's replica of a shard.
    fn group(&self, shard: ShardId) -> Result<Shard, Rejection> {
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

/// The places of keys that are not in the shard's arc although the client knows it, by the epoch that it says, as this node
/// does; none, usually.
fn strays<'a>(map: &ClusterMap, shard: ShardId, routed: impl Iterator<Item = (usize, u64, &'a Key)>) -> Vec<usize> {
    let Some(info) = map.shard(shard) else { return Vec::new() };
    let hash_key = &map.topology.cluster.hash_key;
    let strays =
        routed.filter(|(_, epoch, key)| *epoch == info.epoch && !info.arc.contains(quorate_ring::token(hash_key, key)));
    strays.map(|(place, ..)| place).collect()
}

fn write_routed((place, command): (usize, &Command)) -> Option<(usize, u64, &Key)> {
    match command {
        Command::Write { epoch, write, .. } => Some((place, *epoch, &write.key)),
        _ => None,
    }
}

fn outside() -> Rejection {
    Rejection::Invalid {
        reason: "the key's token is not in the shard's arc; hash it with the cluster's key".to_owned(),
    }
}

fn not_bootstrapped() -> Rejection {
    Rejection::Unavailable { reason: "the shard is being bootstrapped".to_owned() }
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

/// Bytes of values on a page: more than a frame has, so that reading a page costs little beside sending it.
const PAGE_BYTES: usize = 1 << 20;

/// Replies to reads, gathered until they have [`PAGE_BYTES`]; a last value may go beyond.
struct Page<'a> {
    queue: &'a ReplyQueue,
    metrics: &'a KindMetrics,
    replies: Vec<Reply>,
    bytes: usize,
    reserved: Room,
}

impl<'a> Page<'a> {
    /// An empty page, as soon as the stream has room for a full one. While it is held nothing else may be waited for.
    async fn new(queue: &'a ReplyQueue, metrics: &'a KindMetrics) -> Self {
        let reserved = queue.reserve(PAGE_BYTES + VALUE_BYTES_MAX).await;
        Page { queue, metrics, replies: Vec::new(), bytes: 0, reserved }
    }

    /// Bytes that may be added.
    fn room(&self) -> usize {
        PAGE_BYTES.saturating_sub(self.bytes)
    }

    /// Sends the page and begins the next one.
    async fn turn(&mut self) {
        let replies = std::mem::take(&mut self.replies);
        self.metrics.count(&replies);
        let bytes = self.reserved.keep(std::mem::take(&mut self.bytes));
        self.queue.send(Batch { replies, requests: None, bytes }).await;
        self.reserved = self.queue.reserve(PAGE_BYTES + VALUE_BYTES_MAX).await;
    }

    /// The page as it is; of its room it keeps what it needs.
    fn close(mut self) -> Batch {
        Batch { replies: self.replies, requests: None, bytes: self.reserved.keep(self.bytes) }
    }
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
    /// Once for many replies.
    fn count(&self, replies: &[Reply]) {
        use quorate_proto::kv::reply::Result as Wire;
        let rejected = replies.iter().filter(|reply| matches!(reply.result, Some(Wire::Rejection(_)))).count() as u64;
        let served = replies.len() as u64 - rejected;
        if served > 0 {
            self.served.increment(served);
        }
        if rejected > 0 {
            self.rejected.increment(rejected);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_answered_only_from_the_epoch_that_it_was_routed_by() {
        let check = |client, state| check_epoch(client, state, ShardId(1), None);
        assert_eq!(check(2, 2), Ok(()));
        assert!(matches!(check(2, 0), Err(Rejection::Unavailable { .. })), "not bootstrapped yet here");
        assert!(matches!(check(2, 1), Err(Rejection::Unavailable { .. })), "behind");
        assert_eq!(check(2, 3), Err(Rejection::WrongShard { shard: None }));
    }
}
