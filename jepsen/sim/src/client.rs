//! Clients: they write and read as the router does, with sessions, redirects and retries, and record what they saw.
//!
//! A client reaches a node after a delay and hears from it after another one, if neither way is lost; the node goes on with what
//! it was asked for whether or not anybody still waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_types::{
    Command, Condition, Key, Mutation, NodeId, Outcome, ReadLevel, Rejection, SessionId, SessionStamp, ShardId, Value,
    Write,
};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::defect::Defect;
use crate::history::{Asked, Came, Operation, ValueId};
use crate::member::Member;
use crate::world::World;

/// How long a client tries.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// How long it waits for one node.
const TRY_TIMEOUT: Duration = Duration::from_millis(700);
/// The arc epoch: no arc changes here.
const EPOCH: u64 = 1;

/// The sessions of one client. Its workers share them.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<ShardId, Session>>);

struct Session {
    id: SessionId,
    next: u64,
    outstanding: BTreeSet<u64>,
}

impl Sessions {
    fn stamp(&self, shard: ShardId) -> Option<SessionStamp> {
        let mut sessions = self.0.lock().expect("nobody panics while holding this lock");
        let session = sessions.get_mut(&shard)?;
        session.next += 1;
        session.outstanding.insert(session.next);
        let lowest = *session.outstanding.first().expect("one was just added");
        Some(SessionStamp { session: session.id, sequence: session.next, lowest })
    }

    fn done(&self, shard: ShardId, stamp: SessionStamp) {
        let mut sessions = self.0.lock().expect("nobody panics while holding this lock");
        if let Some(session) = sessions.get_mut(&shard).filter(|session| session.id == stamp.session) {
            session.outstanding.remove(&stamp.sequence);
        }
    }

    fn opened(&self, shard: ShardId, id: SessionId) {
        let session = Session { id, next: 0, outstanding: BTreeSet::new() };
        self.0.lock().expect("nobody panics while holding this lock").insert(shard, session);
    }

    fn forget(&self, shard: ShardId, id: SessionId) {
        let mut sessions = self.0.lock().expect("nobody panics while holding this lock");
        if sessions.get(&shard).is_some_and(|session| session.id == id) {
            sessions.remove(&shard);
        }
    }
}

/// Asks a node for something.
#[derive(Clone)]
enum Request {
    Write(Command),
    Read(Key, ReadLevel),
}

enum Reply {
    Outcome(Outcome),
    Found(Option<Vec<u8>>),
}

/// Why there is no reply.
enum NoReply {
    /// The node said why.
    Rejected(Rejection),
    /// Nobody answered: the request or its answer was lost, or takes too long.
    Lost,
}

/// One of a client's workers: it does one thing after the other.
pub(crate) struct Worker {
    pub(crate) world: Arc<World>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) rng: StdRng,
    /// Who led each shard when it was last asked.
    pub(crate) leaders: BTreeMap<ShardId, NodeId>,
    /// What each key held when it was last read or written.
    pub(crate) last_seen: BTreeMap<Key, ValueId>,
}

impl Worker {
    pub(crate) fn new(world: Arc<World>, sessions: Arc<Sessions>, rng: StdRng) -> Self {
        Worker { world, sessions, rng, leaders: BTreeMap::new(), last_seen: BTreeMap::new() }
    }

    /// Reads and writes until it is aborted.
    pub(crate) async fn work(mut self) {
        let shards: Vec<ShardId> = self.world.keys.keys().copied().collect();
        loop {
            let think = self.rng.random_range(0..=self.world.scenario.think_ms);
            tokio::time::sleep(Duration::from_millis(think)).await;
            let shard = shards[self.rng.random_range(0..shards.len())];
            let keys = &self.world.keys[&shard];
            let key = keys[self.rng.random_range(0..keys.len())].clone();
            let asked = match self.rng.random_range(0..100) {
                0..35 => Asked::Put(self.world.history.next_value(shard, &key)),
                35..40 => Asked::Delete,
                40..60 => {
                    let expected = self.last_seen.get(&key).copied().unwrap_or(0);
                    Asked::Swap { expected, new: self.world.history.next_value(shard, &key) }
                }
                60..90 => Asked::Read,
                _ => {
                    self.read_eventual(shard, &key).await;
                    continue;
                }
            };
            self.operate(shard, &key, asked).await;
        }
    }

