//! Clients: a workload over the product's router, and the record of its operations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_router::{Error, Router};
use quorate_types::{Condition, Key, Mutation, ReadLevel, Record, ShardId, Value, Write};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::history::{Asked, Came, Operation, ValueId};
use crate::world::World;

/// The usual deadline of an operation: enough for several attempts and an election between them.
pub(crate) const DEADLINE: Duration = Duration::from_millis(4_000);
/// The deadlines of impatient operations, in milliseconds: many end amid an attempt or an election.
const IMPATIENT_MS: std::ops::RangeInclusive<u64> = 20..=1_500;
/// The share of impatient operations.
const IMPATIENT: f64 = 0.4;

/// The pause between the reads of a reader, at most, in milliseconds.
const READER_THINK_MS: u64 = 60;
/// The deadlines of a reader, in milliseconds: it soon asks again, another shard perhaps.
const READER_PATIENCE_MS: std::ops::RangeInclusive<u64> = 20..=200;

/// One of a client's workers. It runs one operation at a time.
pub(crate) struct Worker {
    world: Arc<World>,
    /// The client's router, which its workers share.
    router: Router,
    rng: StdRng,
    /// The last known value of each key.
    last_seen: BTreeMap<Key, ValueId>,
}

impl Worker {
    pub(crate) fn new(world: Arc<World>, router: Router, rng: StdRng) -> Self {
        Worker { world, router, rng, last_seen: BTreeMap::new() }
    }

    /// Only reads, impatiently, until it is aborted. A reader that is cut off together with a
    /// deposed leader keeps asking that leader, and must get no answer.
    pub(crate) async fn watch(mut self) {
        loop {
            let think = self.rng.random_range(0..=READER_THINK_MS);
            tokio::time::sleep(Duration::from_millis(think)).await;
            let (shard, key) = self.choose_key();
            let within = Duration::from_millis(self.rng.random_range(READER_PATIENCE_MS));
            self.operate(shard, &key, Asked::Read, within).await;
        }
    }

    fn choose_key(&mut self) -> (ShardId, Key) {
        let place = self.rng.random_range(0..self.world.keys.len());
        let (shard, keys) = self.world.keys.iter().nth(place).expect("the place is below the number of shards");
        (*shard, keys[self.rng.random_range(0..keys.len())].clone())
    }

    /// Reads and writes until it is aborted.
    pub(crate) async fn work(mut self) {
        loop {
            let think = self.rng.random_range(0..=self.world.scenario.think_ms);
            tokio::time::sleep(Duration::from_millis(think)).await;
            let (shard, key) = self.choose_key();
            let asked = match self.rng.random_range(0..100) {
                0..35 => Asked::Put(self.world.history.next_value(shard, &key)),
                35..40 => Asked::Delete,
                40..60 => {
                    let expected = self.last_seen.get(&key).copied().unwrap_or(0);
                    Asked::Swap { expected, new: self.world.history.next_value(shard, &key) }
                }
                60..90 => Asked::Read,
                _ => {
                    // Any replica returns a value that was written to this key.
                    self.read(shard, &key, ReadLevel::Eventual, DEADLINE).await;
                    continue;
                }
            };
            let within = self.deadline();
            self.operate(shard, &key, asked, within).await;
        }
    }

    fn deadline(&mut self) -> Duration {
        if self.rng.random_bool(IMPATIENT) {
            Duration::from_millis(self.rng.random_range(IMPATIENT_MS))
        } else {
            DEADLINE
        }
    }

    /// Runs one operation within that time and records it.
    pub(crate) async fn operate(&mut self, shard: ShardId, key: &Key, asked: Asked, within: Duration) -> Came {
        let invoked = self.world.trace.now();
        // An aborted operation has an unknown outcome.
        let mut record = Recording { world: self.world.clone(), shard, key: key.clone(), asked, invoked, came: None };
        let came = match asked {
            Asked::Read => self.read(shard, key, ReadLevel::Strong, within).await,
            Asked::Put(value) => self.write(key, Mutation::Put(value_of(value)), None, within).await,
            Asked::Delete => self.write(key, Mutation::Delete, None, within).await,
            Asked::Swap { expected, new } => {
                let condition = if expected == 0 { Condition::Absent } else { Condition::Value(value_of(expected)) };
                self.write(key, Mutation::Put(value_of(new)), Some(condition), within).await
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

    async fn write(&self, key: &Key, mutation: Mutation, condition: Option<Condition>, within: Duration) -> Came {
        match self.router.write(Write { key: key.clone(), mutation, condition }, within).await {
            Ok(served) => Came::Written { version: served.value.version },
            Err(Error::Refused { .. }) => Came::Refused,
            Err(error) if error.may_have_applied() => Came::Unknown,
            Err(error) => self.failed(&error),
        }
    }

    async fn read(&self, shard: ShardId, key: &Key, level: ReadLevel, within: Duration) -> Came {
        match self.router.get(key.clone(), level, within).await {
            Ok(served) => self.found(shard, key, served.value),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &Error) -> Came {
        if matches!(error, Error::Invalid { .. }) {
            self.world.violation(format!("a valid operation is refused: {error}"));
        }
        self.world.trace.event(&format!("client: {error}"));
        Came::Failed
    }

    fn found(&self, shard: ShardId, key: &Key, record: Option<Record>) -> Came {
        let id = record.as_ref().map_or(Some(0), |record| id_of(record.value.as_bytes()));
        match id.filter(|id| self.world.history.was_written(shard, key, *id)) {
            Some(id) => Came::Found(id),
            None => {
                self.world.violation(format!("a read of {key:?} found a value that was never written: {record:?}"));
                Came::Failed
            }
        }
    }
}

fn value_of(id: ValueId) -> Value {
    Value::new(format!("value {id}")).expect("it is short")
}

fn id_of(bytes: &[u8]) -> Option<ValueId> {
    std::str::from_utf8(bytes).ok()?.strip_prefix("value ")?.parse().ok()
}

/// An operation in progress. Its drop records it in the history.
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
