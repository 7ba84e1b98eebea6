//! Pairs the events of a history into operations: an invocation and the event that closed it.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::Value;

use super::error::{Malformed, ParseError};
use super::event::{Action, Event, EventKind};

/// Outcome of an operation. Failed operations (`fail`) never happened, so they are not listed as
/// operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Took effect between its invocation and its return.
    Done,
    /// Its condition did not hold at some moment between its invocation and its return; changed
    /// nothing.
    Refused,
    /// May take effect once at any time after its invocation, or never.
    Unknown,
}

/// Consistency level that a read requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Linearizable.
    Strong,
    /// May return any written value, including an old one.
    Eventual,
}

/// One operation of a history.
///
/// # Invariants
///
/// * `returned` is set exactly if the outcome is known.
/// * Positions are indices of events in the history, from 0: one operation precedes another if it
///   returned before the other was invoked.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// The client process that ran it.
    pub process: u64,
    /// The key; none if the whole history is about one object.
    pub key: Option<Arc<str>>,
    /// The kind of operation.
    pub action: Action,
    /// The argument, as [`Action`] describes it.
    pub argument: Value,
    /// The outcome.
    pub outcome: Outcome,
    /// The observed value. For a read, the key's value (null: absent); for a refused write, the
    /// value found; for a transaction, its steps with the values read. None if the reply did not
    /// contain it.
    pub result: Option<Value>,
    /// Consistency level of a read; strong for all other operations.
    pub level: Level,
    /// Position of the invocation.
    pub invoked: u64,
    /// Position of the return.
    pub returned: Option<u64>,
    /// The version written, read or found; 0 means absent.
    pub version: Option<u64>,
    /// The shard that served it.
    pub shard: Option<u64>,
    /// The shard's revision in the state that was read, or when the write was acknowledged.
    pub revision: Option<u64>,
}

impl Operation {
    /// Whether it belongs to the linearizable history: all operations except eventual reads.
    pub fn is_strong(&self) -> bool {
        self.level == Level::Strong
    }

    /// One-line description for reports.
    pub fn describe(&self) -> String {
        let verb = serde_json::to_value(self.action).ok().and_then(|verb| verb.as_str().map(str::to_owned));
        let verb = verb.unwrap_or_default();
        let on = self.key.as_deref().map(|key| format!(" of {key}")).unwrap_or_default();
        let argument = if self.argument.is_null() { String::new() } else { format!(" {}", self.argument) };
        let result = match (&self.outcome, &self.result) {
            (Outcome::Unknown, _) => ": unknown outcome".to_owned(),
            (Outcome::Refused, Some(found)) => format!(": refused, found {found}"),
            (Outcome::Refused, None) => ": refused".to_owned(),
            (Outcome::Done, Some(seen)) => format!(": {seen}"),
            (Outcome::Done, None) => String::new(),
        };
        let version = self.version.map(|version| format!(" (version {version})")).unwrap_or_default();
        format!("{verb}{argument}{on}{result}{version} by process {}", self.process)
    }
}

/// Meaning of events where the formats differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// A read of null means that the key was absent. The invocation holds the written value.
    Ours,
    /// Knossos: a read of nil means that the value is unknown. The completion's value replaces the
    /// invocation's.
    Knossos,
}

/// Builds operations from events, fed one at a time in history order.
#[derive(Debug)]
pub struct Pairing {
    convention: Convention,
    position: u64,
    operations: Vec<Operation>,
    /// Per process: the index of its open operation, and the line that opened it.
    open: FxHashMap<u64, (usize, u64)>,
    failed: FxHashSet<usize>,
    keys: FxHashSet<Arc<str>>,
}

impl Pairing {
    /// Creates a pairing without events.
    pub fn new(convention: Convention) -> Self {
        Pairing {
            convention,
            position: 0,
            operations: Vec::new(),
            open: FxHashMap::default(),
            failed: FxHashSet::default(),
            keys: FxHashSet::default(),
        }
    }

    /// Adds the next event. `line` is its line number, for errors.
    ///
    /// # Errors
    ///
    /// An event that closes nothing, closes an operation of another kind, or opens one while its
    /// process is busy.
    pub fn push(&mut self, line: u64, event: Event) -> Result<(), ParseError> {
        let refuse = |reason: String| Err(ParseError { line, reason });
        let process = event.process;
        let position = self.position;
        self.position += 1;
        if event.kind == EventKind::Invoke {
            if let Some((_, opened)) = self.open.get(&process) {
                return refuse(format!(
                    "process {process} begins an operation while its operation of line {opened} is open"
                ));
            }
            let level = level(&event).map_err(|error| error.at(line))?;
            self.open.insert(process, (self.operations.len(), line));
            let key = event.key.map(|key| self.intern(key));
            self.operations.push(Operation {
                process,
                key,
                action: event.f,
                argument: event.value,
                outcome: Outcome::Unknown,
                result: None,
                level: level.unwrap_or(Level::Strong),
                invoked: position,
                returned: None,
                version: None,
                shard: None,
                revision: None,
            });
            return Ok(());
        }
        let Some((place, opened)) = self.open.remove(&process) else {
            return refuse(format!("process {process} ends an operation that it did not begin"));
        };
        let operation = &mut self.operations[place];
        if operation.action != event.f {
            let (began, ended) = (operation.action, event.f);
            return refuse(format!("process {process} began {began:?} in line {opened} and ends {ended:?}"));
        }
        if event.key.as_deref().is_some_and(|key| operation.key.as_deref() != Some(key)) {
            return refuse(format!("process {process} ends its operation of line {opened} on another key"));
        }
        match event.kind {
            EventKind::Ok => {
                close(operation, event, position, self.convention).map_err(|error| error.at(line))?;
            }
            EventKind::Fail => {
                self.failed.insert(place);
            }
            EventKind::Info | EventKind::Invoke => {}
        }
        Ok(())
    }

