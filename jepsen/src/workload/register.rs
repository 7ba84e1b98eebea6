//! `register`: reads, writes and compare-and-sets of single keys. Every written value is unique.
//! Strong operations are checked for linearizability, eventual reads for returning a value that was
//! written.

use std::collections::HashMap;
use std::sync::Mutex;

use quorate_client::ReadLevel;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::contract::{Setting, Workload};
use super::op::{Completion, Op};
use super::rotation::Rotation;
use crate::history::{Action, EventKind};

/// Operations on a key before it is replaced: enough for many interleavings, few enough for the
/// search.
const OPERATIONS_PER_KEY: u64 = 150;
/// The most remembered keys. Conditional writes use them; without them, the writes fail more often.
const SEEN_MAX: usize = 10_000;

/// The last value and version of each key in any completion.
type Seen = HashMap<String, (Value, u64)>;

pub(super) struct Register {
    keys: Rotation,
    seen: Mutex<Seen>,
}

impl Register {
    pub(super) fn new(setting: &Setting<'_>) -> Self {
        let keys = Rotation::new("register", setting, OPERATIONS_PER_KEY);
        Register { keys, seen: Mutex::default() }
    }

    fn seen(&self, key: &str) -> (Value, u64) {
        let seen = self.seen.lock().expect("only a broken invariant poisons this lock");
        seen.get(key).cloned().unwrap_or((Value::Null, 0))
    }
}

impl Workload for Register {
    fn name(&self) -> &'static str {
        "register"
    }

    fn plan(&self, n: u64, rng: &mut StdRng) -> Op {
        let key = self.keys.key(rng.random_range(0..self.keys.slots), n);
        match rng.random_range(0..100) {
            0..36 => Op::read(key, ReadLevel::Strong),
            36..48 => Op::read(key, ReadLevel::Eventual),
            48..78 => Op::new(Action::Write, key, n),
            78..88 => {
                let (value, _) = self.seen(&key);
                Op::new(Action::Cas, key, json!([value, n]))
            }
            88..97 => {
                let (_, version) = self.seen(&key);
                Op::new(Action::CasVersion, key, json!([version, n]))
            }
            _ => Op::new(Action::Delete, key, Value::Null),
        }
    }

    fn observe(&self, op: &Op, completion: &Completion) {
        if completion.kind != EventKind::Ok {
            return;
        }
        let version = completion.version.unwrap_or(0);
        let value = match (op.f, completion.refused) {
            (_, true) => completion.found.clone().unwrap_or(Value::Null),
            (Action::Read, _) => completion.value.clone(),
            (Action::Write, _) => op.value.clone(),
            (Action::Cas | Action::CasVersion, _) => op.value.get(1).cloned().unwrap_or(Value::Null),
            _ => Value::Null,
        };
        let mut seen = self.seen.lock().expect("only a broken invariant poisons this lock");
        if seen.len() >= SEEN_MAX {
            seen.clear();
        }
        seen.insert(op.key.clone(), (value, version));
    }

    fn model(&self) -> Option<&'static str> {
        Some("kv-version")
    }

    fn finals(&self, planned: u64) -> Vec<Op> {
        self.keys.all(planned).map(|key| Op::read(key, ReadLevel::Strong)).collect()
    }
}
