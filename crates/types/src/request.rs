//! A client's request to one replica of a shard, and the answer of the node that served it.

use std::time::Duration;

use crate::{Condition, Key, Mutation, Outcome, ReadLevel, Record, SessionStamp, ShardId, Write};

/// A client's request to one replica of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvRequest {
    /// Pairs the request with its reply on one connection.
    pub id: u64,
    /// The shard that the client routed the key to.
    pub shard: ShardId,
    /// The shard's arc epoch in the client's map.
    pub epoch: u64,
    /// How long the client waits for the reply, in whole milliseconds on the wire. None: the node's
    /// own limit applies.
    pub timeout: Option<Duration>,
    /// The operation.
    pub operation: KvOperation,
}

/// An operation on one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvOperation {
    /// Reads a key.
    Get {
        /// The key.
        key: Key,
        /// The requested consistency.
        level: ReadLevel,
    },
    /// Changes a key.
    Write {
        /// Identifies the write in its session.
        stamp: SessionStamp,
        /// The change.
        write: Write,
    },
    /// Opens a session in the shard.
    OpenSession,
}

/// The answer of a node that served a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvAnswer {
    /// The result of a get: the key's record, or none if the key is absent.
    Found(Option<Record>),
    /// The outcome of a write or of opening a session.
    Outcome(Outcome),
}

impl KvRequest {
    /// The approximate size of the request in a frame, in bytes.
    pub fn size_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 48;
        OVERHEAD_BYTES
            + match &self.operation {
                KvOperation::Get { key, .. } => key.as_bytes().len(),
                KvOperation::Write { write, .. } => {
                    let put = match &write.mutation {
                        Mutation::Put(value) => value.as_bytes().len(),
                        Mutation::Delete => 0,
                    };
                    let expected = match &write.condition {
                        Some(Condition::Value(value)) => value.as_bytes().len(),
                        _ => 0,
                    };
                    write.key.as_bytes().len() + put + expected
                }
                KvOperation::OpenSession => 0,
            }
    }
}