    /// Does one operation and records it.
    pub(crate) async fn operate(&mut self, shard: ShardId, key: &Key, asked: Asked) -> Came {
        let invoked = self.world.trace.now();
        // Whoever is aborted in the middle has left an unknown outcome.
        let mut record = Recording { world: self.world.clone(), shard, key: key.clone(), asked, invoked, came: None };
        let came = match asked {
            Asked::Read => self.read_strong(shard, key).await,
            Asked::Put(value) => self.write(shard, key, Mutation::Put(value_of(value)), None).await,
            Asked::Delete => self.write(shard, key, Mutation::Delete, None).await,
            Asked::Swap { expected, new } => {
                let condition = if expected == 0 { Condition::Absent } else { Condition::Value(value_of(expected)) };
                self.write(shard, key, Mutation::Put(value_of(new)), Some(condition)).await
            }
        };
        record.came = Some(came);
        match (asked, came) {
            (_, Came::Found(value)) | (Asked::Put(value), Came::Written { .. }) => {
                self.last_seen.insert(key.clone(), value);
            }
            (Asked::Swap { new, .. }, Came::Written { .. }) => {
                self.last_seen.insert(key.clone(), new);
            }
            _ => {
                self.last_seen.remove(key);
            }
        }
        self.world.trace.event(&format!("client: {key:?} {asked:?} -> {came:?}"));
        came
    }

    async fn write(&mut self, shard: ShardId, key: &Key, mutation: Mutation, condition: Option<Condition>) -> Came {
        let deadline = Instant::now() + PATIENCE;
        let Some(mut stamp) = self.stamp(shard, deadline).await else { return Came::Failed };
        let mut uncertain = false;
        let came = loop {
            if Instant::now() >= deadline {
                break if uncertain { Came::Unknown } else { Came::Failed };
            }
            let write = Write { key: key.clone(), mutation: mutation.clone(), condition: condition.clone() };
            let command = Command::Write { epoch: EPOCH, stamp, write };
            match self.ask_leader(shard, Request::Write(command)).await {
                Ok(Reply::Outcome(Outcome::Written { version, .. })) => break Came::Written { version },
                Ok(Reply::Outcome(Outcome::Refused { .. })) => break Came::Refused,
                Ok(Reply::Outcome(Outcome::SessionUnknown)) => {
                    self.sessions.forget(shard, stamp.session);
                    break if uncertain { Came::Unknown } else { Came::Failed };
                }
                Ok(_) => break if uncertain { Came::Unknown } else { Came::Failed },
                Err(NoReply::Lost) | Err(NoReply::Rejected(Rejection::Unknown { .. })) => {
                    uncertain = true;
                    if self.world.defect == Some(Defect::SessionsOff) {
                        self.sessions.done(shard, stamp);
                        let Some(fresh) = self.stamp(shard, deadline).await else { return Came::Unknown };
                        stamp = fresh;
                    }
                    self.pause(1, 20).await;
                }
                Err(NoReply::Rejected(_)) => self.pause(1, 40).await,
            }
        };
        self.sessions.done(shard, stamp);
        came
    }

    /// A stamp of this client's session in the shard, which is opened where there is none.
    async fn stamp(&mut self, shard: ShardId, deadline: Instant) -> Option<SessionStamp> {
        loop {
            if let Some(stamp) = self.sessions.stamp(shard) {
                return Some(stamp);
            }
            if Instant::now() >= deadline {
                return None;
            }
            let open = Request::Write(Command::OpenSession { epoch: EPOCH });
            match self.ask_leader(shard, open).await {
                Ok(Reply::Outcome(Outcome::SessionOpened { session })) => self.sessions.opened(shard, session),
                _ => self.pause(1, 40).await,
            }
        }
    }

