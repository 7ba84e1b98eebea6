//! Generates histories of a correct store from a seed, for tests and for measuring the checker.
//!
//! Each step of the generator advances one process: it begins an operation, lets it take effect, or
//! returns. Some operations return with an unknown outcome; a third of those never happen, a third
//! have already happened, and a third happen later. Only a few keys are in use at a time, so that
//! processes contend for them.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use super::event::{Action, Event, EventKind};

/// The workload's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads, writes and compare-and-sets.
    Register,
    /// Like `Register`, plus compare-and-sets by version, deletions and eventual reads.
    KvVersion,
    /// Additions of 1 to 5, and reads.
    Counter,
    /// Additions of elements, and reads of the whole set.
    Set,
}

/// Parameters of a generated history.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The workload's operations.
    pub kind: Kind,
    /// Number of operations.
    pub operations: u64,
    /// Number of keys.
    pub keys: u64,
    /// Number of keys in use at a time.
    pub keys_in_use: u64,
    /// Maximum number of concurrently open operations.
    pub processes: u64,
    /// Share of operations with an unknown outcome, 0 to 1.
    pub unknown: f64,
    /// Number of shards that hold the keys.
    pub shards: u64,
    /// Number of distinct written values; 0 writes every value once.
    pub values: u64,
    /// The seed.
    pub seed: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            kind: Kind::Register,
            operations: 100_000,
            keys: 200,
            keys_in_use: 5,
            processes: 25,
            unknown: 0.05,
            shards: 8,
            values: 0,
            seed: 1,
        }
    }
}

/// Maximum staleness of an eventual read, in states of its key.
const OLD_STATES: usize = 8;

/// The states of one key, oldest first: the revision that created the state, the record's version,
/// and the value.
#[derive(Clone)]
struct Key {
    states: VecDeque<(u64, u64, Value)>,
}

struct Open {
    action: Action,
    key: u64,
    argument: Value,
    eventual: bool,
    /// The completion event, once the operation has taken effect.
    answer: Option<Event>,
}

/// Iterator over the events of a correct store; it ends after the shape's number of operations.
pub struct Generator {
    shape: Shape,
    rng: StdRng,
    processes: Vec<(u64, Option<Open>)>,
    keys: Vec<Key>,
    /// Revision of each shard.
    revisions: Vec<u64>,
    /// Operations with an unknown outcome that will still take effect.
    late: Vec<Open>,
    begun: u64,
    index: u64,
    next_process: u64,
}

impl Generator {
    /// Creates a generator of histories with this shape.
    pub fn new(shape: Shape) -> Self {
        let shape = Shape {
            keys: shape.keys.max(1),
            keys_in_use: shape.keys_in_use.clamp(1, shape.keys.max(1)),
            processes: shape.processes.max(1),
            shards: shape.shards.max(1),
            ..shape
        };
        let empty = Key { states: VecDeque::from([(0, 0, Value::Null)]) };
        Generator {
            rng: StdRng::seed_from_u64(shape.seed),
            processes: (0..shape.processes).map(|process| (process, None)).collect(),
            keys: (0..shape.keys).map(|_| empty.clone()).collect(),
            revisions: (0..shape.shards).map(|_| 0).collect(),
            late: Vec::new(),
            begun: 0,
            index: 0,
            next_process: shape.processes,
            shape,
        }
    }

    fn begin(&mut self) -> Open {
        let Shape { kind, operations, keys, keys_in_use, values, .. } = self.shape;
        let first = self.begun * (keys - keys_in_use + 1) / operations.max(1);
        let key = first.min(keys - keys_in_use) + self.rng.random_range(0..keys_in_use);
        self.begun += 1;
        let value = if values == 0 { self.begun } else { self.rng.random_range(0..values) };
        let (_, version, held) = self.keys[slot(key)].states.back().cloned().unwrap_or_default();
        let (action, argument) = match (kind, self.rng.random_range(0..100)) {
            (Kind::Counter, 0..70) => (Action::Add, json!(self.rng.random_range(1..=5))),
            (Kind::Set, 0..70) => (Action::Add, json!(self.begun)),
            (Kind::Counter | Kind::Set, _) | (_, 0..50) => (Action::Read, Value::Null),
            (_, 50..80) => (Action::Write, json!(value)),
            (Kind::KvVersion, 80..85) => (Action::Delete, Value::Null),
            (Kind::KvVersion, 85..93) => {
                let expected = if self.rng.random_ratio(7, 10) { version } else { version / 2 };
                (Action::CasVersion, json!([expected, value]))
            }
            _ => {
                let expected = if self.rng.random_ratio(7, 10) { held } else { json!(value / 2) };
                (Action::Cas, json!([expected, value]))
            }
        };
        let eventual = kind == Kind::KvVersion && action == Action::Read && self.rng.random_ratio(1, 4);
        Open { action, key, argument, eventual, answer: None }
    }

