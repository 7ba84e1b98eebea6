//! One event of a history.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The operation began.
    Invoke,
    /// The operation took effect.
    Ok,
    /// The operation did not take effect and never will.
    Fail,
    /// The operation may take effect at any time after it began, or never.
    Info,
}

/// Kind of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Read a key. The completion's `value` is the key's value, null if absent.
    Read,
    /// Write `value` unconditionally.
    Write,
    /// Compare-and-set: `value` is `[expected, new]`; `expected` null means absent.
    Cas,
    /// Compare-and-set by version: `value` is `[expected version, new]`; version 0 means absent.
    CasVersion,
    /// Delete the key.
    Delete,
    /// Append `value` (a string) to the key's value.
    Append,
    /// Add `value`: a number to a counter, an element to a set.
    Add,
    /// Acquire a mutex.
    Acquire,
    /// Release a mutex.
    Release,
    /// A transaction: `value` is `[["read", key, value], ["write", key, value], …]`, executed
    /// atomically.
    Txn,
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Position in the history, from 0.
    pub index: u64,
    /// Nanoseconds since the run began, on one monotonic clock shared by all clients.
    pub time: u64,
    /// The client process.
    pub process: u64,
    /// The kind of event.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// The kind of operation.
    pub f: Action,
    /// The key; none if the whole history is about one object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The argument on invocation, the result on completion (see [`Action`]).
    #[serde(default)]
    pub value: Value,
    /// The store refused the condition and changed nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// For a refused write: the key's value, null if absent. None if the reply did not contain it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "found")]
    pub found: Option<Value>,
    /// The version that was written, read, or (by a refused write) found; 0 means absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Reason for a failure or an unknown outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The node that served it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// The shard that served it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<u64>,
    /// Index of the last log entry in the state that was read, or in the state right after the
    /// write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_index: Option<u64>,
    /// The shard's revision in that state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Consistency level of a read; strong if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
}

impl Event {
    /// Creates an event with these fields; index and time are 0, all other fields empty.
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

/// Serializes `found`: null means that the key was absent, a missing field that the value is
/// unknown.
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
