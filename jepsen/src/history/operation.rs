//! Operations: an invocation and what closed it, made from the events of a history.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::Value;

use super::parse::ParseError;
use super::{Action, Event, EventKind};

/// How an operation ended. One that certainly never happened (`fail`) is not in the list of operations at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It happened, between its invocation and its return.
    Done,
    /// Its condition did not hold, between its invocation and its return, and it changed nothing.
    Refused,
    /// It may happen at any time from its invocation on, once, or never.
    Unknown,
}

/// The consistency that a read asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Linearizable.
    Strong,
    /// Any value that was written, also an old one.
    Eventual,
}

/// One operation of a history.
///
/// * `returned` is there exactly when the outcome is known.
/// * Positions are those of events in the history, from 0: one operation precedes another if it returned before the other was
///   invoked.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Who did it.
    pub process: u64,
    /// On which key. None where the whole history is of one object.
    pub key: Option<Arc<str>>,
    /// What it does.
    pub action: Action,
    /// Its argument, as [`Action`] says.
    pub argument: Value,
    /// How it ended.
    pub outcome: Outcome,
    /// What it saw: of a read, what the key held (null: absent); of a refused write, what it found; of a transaction, its steps
    /// with what they read. None where it did not say.
    pub result: Option<Value>,
    /// Of a read: its level.
    pub level: Level,
    /// The position of its invocation.
    pub invoked: u64,
    /// The position of its return.
    pub returned: Option<u64>,
    /// The version that it wrote, read or found; 0 is absent.
    pub version: Option<u64>,
    /// The shard that served it.
    pub shard: Option<u64>,
    /// That shard's revision in the state that was read, or when the write was answered.
    pub revision: Option<u64>,
}

impl Operation {
    /// Whether it is part of the linearizable history: everything but eventual reads.
    pub fn is_strong(&self) -> bool {
        self.level == Level::Strong
    }

    /// What it does, in a few words: for reports.
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

/// What events mean where formats differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// A read of null says that the key was absent. What is written stands in the invocation.
    Ours,
    /// Knossos's: a read of nil says nothing, its value is not known. The completion's value counts, whatever was invoked.
    Knossos,
}

/// Makes operations of events, given one at a time in the order of the history.
#[derive(Debug)]
pub struct Pairing {
    convention: Convention,
    position: u64,
    operations: Vec<Operation>,
    /// Of each process: its open operation, and the line that opened it.
    open: FxHashMap<u64, (usize, u64)>,
    failed: FxHashSet<usize>,
    keys: FxHashSet<Arc<str>>,
}

impl Pairing {
    /// Without any event yet.
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

    /// The next event, which stood in `line` (for the error).
    ///
    /// # Errors
    ///
    /// An event that closes nothing, that closes another action than was begun, or that begins while its process is busy.
    pub fn push(&mut self, line: u64, event: Event) -> Result<(), ParseError> {
        let refuse = |reason: String| Err(ParseError { line, reason });
        let process = event.process;
        let position = self.position;
        self.position += 1;
        if event.kind == EventKind::Invoke {
            if let Some((_, opened)) = self.open.get(&process) {
                return refuse(format!("process {process} begins an operation while that of line {opened} is open"));
            }
            let level = level(&event).map_err(|reason| ParseError { line, reason })?;
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
                close(operation, event, position, self.convention).map_err(|reason| ParseError { line, reason })?;
            }
            EventKind::Fail => {
                self.failed.insert(place);
            }
            EventKind::Info | EventKind::Invoke => {}
        }
        Ok(())
    }

    /// The operations, in the order in which they were invoked. What is still open has an unknown outcome.
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

/// The operations of a history that is in memory; `line` in an error is the event's place, counted from 1.
///
/// # Errors
///
/// Events that are no history (see [`Pairing::push`]).
pub fn pair(events: impl IntoIterator<Item = Event>) -> Result<Vec<Operation>, ParseError> {
    let mut pairing = Pairing::new(Convention::Ours);
    for (event, line) in events.into_iter().zip(1..) {
        pairing.push(line, event)?;
    }
    Ok(pairing.finish())
}

fn close(operation: &mut Operation, event: Event, position: u64, convention: Convention) -> Result<(), String> {
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

/// The steps of a transaction without the reads of nil, which saw nothing and changed nothing.
fn without_unseen(mut steps: Value) -> Value {
    if let Some(steps) = steps.as_array_mut() {
        steps.retain(|step| {
            let parts = step.as_array().map(Vec::as_slice);
            !matches!(parts, Some([Value::String(action), _, Value::Null]) if matches!(action.as_str(), "read" | "r"))
        });
    }
    steps
}

fn level(event: &Event) -> Result<Option<Level>, String> {
    match event.level.as_deref() {
        // Only reads have a level: a write is strong whatever its reply says.
        _ if event.f != Action::Read => Ok(None),
        None => Ok(None),
        Some("strong") => Ok(Some(Level::Strong)),
        Some("eventual") => Ok(Some(Level::Eventual)),
        Some(other) => Err(format!("read level '{other}' is not known; strong and eventual are")),
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

    /// Done, refused and failed operations, and one that nobody closed.
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
    fn what_is_no_history_is_refused_with_its_line() {
        let begin = || event(1, EventKind::Invoke, Action::Read, Value::Null);
        let twice = pair([begin(), begin()]).unwrap_err();
        assert_eq!((twice.line, twice.reason.contains("line 1")), (2, true), "{twice}");
        let nothing = pair([event(1, EventKind::Ok, Action::Read, Value::Null)]).unwrap_err();
        assert!(nothing.reason.contains("did not begin"), "{nothing}");
        let other = pair([begin(), event(1, EventKind::Ok, Action::Write, Value::Null)]).unwrap_err();
        assert!(other.reason.contains("ends Write"), "{other}");
    }
}
