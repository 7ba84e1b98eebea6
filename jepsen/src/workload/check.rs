//! Operations as the checks of the workloads see them: an invocation and what closed it.

use std::collections::HashMap;

use serde_json::Value;

use crate::history::{Action, Event, EventKind};

/// An operation of a history.
#[derive(Clone, Copy, Debug)]
pub struct Done<'a> {
    /// How it began.
    pub invoke: &'a Event,
    /// How it was closed; none if it never was.
    pub completion: Option<&'a Event>,
}

impl<'a> Done<'a> {
    /// How it ended; what was never closed may happen at any time, as `Info` says.
    pub fn kind(&self) -> EventKind {
        self.completion.map_or(EventKind::Info, |completion| completion.kind)
    }

    /// Whether it happened and was not refused.
    pub fn is_acknowledged(&self) -> bool {
        self.completion.is_some_and(|completion| completion.kind == EventKind::Ok && !completion.refused)
    }

    /// Whether it may have changed something: it was not refused and did not fail.
    pub fn may_have_applied(&self) -> bool {
        self.is_acknowledged() || self.kind() == EventKind::Info
    }

    /// Whether it is a read that was answered, and asked for the level.
    pub fn is_read(&self, eventual: bool) -> bool {
        let level = self.invoke.level.as_deref() == Some("eventual");
        self.invoke.f == Action::Read && self.kind() == EventKind::Ok && level == eventual
    }

    /// What it gave back.
    pub fn result(&self) -> &'a Value {
        self.completion.map_or(&Value::Null, |completion| &completion.value)
    }

    /// When it was closed, in nanoseconds; never, for what was not.
    pub fn end(&self) -> u64 {
        self.completion.map_or(u64::MAX, |completion| completion.time)
    }

    /// The events that it consists of.
    pub fn events(&self) -> Vec<u64> {
        std::iter::once(self.invoke.index).chain(self.completion.map(|completion| completion.index)).collect()
    }
}

/// The operations of a history, in the order in which they began.
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

/// The operations of each key, in the order of the keys.
pub(super) fn by_key<'a>(operations: &[Done<'a>]) -> Vec<(&'a str, Vec<Done<'a>>)> {
    let mut keys: HashMap<&'a str, Vec<Done<'a>>> = HashMap::new();
    for operation in operations {
        keys.entry(operation.invoke.key.as_deref().unwrap_or_default()).or_default().push(*operation);
    }
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_unstable_by_key(|(key, _)| *key);
    keys
}
