//! `append`: elements are appended to lists by compare-and-set with retries. A list contains an
//! acknowledged element exactly once, an element with an unknown outcome at most once, and a failed
//! element never. Lost writes and retries that are applied twice violate this.

use std::collections::HashMap;

use futures::future::BoxFuture;
use quorate_client::ReadLevel;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::check::{Done, operations_by_key};
use super::contract::{Finding, Setting, Workload};
use super::op::{Access, Completion, Op};
use super::rotation::Rotation;
use super::{retry, store};
use crate::history::{Action, Event};

/// Operations on a list before it is replaced. Every append sends the whole list, so lists must
/// stay short.
const OPERATIONS_PER_KEY: u64 = 150;

pub(super) struct Append {
    keys: Rotation,
}

impl Append {
    pub(super) fn new(setting: &Setting<'_>) -> Self {
        Append { keys: Rotation::new("append", setting, OPERATIONS_PER_KEY) }
    }
}

impl Workload for Append {
    fn name(&self) -> &'static str {
        "append"
    }

    fn plan(&self, n: u64, rng: &mut StdRng) -> Op {
        let key = self.keys.key(rng.random_range(0..self.keys.slots), n);
        // Every element ends with a comma, so that a list is the concatenation of its elements.
        let append = rng.random_ratio(7, 10);
        if append { Op::new(Action::Append, key, format!("{n},")) } else { Op::read(key, ReadLevel::Strong) }
    }

    fn perform(&self, access: Access, op: Op) -> BoxFuture<'_, Completion> {
        Box::pin(async move {
            if op.f == Action::Read {
                return as_list(store::perform(access, op).await);
            }
            let element = op.value.as_str().unwrap_or_default().to_owned();
            let longer =
                |list: Option<&[u8]>| json!(String::from_utf8_lossy(list.unwrap_or_default()).into_owned() + &element);
            retry::update(&access, &op.key, &op.value, longer).await
        })
    }

    fn model(&self) -> Option<&'static str> {
        Some("kv")
    }

    fn finals(&self, planned: u64) -> Vec<Op> {
        self.keys.all(planned).map(|key| Op::read(key, ReadLevel::Strong)).collect()
    }

    fn check(&self, events: &[Event]) -> Vec<Finding> {
        operations_by_key(events).iter().flat_map(|(key, operations)| check_list(key, operations)).collect()
    }
}

/// Converts the value of a read to text: a list of one element looks like a number.
fn as_list(read: Completion) -> Completion {
    let value = match &read.value {
        Value::Number(number) => json!(number.to_string()),
        other => other.clone(),
    };
    Completion { value, ..read }
}

/// Compares every read of a list with the appends to it.
fn check_list(key: &str, operations: &[Done<'_>]) -> Vec<Finding> {
    let appends: HashMap<&str, &Done<'_>> = operations
        .iter()
        .filter(|done| done.invoke.f == Action::Append)
        .filter_map(|done| Some((done.invoke.value.as_str()?.trim_end_matches(','), done)))
        .collect();
    let mut findings = Vec::new();
    let mut found = |what: String, events: Vec<u64>| findings.push(Finding { what, events });
    for read in operations.iter().filter(|done| done.is_read(false)) {
        let list = read.result().as_str().unwrap_or_default();
        let mut times: HashMap<&str, u32> = HashMap::new();
        for element in list.split(',').filter(|element| !element.is_empty()) {
            *times.entry(element).or_default() += 1;
        }
        for (element, times) in &times {
            let events =
                || [appends.get(element).map(|done| done.events()).unwrap_or_default(), read.events()].concat();
            match appends.get(element) {
                None => found(format!("{key} contains {element}, which no operation appended"), events()),
                Some(append) if append.has_failed() => {
                    found(format!("{key} contains {element}, whose append failed"), events());
                }
                Some(_) if *times > 1 => found(format!("{key} contains {element} {times} times"), events()),
                Some(_) => {}
            }
        }
        let lost = appends.iter().filter(|(element, append)| {
            append.is_acknowledged() && append.end() < read.invoke.time && !times.contains_key(*element)
        });
        for (element, append) in lost {
            found(format!("{key} lost {element}, which was acknowledged"), [append.events(), read.events()].concat());
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(index: u64, process: u64, kind: &str, f: &str, value: Value) -> Event {
        let event = json!({"index": index, "time": index, "process": process, "type": kind, "f": f, "key": "l", "value": value});
        serde_json::from_value(event).unwrap()
    }

    /// One acknowledged append, one of unknown outcome, one that failed, and then a read of `list`.
    fn findings(list: &str) -> Vec<Finding> {
        let history = [
            event(0, 0, "invoke", "append", json!("1,")),
            event(1, 0, "ok", "append", json!("1,")),
            event(2, 0, "invoke", "append", json!("2,")),
            event(3, 0, "info", "append", Value::Null),
            event(4, 1, "invoke", "append", json!("3,")),
            event(5, 1, "fail", "append", Value::Null),
            event(6, 1, "invoke", "read", Value::Null),
            event(7, 1, "ok", "read", json!(list)),
        ];
        operations_by_key(&history).iter().flat_map(|(key, operations)| check_list(key, operations)).collect()
    }

    #[test]
    fn each_element_is_in_the_list_exactly_once() {
        assert_eq!(findings("1,"), vec![]);
        assert_eq!(findings("1,2,"), vec![]);
        assert!(findings("2,")[0].what.contains("lost 1"));
        assert!(findings("1,1,")[0].what.contains("2 times"));
        assert!(findings("1,3,")[0].what.contains("failed"));
        assert!(findings("1,4,")[0].what.contains("no operation"));
    }
}
