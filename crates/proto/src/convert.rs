//! Conversions of the common parts of requests and replies.
//!
//! The conversion to the wire cannot fail (`From`). The conversion from the wire checks the limits
//! (`TryFrom`), so that all code behind it may rely on them. Bytes are shared in both directions,
//! never copied.

use quorate_types::{Condition, Key, ReadLevel, Record, Role, Value};

use crate::kv;

/// The reason why a wire message is malformed. The sender is broken or speaks another version; no
/// retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct WireError(pub String);

impl WireError {
    pub(crate) fn new(reason: impl ToString) -> Self {
        WireError(reason.to_string())
    }
}

/// A required field.
pub(crate) fn required<T>(field: Option<T>, name: &str) -> Result<T, WireError> {
    field.ok_or_else(|| WireError(format!("{name} is missing")))
}

pub(crate) fn key(bytes: bytes::Bytes) -> Result<Key, WireError> {
    Key::new(bytes).map_err(WireError::new)
}

pub(crate) fn value(bytes: bytes::Bytes) -> Result<Value, WireError> {
    Value::new(bytes).map_err(WireError::new)
}

impl From<ReadLevel> for kv::Level {
    fn from(level: ReadLevel) -> Self {
        match level {
            ReadLevel::Strong => kv::Level::Strong,
            ReadLevel::Eventual => kv::Level::Eventual,
        }
    }
}

/// Reads a level's number in a message.
pub(crate) fn level(number: i32) -> Result<ReadLevel, WireError> {
    match kv::Level::try_from(number) {
        Ok(kv::Level::Strong) => Ok(ReadLevel::Strong),
        Ok(kv::Level::Eventual) => Ok(ReadLevel::Eventual),
        Ok(kv::Level::Unspecified) => Err(WireError::new("the level is missing; use strong or eventual")),
        Err(_) => Err(WireError(format!("unknown level {number}; this side knows strong and eventual"))),
    }
}

impl From<Role> for kv::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Leader => kv::Role::Leader,
            Role::Follower => kv::Role::Follower,
            Role::Candidate => kv::Role::Candidate,
            Role::Learner => kv::Role::Learner,
            Role::Stopped => kv::Role::Stopped,
        }
    }
}

impl TryFrom<kv::Role> for Role {
    type Error = WireError;

    fn try_from(role: kv::Role) -> Result<Self, WireError> {
        match role {
            kv::Role::Unspecified => Err(WireError::new("the role is missing")),
            kv::Role::Leader => Ok(Role::Leader),
            kv::Role::Follower => Ok(Role::Follower),
            kv::Role::Candidate => Ok(Role::Candidate),
            kv::Role::Learner => Ok(Role::Learner),
            kv::Role::Stopped => Ok(Role::Stopped),
        }
    }
}

/// Reads a role's number in a message.
pub(crate) fn role(number: i32) -> Result<Role, WireError> {
    kv::Role::try_from(number).map_err(|_| WireError(format!("unknown role {number}")))?.try_into()
}

impl From<Record> for kv::Record {
    fn from(record: Record) -> Self {
        kv::Record { version: record.version, value: record.value.bytes(), expires_at_ms: record.expires_at_ms }
    }
}

impl TryFrom<kv::Record> for Record {
    type Error = WireError;

    fn try_from(record: kv::Record) -> Result<Self, WireError> {
        Ok(Record { version: record.version, value: value(record.value)?, expires_at_ms: record.expires_at_ms })
    }
}

impl From<Condition> for kv::Condition {
    fn from(condition: Condition) -> Self {
        use kv::condition::Condition as Wire;
        let wire = match condition {
            Condition::Absent => Wire::Absent(true),
            Condition::Exists => Wire::Exists(true),
            Condition::Version(version) => Wire::Version(version),
            Condition::Value(value) => Wire::Value(value.bytes()),
        };
        kv::Condition { condition: Some(wire) }
    }
}

impl TryFrom<kv::Condition> for Condition {
    type Error = WireError;

    fn try_from(condition: kv::Condition) -> Result<Self, WireError> {
        use kv::condition::Condition as Wire;
        // An unknown condition must never be read as none.
        match required(condition.condition, "the condition (or it is of a kind that this side does not know)")? {
            Wire::Absent(true) => Ok(Condition::Absent),
            Wire::Exists(true) => Ok(Condition::Exists),
            Wire::Absent(false) | Wire::Exists(false) => Err(WireError::new("a condition is set to false")),
            Wire::Version(version) => Ok(Condition::Version(version)),
            Wire::Value(bytes) => Ok(Condition::Value(value(bytes)?)),
        }
    }
}
