//! Operations: planned, performed, completed.

use std::sync::Arc;
use std::time::Duration;

use quorate_client::{Client, ReadLevel, ServedBy};
use serde_json::Value;

use super::http::Http;
use crate::history::{Action, EventKind};

/// A planned operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// The action.
    pub f: Action,
    /// The key in the store and in the history.
    pub key: String,
    /// The argument; see [`Action`].
    pub value: Value,
    /// The level of a read.
    pub level: ReadLevel,
}

impl Op {
    /// An operation that is not an eventual read.
    pub fn new(f: Action, key: impl Into<String>, value: impl Into<Value>) -> Self {
        Op { f, key: key.into(), value: value.into(), level: ReadLevel::Strong }
    }

    /// A read of a key.
    pub fn read(key: impl Into<String>, level: ReadLevel) -> Self {
        Op { f: Action::Read, key: key.into(), value: Value::Null, level }
    }
}

/// The end of an operation, as its closing event reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// `Ok`, `Fail` or `Info`.
    pub kind: EventKind,
    /// The result; see [`Action`].
    pub value: Value,
    /// The store refused the condition.
    pub refused: bool,
    /// The value that a refused write found.
    pub found: Option<Value>,
    /// The version written, read or found.
    pub version: Option<u64>,
    /// The reason of a failure or an unknown outcome.
    pub error: Option<String>,
    /// The node that served it, and the state that it saw.
    pub by: Option<ServedBy>,
}

impl Completion {
    /// The operation took effect, with this result.
    pub fn ok(value: Value) -> Self {
        Self { kind: EventKind::Ok, value, refused: false, found: None, version: None, error: None, by: None }
    }

    /// The operation has no effect, now or later.
    pub fn fail(error: impl Into<String>) -> Self {
        Self { kind: EventKind::Fail, error: Some(error.into()), ..Self::ok(Value::Null) }
    }

    /// The outcome is unknown: the operation may take effect now, later or never.
    pub fn info(error: impl Into<String>) -> Self {
        Self { kind: EventKind::Info, error: Some(error.into()), ..Self::ok(Value::Null) }
    }
}

/// The means of a client to perform operations.
#[derive(Clone, Debug)]
pub struct Access {
    /// A client of the store.
    pub client: Client,
    /// The deadline of an operation.
    pub deadline: Duration,
    /// The addresses of the shorteners, if the workload uses them.
    pub shorteners: Arc<[String]>,
    /// The HTTP client.
    pub http: Http,
    /// The number of the client's process, which spreads operations over shorteners.
    pub turn: u64,
}