    /// Applies the operation to the keys and returns its completion event.
    fn take_effect(&mut self, process: u64, open: &Open) -> Event {
        let shard = open.key % self.shape.shards;
        let mut revision = self.revisions[slot(shard)];
        let mut answer = Event::new(process, EventKind::Ok, open.action, open.argument.clone());
        let states = &mut self.keys[slot(open.key)].states;
        let (_, version, held) = states.back().cloned().unwrap_or_default();
        let (expected, new) = (open.argument.get(0), open.argument.get(1));
        let made = match open.action {
            Action::Write => Some(open.argument.clone()),
            Action::Delete => Some(Value::Null),
            Action::Add if self.shape.kind == Kind::Set => {
                let mut elements = held.as_array().cloned().unwrap_or_default();
                elements.push(open.argument.clone());
                Some(Value::Array(elements))
            }
            Action::Add => Some(json!(held.as_i64().unwrap_or(0) + open.argument.as_i64().unwrap_or(0))),
            Action::Cas => new.filter(|_| expected == Some(&held)).cloned(),
            Action::CasVersion => new.filter(|_| expected.and_then(Value::as_u64) == Some(version)).cloned(),
            _ => None,
        };
        if let Some(value) = made {
            revision += 1;
            self.revisions[slot(shard)] = revision;
            states.push_back((revision, if value.is_null() { 0 } else { revision }, value));
            if states.len() > OLD_STATES {
                states.pop_front();
            }
            answer.version = Some(revision);
        } else if open.action == Action::Read {
            let mut seen = states.len() - 1;
            if open.eventual {
                seen = self.rng.random_range(0..states.len());
                // The last revision that had this state, unless the state is the newest.
                revision = states.get(seen + 1).map_or(revision, |(next, ..)| next - 1);
                answer.level = Some("eventual".to_owned());
            }
            let (_, version, value) = states[seen].clone();
            answer.value = value;
            answer.version = Some(version);
        } else {
            answer.refused = true;
            answer.found = Some(held);
            answer.version = Some(version);
        }
        answer.key = Some(name(open.key));
        answer.shard = Some(shard);
        answer.revision = Some(revision);
        answer.log_index = Some(revision + 1);
        answer
    }

    fn emit(&mut self, mut event: Event) -> Option<Event> {
        event.index = self.index;
        event.time = self.index * 1_000;
        self.index += 1;
        Some(event)
    }
}

fn slot(number: u64) -> usize {
    usize::try_from(number).expect("keys and shards are counted in memory")
}

fn name(key: u64) -> String {
    format!("k{key}")
}

impl Iterator for Generator {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            if !self.late.is_empty() && self.rng.random_ratio(1, 50) {
                let chosen = self.rng.random_range(0..self.late.len());
                let open = self.late.swap_remove(chosen);
                self.take_effect(0, &open);
            }
            let chosen = self.rng.random_range(0..self.processes.len());
            let (process, open) = (self.processes[chosen].0, self.processes[chosen].1.take());
            let Some(mut open) = open else {
                if self.begun == self.shape.operations {
                    if self.processes.iter().all(|(_, open)| open.is_none()) {
                        return None;
                    }
                    continue;
                }
                let open = self.begin();
                let mut event = Event::new(process, EventKind::Invoke, open.action, open.argument.clone());
                event.key = Some(name(open.key));
                event.level = open.eventual.then(|| "eventual".to_owned());
                self.processes[chosen].1 = Some(open);
                return self.emit(event);
            };
            if let Some(answer) = open.answer {
                return self.emit(answer);
            }
            if !self.rng.random_bool(self.shape.unknown.clamp(0.0, 1.0)) {
                open.answer = Some(self.take_effect(process, &open));
                self.processes[chosen].1 = Some(open);
                continue;
            }
            let mut event = Event::new(process, EventKind::Info, open.action, Value::Null);
            event.key = Some(name(open.key));
            event.error = Some("no answer".to_owned());
            match self.rng.random_range(0..3) {
                0 => {}
                1 => drop(self.take_effect(process, &open)),
                _ => self.late.push(open),
            }
            // A process whose outcome is unknown is not used again.
            self.processes[chosen].0 = self.next_process;
            self.next_process += 1;
            return self.emit(event);
        }
    }
}
