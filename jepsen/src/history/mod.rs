//! What the clients of a run did and saw: events in real-time order, one JSON object a line in `history.jsonl`.
//!
//! The keys are Jepsen's (`index`, `time`, `process`, `type`, `f`, `value`, `error`), with what our replies say beside them
//! (`key`, `version`, `node`, `shard`, `log_index`, `revision`, `level`). Other keys are refused.
//!
//! * A process has at most one operation open: an `invoke`, closed by the process's next event.
//! * `ok`: happened, between the two events. A conditional write that the store refused is `ok` too: it *observed* something,
//!   namely `found` (what the key held), and changed nothing; its `refused` is true.
//! * `fail`: certainly did not happen and never will.
//! * `info`, or never closed: may happen at any time after its `invoke`, at most once, or never. A process whose operation
//!   ended so is not used again.

//!
//! ```text
//!   file ── Format ──► parse: jsonl, edn, porcupine ──► Event … ──► operation::Pairing ──► Operation …
//! ```
//!
//! Other recorders' formats are read into the same events (see [`parse`]); whoever has events in memory hands them to
//! [`operation::pair`]. Read `operation` next.

pub mod edn;
pub mod generate;
pub mod jsonl;
pub mod operation;
pub mod parse;
pub mod porcupine;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use operation::{Level, Operation, Outcome};
pub use parse::{Format, ParseError};

/// What an event says of its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// Was begun.
    Invoke,
    /// Happened.
    Ok,
    /// Did not happen and never will.
    Fail,
    /// May happen at any time from its beginning on, or never.
    Info,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Reads a key. `value` of the completion: what it held, null if absent.
    Read,
    /// Writes `value`, whatever the key held.
    Write,
    /// Compare and set: `value` is `[expected, new]`; `expected` null means absent.
    Cas,
    /// Compare and set by version: `value` is `[expected version, new]`; version 0 means absent.
    CasVersion,
    /// Deletes the key.
    Delete,
    /// Appends `value` (a string) to what the key held.
    Append,
    /// Adds `value`: a number to a counter, an element to a set.
    Add,
    /// Takes a mutex.
    Acquire,
    /// Gives a mutex back.
    Release,
    /// A transaction: `value` is `[["read", key, value], ["write", key, value], …]`, all at once.
    Txn,
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Its place in the history, from 0.
    pub index: u64,
    /// Nanoseconds since the run began, on one monotonic clock for all clients.
    pub time: u64,
    /// Who did it.
    pub process: u64,
    /// What it says.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// What the operation does.
    pub f: Action,
    /// On which key. None where the whole history is of one object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Argument when invoked; result when completed (see [`Action`]).
    #[serde(default)]
    pub value: Value,
    /// The store refused the condition and changed nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// Of a refused write: what the key held, null if absent. None where the reply did not say.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "found")]
    pub found: Option<Value>,
    /// The version that a write got, or that the record read has (of a refused write: that it found); 0 is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Why it failed or is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The node that served it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// The shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<u64>,
    /// The index of the last log entry in the state that was read, or right after the write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_index: Option<u64>,
    /// The shard's revision in that state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The level that a read asked for; strong where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
}

impl Event {
    /// An event that says nothing but this; its place and time are 0.
    pub fn new(process: u64, kind: EventKind, f: Action, value: Value) -> Self {
        Event {
            index: 0,
            time: 0,
            process,
            kind,
            f,
            key: None,
            value,
            refused: false,
            found: None,
            version: None,
            error: None,
            node: None,
            shard: None,
            log_index: None,
            revision: None,
            level: None,
        }
    }
}

/// A `found` of null says that the key was absent, which is not the same as no `found` at all.
mod found {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(found: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
        found.as_ref().unwrap_or(&Value::Null).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
        Value::deserialize(deserializer).map(Some)
    }
}
