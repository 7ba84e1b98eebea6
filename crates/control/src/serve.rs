//! The serving step of a request: shard lookup, epoch check, admission, then the proposal or the
//! read, a page at a time. It knows no wire types; a node's service and the simulation call it.

use std::sync::Arc;
use std::time::Duration;

use quorate_raft::Shard;
use quorate_types::state::Head;
use quorate_types::topology::ShardInfo;
use quorate_types::{
    Command, Key, KvAnswer, KvRequest, Outcome, ReadLevel, Rejection, Role, Served, ServedBy, ShardId,
};
use tokio::time::Instant;
use tracing::{Instrument, debug_span};

use crate::admission::{check_queue, is_admitted_by_full_disk};
use crate::feed::ClusterMap;
use crate::parts::{PendingRead, PendingWrite, Reads, Work, Writes, split};
use crate::plane::Plane;

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's id.
    pub id: u64,
    /// The reply, or why the node did not serve the request.
    pub result: Result<Served<KvAnswer>, Rejection>,
}

/// Serves requests on this node's replicas. Clones serve the same node.
#[derive(Clone)]
pub struct Server {
    plane: Plane,
}

impl Server {
    /// A server of a node.
    pub fn new(plane: Plane) -> Self {
        Server { plane }
    }

    /// Records how long a batch of requests took, for the throttle of snapshots.
    pub fn took(&self, time: Duration) {
        self.plane.foreground.took(time);
    }

    /// Serves a single request.
    pub async fn serve(&self, request: KvRequest) -> Result<Served<KvAnswer>, Rejection> {
        let started = Instant::now();
        let mut answers = Vec::new();
        for part in split([request]) {
            match part.work {
                Work::Write(writes) => answers.extend(self.write(writes).await),
                Work::Strong(reads) => {
                    answers.extend(self.read(ReadLevel::Strong, reads).await.next_page(usize::MAX).answers);
                }
                Work::Eventual(all) => {
                    for reads in all {
                        answers.extend(self.read(ReadLevel::Eventual, reads).await.next_page(usize::MAX).answers);
                    }
                }
            }
        }
        self.took(started.elapsed());
        assert_eq!(answers.len(), 1, "one request has one answer");
        answers.remove(0).result
    }

    /// Serves commands for one shard: one answer for each, in any order.
    pub async fn write(&self, writes: Writes) -> Vec<Answer> {
        let Writes { shard, within, mut requests } = writes;
        let count = requests.len();
        let admitted = self.group(shard).and_then(|group| check_queue(&*self.plane.store.log).map(|()| group));
        let group = match admitted {
            Ok(group) => group,
            Err(rejection) => return requests.iter().map(|write| reject(write.id, &rejection)).collect(),
        };
        let mut answers = Vec::with_capacity(count);
        if let Some(arc) = self.plane.store.feed.latest().as_deref().and_then(|map| RoutedArc::of(map, shard)) {
            let others = requests.extract_if(.., |write| arc.excludes_write(write));
            answers.extend(others.map(|write| reject(write.id, &not_here())));
        }
        if self.plane.host.vitals().disk_full {
            let refused = requests.extract_if(.., |write| !is_admitted_by_full_disk(&write.command));
            answers.extend(refused.map(|write| reject(write.id, &Rejection::DiskFull)));
        }
        if !requests.is_empty() {
            answers.extend(self.propose(&group, shard, within, requests).await);
        }
        assert_eq!(answers.len(), count, "every request has an answer");
        answers
    }

    async fn propose(
        &self,
        group: &Shard,
        shard: ShardId,
        within: Duration,
        requests: Vec<PendingWrite>,
    ) -> Vec<Answer> {
        let (ids, commands): (Vec<u64>, Vec<Command>) =
            requests.into_iter().map(|write| (write.id, write.command)).unzip();
        let node = self.plane.store.identity.node;
        let span = debug_span!("write", %node, %shard, term = group.replica().status().term, commands = ids.len());
        match group.write(commands, within).instrument(span).await {
            Ok(applied) => {
                assert_eq!(applied.outcomes.len(), ids.len(), "every command has an outcome");
                let by = self.served_by(ReadLevel::Strong, Role::Leader, shard, &applied.head);
                let outcomes = ids.into_iter().zip(applied.outcomes);
                outcomes.map(|(id, outcome)| Answer { id, result: served(outcome, by) }).collect()
            }
            Err(rejection) => ids.into_iter().map(|id| reject(id, &rejection)).collect(),
        }
    }