    async fn read_strong(&mut self, shard: ShardId, key: &Key) -> Came {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.ask_leader(shard, Request::Read(key.clone(), ReadLevel::Strong)).await {
                Ok(Reply::Found(value)) => return self.found(shard, key, value),
                _ => self.pause(1, 40).await,
            }
        }
        Came::Failed
    }

    /// What any replica holds: something that was written to this key, and nothing else.
    async fn read_eventual(&mut self, shard: ShardId, key: &Key) {
        let ids = self.world.node_ids();
        let node = ids[self.rng.random_range(0..ids.len())];
        if let Ok(Reply::Found(value)) = self.ask(node, shard, Request::Read(key.clone(), ReadLevel::Eventual)).await {
            self.found(shard, key, value);
        }
    }

    fn found(&self, shard: ShardId, key: &Key, value: Option<Vec<u8>>) -> Came {
        let id = value.as_deref().map_or(Some(0), id_of);
        match id.filter(|id| self.world.history.was_written(shard, key, *id)) {
            Some(id) => Came::Found(id),
            None => {
                self.world.violation(format!("a read of {key:?} found what nobody wrote: {value:?}"));
                Came::Failed
            }
        }
    }

    async fn pause(&mut self, least_ms: u64, most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(least_ms..=most_ms))).await;
    }

    /// Asks whoever led when it was last heard, or anybody.
    async fn ask_leader(&mut self, shard: ShardId, request: Request) -> Result<Reply, NoReply> {
        let node = match self.leaders.get(&shard) {
            Some(leader) => *leader,
            None => {
                let ids = self.world.node_ids();
                ids[self.rng.random_range(0..ids.len())]
            }
        };
        let reply = self.ask(node, shard, request).await;
        match &reply {
            Ok(_) => {
                self.leaders.insert(shard, node);
            }
            Err(NoReply::Rejected(Rejection::NotLeader { leader: Some(leader) })) if *leader != node => {
                self.leaders.insert(shard, *leader);
            }
            Err(_) => {
                self.leaders.remove(&shard);
            }
        }
        reply
    }

    /// Asks one node, over a network that may lose the question or the answer.
    async fn ask(&mut self, node: NodeId, shard: ShardId, request: Request) -> Result<Reply, NoReply> {
        let (least, most) = self.world.scenario.latency_us;
        let lost = |rng: &mut StdRng, world: &World| rng.random_range(0..20_000) < world.scenario.losses;
        let (there, back) = (self.rng.random_range(least..=most), self.rng.random_range(least..=most));
        let (lost_there, lost_back) = (lost(&mut self.rng, &self.world), lost(&mut self.rng, &self.world));
        let until = Instant::now() + TRY_TIMEOUT;
        tokio::time::sleep(Duration::from_micros(there)).await;
        let Some((member, group)) = self.world.replica(node, shard).filter(|_| !lost_there) else {
            if lost_there {
                tokio::time::sleep_until(until).await;
                return Err(NoReply::Lost);
            }
            return Err(NoReply::Rejected(Rejection::WrongShard { shard: None }));
        };
        let stale_reads = self.world.defect == Some(Defect::StrongReadWithoutQuorum);
        let life = member.life.clone();
        let answer = tokio::spawn(async move { serve(&member, &group, request, stale_reads).await });
        let answer = tokio::time::timeout_at(until, answer).await;
        tokio::time::sleep(Duration::from_micros(back)).await;
        match answer {
            Ok(Ok(answer)) if life.is_alive() && !lost_back => answer.map_err(NoReply::Rejected),
            Ok(_) => {
                tokio::time::sleep_until(until).await;
                Err(NoReply::Lost)
            }
            Err(_late) => Err(NoReply::Lost),
        }
    }
}

/// What a node does with a request.
async fn serve(
    _member: &Member,
    group: &quorate_raft::Shard,
    request: Request,
    stale_reads: bool,
) -> Result<Reply, Rejection> {
    match request {
        Request::Write(command) => {
            let applied = group.write(vec![command], TRY_TIMEOUT).await?;
            Ok(Reply::Outcome(applied.outcomes.into_iter().next().expect("one outcome a command")))
        }
        Request::Read(key, level) => {
            if !(stale_reads && level == ReadLevel::Strong && group.replica().is_leader()) {
                group.read_barrier(level, TRY_TIMEOUT).await?;
            }
            let read = group.read(&[key], usize::MAX)?;
            let record = read.records.into_iter().next().expect("one record a key");
            Ok(Reply::Found(record.map(|record| record.value.as_bytes().to_vec())))
        }
    }
}

fn value_of(id: ValueId) -> Value {
    Value::new(format!("value {id}")).expect("it is short")
}

fn id_of(bytes: &[u8]) -> Option<ValueId> {
    std::str::from_utf8(bytes).ok()?.strip_prefix("value ")?.parse().ok()
}

/// An operation that is under way; it is recorded when this is dropped, however that comes.
struct Recording {
    world: Arc<World>,
    shard: ShardId,
    key: Key,
    asked: Asked,
    invoked: Duration,
    came: Option<Came>,
}

impl Drop for Recording {
    fn drop(&mut self) {
        let operation = Operation {
            asked: self.asked,
            came: self.came.unwrap_or(Came::Unknown),
            invoked: self.invoked,
            returned: self.world.trace.now(),
        };
        self.world.history.add(self.shard, &self.key, operation);
    }
}
