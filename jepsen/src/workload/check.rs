//! Operations for the checks of the workloads: an invocation with its completion.

use std::collections::HashMap;

use serde_json::Value;

use crate::history::{Action, Event, EventKind};

/// An operation of a history.
#[derive(Clone, Copy, Debug)]
pub struct Done<'a> {
    /// The invocation.
    pub invoke: &'a Event,
    /// The completion, if there is one.
    pub completion: Option<&'a Event>,
}

impl<'a> Done<'a> {
    /// The kind of the completion. An operation without one has an unknown outcome, `Info`.
    pub fn kind(&self) -> EventKind {
        self.completion.map_or(EventKind::Info, |completion| completion.kind)
    }

    /// Whether the operation took effect and was not refused.
    pub fn is_acknowledged(&self) -> bool {
        self.completion.is_some_and(|completion| completion.kind == EventKind::Ok && !completion.refused)
    }

    /// Whether the operation certainly had no effect.
    pub fn has_failed(&self) -> bool {
        self.kind() == EventKind::Fail
    }

    /// Whether the operation may have taken effect: it was neither refused nor failed.
    pub fn may_have_applied(&self) -> bool {
        self.is_acknowledged() || self.kind() == EventKind::Info
    }

    /// Whether the operation is an answered read of the given level.
    pub fn is_read(&self, eventual: bool) -> bool {
        let level = self.invoke.level.as_deref() == Some("eventual");
        self.invoke.f == Action::Read && self.kind() == EventKind::Ok && level == eventual
    }

    /// The result.
    pub fn result(&self) -> &'a Value {
        self.completion.map_or(&Value::Null, |completion| &completion.value)
    }

    /// The time of the completion in nanoseconds; the maximum without one.
    pub fn end(&self) -> u64 {
        self.completion.map_or(u64::MAX, |completion| completion.time)
    }

    /// The indexes of its events.
    pub fn events(&self) -> Vec<u64> {
        std::iter::once(self.invoke.index).chain(self.completion.map(|completion| completion.index)).collect()
    }
}

/// The operations of a history, ordered by their invocations.
pub fn operations(events: &[Event]) -> Vec<Done<'_>> {
    let mut open: HashMap<u64, usize> = HashMap::new();
    let mut operations: Vec<Done<'_>> = Vec::with_capacity(events.len() / 2);
    for event in events {
        if event.kind == EventKind::Invoke {
            open.insert(event.process, operations.len());
            operations.push(Done { invoke: event, completion: None });
        } else if let Some(place) = open.remove(&event.process) {
            operations[place].completion = Some(event);
        }
    }
    operations
}

/// The operations of each key of a history, ordered by key.
pub(super) fn operations_by_key(events: &[Event]) -> Vec<(&str, Vec<Done<'_>>)> {
    let mut keys: HashMap<&str, Vec<Done<'_>>> = HashMap::new();
    for operation in operations(events) {
        keys.entry(operation.invoke.key.as_deref().unwrap_or_default()).or_default().push(operation);
    }
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_unstable_by_key(|(key, _)| *key);
    keys
}
