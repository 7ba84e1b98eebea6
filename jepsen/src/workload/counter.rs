//! `counter`: numbers are added to counters by compare-and-set with retries. The final value of a
//! counter is at least the sum of the acknowledged additions, and at most that plus the additions
//! with an unknown outcome.

use futures::future::BoxFuture;
use quorate_client::ReadLevel;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::json;

use super::check::{Done, operations_by_key};
use super::contract::{Finding, Setting, Workload};
use super::op::{Access, Completion, Op};
use super::rotation::Rotation;
use super::{retry, store};
use crate::history::{Action, Event};

/// Operations on a counter before it is replaced.
const OPERATIONS_PER_KEY: u64 = 150;
/// The largest addend.
const ADDED_MAX: u64 = 5;

pub(super) struct Counter {
    keys: Rotation,
}

impl Counter {
    pub(super) fn new(setting: &Setting<'_>) -> Self {
        Counter { keys: Rotation::new("counter", setting, OPERATIONS_PER_KEY) }
    }
}

impl Workload for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }

    fn plan(&self, n: u64, rng: &mut StdRng) -> Op {
        let key = self.keys.key(rng.random_range(0..self.keys.slots), n);
        let add = rng.random_ratio(7, 10);
        let by = rng.random_range(1..=ADDED_MAX);
        if add { Op::new(Action::Add, key, by) } else { Op::read(key, ReadLevel::Strong) }
    }

    fn perform(&self, access: Access, op: Op) -> BoxFuture<'_, Completion> {
        Box::pin(async move {
            if op.f == Action::Read {
                return from_zero(store::perform(access, op).await);
            }
            let by = op.value.as_u64().unwrap_or_default();
            let sum =
                |before: Option<&[u8]>| json!(before.and_then(|bytes| store::decode(bytes).as_u64()).unwrap_or(0) + by);
            retry::update(&access, &op.key, &op.value, sum).await
        })
    }

    fn model(&self) -> Option<&'static str> {
        Some("counter")
    }

    fn is_replayable(&self) -> bool {
        // An event of an addition has the addend, not the resulting value.
        false
    }

    fn finals(&self, planned: u64) -> Vec<Op> {
        self.keys.all(planned).map(|key| Op::read(key, ReadLevel::Strong)).collect()
    }

    fn check(&self, events: &[Event]) -> Vec<Finding> {
        operations_by_key(events).iter().filter_map(|(key, operations)| check_counter(key, operations)).collect()
    }
}

/// Converts the value of a read: an absent counter is 0.
fn from_zero(read: Completion) -> Completion {
    let value = if read.value.is_null() && read.error.is_none() { json!(0) } else { read.value.clone() };
    Completion { value, ..read }
}

/// Checks the last read of a counter, if it began after all acknowledged additions.
fn check_counter(key: &str, operations: &[Done<'_>]) -> Option<Finding> {
    let additions = || operations.iter().filter(|done| done.invoke.f == Action::Add);
    let sum = |which: &dyn Fn(&Done<'_>) -> bool| -> u64 {
        additions().filter(|done| which(done)).filter_map(|done| done.invoke.value.as_u64()).sum()
    };
    let last = operations.iter().rfind(|done| done.is_read(false))?;
    let settled = additions().filter(|done| done.is_acknowledged()).all(|done| done.end() < last.invoke.time);
    let (least, most) = (sum(&|done| done.is_acknowledged()), sum(&|done| done.may_have_applied()));
    let held = last.result().as_u64();
    let right = !settled || held.is_some_and(|held| (least..=most).contains(&held));
    (!right).then(|| Finding {
        what: format!(
            "{key} is {} at the end; acknowledged additions are {least}, with unknown ones {most}",
            last.result()
        ),
        events: last.events(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn event(index: u64, process: u64, kind: &str, f: &str, value: Value) -> Event {
        let event = json!({"index": index, "time": index, "process": process, "type": kind, "f": f, "key": "c", "value": value});
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn counter_ends_between_acknowledged_and_possible_sums() {
        let ends = |held: u64| {
            let history = [
                event(0, 0, "invoke", "add", json!(3)),
                event(1, 0, "ok", "add", json!(3)),
                event(2, 0, "invoke", "add", json!(4)),
                event(3, 0, "info", "add", Value::Null),
                event(4, 1, "invoke", "read", Value::Null),
                event(5, 1, "ok", "read", json!(held)),
            ];
            operations_by_key(&history).iter().find_map(|(key, operations)| check_counter(key, operations))
        };
        assert_eq!(ends(3), None);
        assert_eq!(ends(7), None);
        assert!(ends(2).unwrap().what.contains("is 2"));
        assert!(ends(10).is_some(), "an addition counted twice");
    }
}