    /// Waits until reads of one shard may be answered at their level. The answers are taken page by
    /// page from the returned [`Reading`].
    pub async fn read(&self, level: ReadLevel, reads: Reads) -> Reading<'_> {
        let Reads { shard, within, mut requests } = reads;
        let group = match self.readable(level, shard, within).await {
            Ok(group) => group,
            Err(rejection) => {
                let answered = requests.iter().map(|read| reject(read.id, &rejection)).collect();
                return Reading { server: self, level, source: None, answered, unread: Unread::default() };
            }
        };
        // After the barrier: the state may have reached a newer epoch during it.
        let map = self.plane.store.feed.latest();
        let mut answered = Vec::new();
        if let Some(arc) = map.as_deref().and_then(|map| RoutedArc::of(map, shard)) {
            let others = requests.extract_if(.., |read| arc.excludes(read.epoch, &read.key));
            answered.extend(others.map(|read| reject(read.id, &not_here())));
        }
        Reading {
            server: self,
            level,
            source: Some(Source { shard, group, map }),
            answered,
            unread: Unread::new(requests),
        }
    }

    /// The shard's replica here, as soon as its state answers reads of the level.
    async fn readable(&self, level: ReadLevel, shard: ShardId, within: Duration) -> Result<Shard, Rejection> {
        let group = self.group(shard)?;
        let node = self.plane.store.identity.node;
        let span = debug_span!("read", %node, %shard, term = group.replica().status().term, %level);
        group.read_barrier(level, within).instrument(span).await?;
        Ok(group)
    }

    /// This node's replica of a shard.
    fn group(&self, shard: ShardId) -> Result<Shard, Rejection> {
        let store = &self.plane.store;
        if let Some(group) = store.shards.get(shard) {
            return Ok(group);
        }
        let map = store.feed.latest();
        let wanted = map.as_ref().and_then(|map| map.shard(shard));
        let is_here = |shard: &ShardInfo| shard.replicas.iter().any(|at| at.node == store.identity.node);
        if wanted.is_some_and(is_here) {
            return Err(Rejection::Unavailable { reason: "the replica is being opened".to_owned() });
        }
        Err(Rejection::WrongShard { shard: wanted.cloned() })
    }

    fn served_by(&self, level: ReadLevel, role: Role, shard: ShardId, head: &Head) -> ServedBy {
        ServedBy {
            level,
            node: self.plane.store.identity.node,
            role,
            shard,
            epoch: head.epoch,
            revision: head.revision,
            applied: head.applied.map_or(0, |applied| applied.index),
        }
    }
}

/// Reads of one shard that may be answered.
///
/// # Invariants
/// * Every request is answered exactly once.
pub struct Reading<'a> {
    server: &'a Server,
    level: ReadLevel,
    /// The replica to read from; none if all requests were rejected.
    source: Option<Source>,
    /// Answers that are known without a read.
    answered: Vec<Answer>,
    unread: Unread,
}

struct Source {
    shard: ShardId,
    group: Shard,
    map: Option<Arc<ClusterMap>>,
}

/// Requests in order. The keys are apart, as one call reads many.
#[derive(Default)]
struct Unread {
    /// The id and epoch of each request.
    requests: Vec<(u64, u64)>,
    keys: Vec<Key>,
    next: usize,
}

impl Unread {
    fn new(reads: Vec<PendingRead>) -> Self {
        let (requests, keys) = reads.into_iter().map(|read| ((read.id, read.epoch), read.key)).unzip();
        Unread { requests, keys, next: 0 }
    }

    fn keys(&self) -> &[Key] {
        &self.keys[self.next..]
    }

    /// Takes the first of the remaining requests.
    fn take(&mut self) -> (u64, u64) {
        self.next += 1;
        self.requests[self.next - 1]
    }
}

/// Answers to reads, and the bytes of the values in them.
#[derive(Debug, Default)]
pub struct Page {
    /// The answers.
    pub answers: Vec<Answer>,
    /// Bytes of values.
    pub bytes: usize,
}