    /// Returns the operations in invocation order. Operations still open get an unknown outcome.
    pub fn finish(self) -> Vec<Operation> {
        let Pairing { mut operations, failed, .. } = self;
        if !failed.is_empty() {
            let mut place = 0;
            operations.retain(|_| {
                place += 1;
                !failed.contains(&(place - 1))
            });
        }
        operations
    }

    fn intern(&mut self, key: String) -> Arc<str> {
        if let Some(known) = self.keys.get(key.as_str()) {
            return Arc::clone(known);
        }
        let key: Arc<str> = key.into();
        self.keys.insert(Arc::clone(&key));
        key
    }
}

/// Pairs the events of a history in memory. `line` in an error is the event's position, counted
/// from 1.
///
/// # Errors
///
/// Inconsistent events (see [`Pairing::push`]).
pub fn pair(events: impl IntoIterator<Item = Event>) -> Result<Vec<Operation>, ParseError> {
    let mut pairing = Pairing::new(Convention::Ours);
    for (event, line) in events.into_iter().zip(1..) {
        pairing.push(line, event)?;
    }
    Ok(pairing.finish())
}

fn close(operation: &mut Operation, event: Event, position: u64, convention: Convention) -> Result<(), Malformed> {
    operation.outcome = if event.refused { Outcome::Refused } else { Outcome::Done };
    operation.returned = Some(position);
    operation.version = event.version;
    operation.shard = event.shard;
    operation.revision = event.revision;
    if let Some(level) = level(&event)? {
        operation.level = level;
    }
    operation.result = match (operation.outcome, operation.action) {
        (Outcome::Refused, _) => event.found,
        (_, Action::Read | Action::Txn) if event.value.is_null() && convention == Convention::Knossos => None,
        (_, Action::Txn) if convention == Convention::Knossos => Some(without_unseen(event.value)),
        (_, Action::Read | Action::Txn) => Some(event.value),
        _ => {
            if convention == Convention::Knossos && !event.value.is_null() {
                operation.argument = event.value;
            }
            None
        }
    };
    Ok(())
}

/// Removes reads of nil from a transaction's steps: their values are unknown and they change
/// nothing.
fn without_unseen(mut steps: Value) -> Value {
    if let Some(steps) = steps.as_array_mut() {
        steps.retain(|step| {
            let parts = step.as_array().map(Vec::as_slice);
            !matches!(parts, Some([Value::String(action), _, Value::Null]) if matches!(action.as_str(), "read" | "r"))
        });
    }
    steps
}

fn level(event: &Event) -> Result<Option<Level>, Malformed> {
    match event.level.as_deref() {
        // Only reads have a level: writes are always strong.
        _ if event.f != Action::Read => Ok(None),
        None => Ok(None),
        Some("strong") => Ok(Some(Level::Strong)),
        Some("eventual") => Ok(Some(Level::Eventual)),
        Some(other) => Err(format!("unknown read level '{other}'; expected strong or eventual").into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(process: u64, kind: EventKind, f: Action, value: Value) -> Event {
        let event = json!({"index": 0, "time": 0, "process": process, "type": kind, "f": f, "value": value});
        serde_json::from_value(event).unwrap()
    }

    /// Covers done, refused and failed operations, and one without a closing event.
    #[test]
    fn events_become_operations() {
        let refused =
            Event { refused: true, found: Some(json!(3)), ..event(3, EventKind::Ok, Action::Cas, json!([1, 2])) };
        let operations = pair([
            event(1, EventKind::Invoke, Action::Read, Value::Null),
            event(2, EventKind::Invoke, Action::Write, json!(5)),
            event(3, EventKind::Invoke, Action::Cas, json!([1, 2])),
            event(1, EventKind::Ok, Action::Read, Value::Null),
            event(2, EventKind::Fail, Action::Write, json!(5)),
            refused,
            event(4, EventKind::Invoke, Action::Write, json!(6)),
        ])
        .unwrap();
        let seen: Vec<_> = operations.iter().map(|done| (done.process, done.outcome, done.returned)).collect();
        assert_eq!(seen, [(1, Outcome::Done, Some(3)), (3, Outcome::Refused, Some(5)), (4, Outcome::Unknown, None)]);
        assert_eq!(operations[0].result, Some(Value::Null));
        assert_eq!(operations[1].result, Some(json!(3)));
    }

    #[test]
    fn inconsistent_events_are_refused_with_their_line() {
        let begin = || event(1, EventKind::Invoke, Action::Read, Value::Null);
        let twice = pair([begin(), begin()]).unwrap_err();
        assert_eq!((twice.line, twice.reason.contains("line 1")), (2, true), "{twice}");
        let nothing = pair([event(1, EventKind::Ok, Action::Read, Value::Null)]).unwrap_err();
        assert!(nothing.reason.contains("did not begin"), "{nothing}");
        let other = pair([begin(), event(1, EventKind::Ok, Action::Write, Value::Null)]).unwrap_err();
        assert!(other.reason.contains("ends Write"), "{other}");
    }
}
