//! `set`: a set of elements with one key each, written once and never changed. No acknowledged
//! element may be missing.
//!
//! One key per element spreads the elements over all shards, and an addition costs the same at the
//! end of a long run as at its beginning. `append` has many elements in one key.

use quorate_client::ReadLevel;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::json;

use super::check::operations_by_key;
use super::contract::{Finding, Setting, Workload};
use super::op::Op;
use crate::history::{Action, Event};

/// A read chooses one of this many latest elements, so that both old and new elements are read.
const READ_BACK: u64 = 2_000;

pub(super) struct Set {
    prefix: String,
}

impl Set {
    pub(super) fn new(setting: &Setting<'_>) -> Self {
        Set { prefix: setting.prefix.to_owned() }
    }

    fn key(&self, element: u64) -> String {
        format!("set/{}{element}", self.prefix)
    }
}

impl Workload for Set {
    fn name(&self) -> &'static str {
        "set"
    }

    fn plan(&self, n: u64, rng: &mut StdRng) -> Op {
        let back = rng.random_range(0..READ_BACK).min(n);
        match rng.random_range(0..10) {
            0..7 => Op::new(Action::Cas, self.key(n), json!([null, n])),
            7..9 => Op::read(self.key(n - back), ReadLevel::Strong),
            _ => Op::read(self.key(n - back), ReadLevel::Eventual),
        }
    }

    fn model(&self) -> Option<&'static str> {
        Some("kv-version")
    }

    fn finals(&self, planned: u64) -> Vec<Op> {
        (0..planned).map(|element| Op::read(self.key(element), ReadLevel::Strong)).collect()
    }

    fn check(&self, events: &[Event]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (key, operations) in operations_by_key(events) {
            let Some(add) = operations.iter().find(|done| done.invoke.f == Action::Cas) else { continue };
            if add.completion.is_some_and(|completion| completion.refused) {
                let what = format!("{key} was refused as present, but no other operation writes it");
                findings.push(Finding { what, events: add.events() });
            }
            let missing = operations.iter().filter(|done| {
                done.is_read(false) && add.is_acknowledged() && done.invoke.time > add.end() && done.result().is_null()
            });
            for read in missing {
                let what = format!("{key} is missing after it was acknowledged");
                findings.push(Finding { what, events: [add.events(), read.events()].concat() });
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn event(index: u64, kind: &str, f: &str, value: Value) -> Event {
        let event =
            json!({"index": index, "time": index, "process": 0, "type": kind, "f": f, "key": "set/5", "value": value});
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn missing_acknowledged_element_is_found() {
        let history = |added: &str, read: Value| {
            let events = [
                event(0, "invoke", "cas", json!([null, 5])),
                event(1, added, "cas", Value::Null),
                event(2, "invoke", "read", Value::Null),
                event(3, "ok", "read", read),
            ];
            Set { prefix: String::new() }.check(&events)
        };
        assert_eq!(history("ok", json!(5)), vec![]);
        assert_eq!(history("info", Value::Null), vec![]);
        assert!(history("ok", Value::Null)[0].what.contains("missing"));
    }
}