impl Reading<'_> {
    /// Whether all requests are answered.
    pub fn is_done(&self) -> bool {
        self.answered.is_empty() && self.unread.keys().is_empty()
    }

    /// Answers the next requests. Their values have at most `bytes_max` bytes together, but at
    /// least one request is answered.
    pub fn next_page(&mut self, bytes_max: usize) -> Page {
        let mut page = Page { answers: std::mem::take(&mut self.answered), bytes: 0 };
        let Some(source) = self.source.as_ref().filter(|_| !self.unread.keys().is_empty()) else { return page };
        let read = match source.group.read(self.unread.keys(), bytes_max) {
            Ok(read) => read,
            Err(rejection) => {
                while !self.unread.keys().is_empty() {
                    let (id, _) = self.unread.take();
                    page.answers.push(reject(id, &rejection));
                }
                return page;
            }
        };
        assert!(!read.records.is_empty(), "every read makes progress");
        let by = self.server.served_by(self.level, read.role, source.shard, &read.head);
        for record in read.records {
            let (id, epoch) = self.unread.take();
            page.bytes += record.as_ref().map_or(0, |record| record.value.as_bytes().len());
            let checked = check_epoch(epoch, by.epoch, source.shard, source.map.as_deref());
            let result = checked.map(|()| Served { value: KvAnswer::Found(record), by });
            page.answers.push(Answer { id, result });
        }
        page
    }
}

/// A shard's arc as this node's map has it.
struct RoutedArc<'a> {
    info: &'a ShardInfo,
    hash_key: &'a [u8; 16],
}

impl<'a> RoutedArc<'a> {
    fn of(map: &'a ClusterMap, shard: ShardId) -> Option<Self> {
        Some(RoutedArc { info: map.shard(shard)?, hash_key: &map.topology.cluster.hash_key })
    }

    /// Whether a key is outside of the arc although the client knows the arc, by its epoch, as well
    /// as this node does.
    fn excludes(&self, epoch: u64, key: &Key) -> bool {
        epoch == self.info.epoch && !self.info.arc.contains(quorate_ring::token(self.hash_key, key))
    }

    fn excludes_write(&self, write: &PendingWrite) -> bool {
        match &write.command {
            Command::Write { epoch, write, .. } => self.excludes(*epoch, &write.key),
            _ => false,
        }
    }
}

fn served(outcome: Outcome, by: ServedBy) -> Result<Served<KvAnswer>, Rejection> {
    match outcome {
        // Nothing was applied, and the client's map is not to blame.
        Outcome::WrongEpoch { epoch: 0 } => {
            Err(Rejection::Unavailable { reason: "the shard is being bootstrapped".to_owned() })
        }
        outcome => Ok(Served { value: KvAnswer::Outcome(outcome), by }),
    }
}

fn not_here() -> Rejection {
    Rejection::Invalid {
        reason: "the key's token is not in the shard's arc; hash it with the cluster's key".to_owned(),
    }
}

/// Whether a state of epoch `state` may answer a client that routed by epoch `client`.
fn check_epoch(client: u64, state: u64, shard: ShardId, map: Option<&ClusterMap>) -> Result<(), Rejection> {
    if client == state {
        return Ok(());
    }
    if state < client {
        // This replica lags: it has not applied an arc that the client's map has.
        return Err(Rejection::Unavailable { reason: format!("the replica is at epoch {state} of the shard") });
    }
    Err(Rejection::WrongShard { shard: map.and_then(|map| map.shard(shard)).cloned() })
}

fn reject(id: u64, rejection: &Rejection) -> Answer {
    Answer { id, result: Err(rejection.clone()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_answered_only_from_the_epoch_that_it_was_routed_by() {
        let check = |client, state| check_epoch(client, state, ShardId(1), None);
        assert_eq!(check(2, 2), Ok(()));
        assert!(matches!(check(2, 0), Err(Rejection::Unavailable { .. })), "not bootstrapped here yet");
        assert!(matches!(check(2, 1), Err(Rejection::Unavailable { .. })), "behind");
        assert_eq!(check(2, 3), Err(Rejection::WrongShard { shard: None }));
    }
}
