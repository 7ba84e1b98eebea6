//! The clients' observations: every operation with the simulated times of its invocation and its
//! return. If the operation took effect, it did so between them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use quorate_types::{Key, ShardId};

/// A written value. Every write has a unique one; 0 means an absent key.
pub(crate) type ValueId = u32;

/// A client's operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Read,
    Put(ValueId),
    Delete,
    /// Writes `new` if the key holds `expected`.
    Swap {
        expected: ValueId,
        new: ValueId,
    },
}

/// The result of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// A read found this value.
    Found(ValueId),
    /// A write was applied, at this revision of the shard.
    Written { version: u64 },
    /// A swap found another value and changed nothing.
    Refused,
    /// The outcome is unknown.
    Unknown,
    /// The operation was not applied and never will be.
    Failed,
}

/// One operation on one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) asked: Asked,
    pub(crate) came: Came,
    pub(crate) invoked: Duration,
    pub(crate) returned: Duration,
}

/// The operations of all clients, by key.
#[derive(Default)]
pub(crate) struct History(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    by_key: BTreeMap<(ShardId, Key), Vec<Operation>>,
    values: ValueId,
    /// The key of each value. An eventual read of a key finds only values written to it.
    written: BTreeMap<ValueId, (ShardId, Key)>,
    counts: [u64; 3],
}

impl History {
    /// A value that was never written before, for this key.
    pub(crate) fn next_value(&self, shard: ShardId, key: &Key) -> ValueId {
        let mut seen = self.seen();
        seen.values += 1;
        let value = seen.values;
        seen.written.insert(value, (shard, key.clone()));
        value
    }

    pub(crate) fn add(&self, shard: ShardId, key: &Key, operation: Operation) {
        let mut seen = self.seen();
        let kind = match operation.came {
            Came::Unknown => 1,
            Came::Failed => 2,
            _ => 0,
        };
        seen.counts[kind] += 1;
        seen.by_key.entry((shard, key.clone())).or_default().push(operation);
    }

    /// True if a client tried to write this value to this key.
    pub(crate) fn was_written(&self, shard: ShardId, key: &Key, value: ValueId) -> bool {
        value == 0 || self.seen().written.get(&value).is_some_and(|at| at.0 == shard && at.1 == *key)
    }

    /// Every key with its operations.
    pub(crate) fn by_key(&self) -> Vec<((ShardId, Key), Vec<Operation>)> {
        self.seen().by_key.iter().map(|(key, operations)| (key.clone(), operations.clone())).collect()
    }

    /// The numbers of operations that were answered, have an unknown outcome, and failed.
    pub(crate) fn counts(&self) -> [u64; 3] {
        self.seen().counts
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("only a broken invariant poisons this lock")
    }
}
