//! The commands of a shard's log, and their outcomes.

use bincode::{Decode, Encode};

use crate::codec::{self, CodecError, Kind};
use crate::{Key, Record, SessionId, TokenArc, Value};

/// The change of a key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Mutation {
    /// Puts this value.
    Put(Value),
    /// Deletes the key's record. Deleting an absent key succeeds.
    Delete,
}

/// The condition of a write.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Condition {
    /// The key is absent.
    Absent,
    /// The key has a record.
    Exists,
    /// The key's record has this version. 0 means absent.
    Version(u64),
    /// The key's record has this value.
    Value(Value),
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// The change.
    pub mutation: Mutation,
    /// The condition; none: the write is unconditional.
    pub condition: Option<Condition>,
}

/// Identifies a write in its session. A retry carries the same stamp, so that the write is applied
/// once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SessionStamp {
    /// The session, as the shard gave it out.
    pub session: SessionId,
    /// The write's number in the session, from 1.
    pub sequence: u64,
    /// The lowest sequence whose outcome the client may still request. Lower outcomes are
    /// forgotten.
    pub lowest: u64,
}

/// One command in a shard's log. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// The first command of a shard: sets its arc. Repeating it changes nothing.
    Bootstrap {
        /// The tokens that the shard owns.
        arc: TokenArc,
        /// The arc's epoch: it grows whenever the arc changes.
        epoch: u64,
    },
    /// Opens a session; the outcome names it.
    OpenSession {
        /// The arc epoch that the client routed by.
        epoch: u64,
    },
    /// A client's write.
    Write {
        /// The arc epoch that the client routed by.
        epoch: u64,
        /// Identifies the write in its session.
        stamp: SessionStamp,
        /// The write.
        write: Write,
    },
    /// Advances the shard's clock to the proposal's time. Reserved for the expiry of records, a
    /// later feature: nothing proposes it yet.
    Tick,
}

/// The outcome of a command. It is the same on every replica, and for every retry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// The write was applied. `version` is the shard's revision at the write; for a put, it is the
    /// record's version.
    Written {
        /// The shard's revision at the write.
        version: u64,
        /// The version of the replaced or deleted record. 0 if the key was absent, or if the write
        /// was an unconditional put, which reads no record.
        replaced: u64,
    },
    /// The condition did not hold; nothing changed.
    Refused {
        /// The version of the key's record at the write; 0 if the key was absent.
        version: u64,
        /// The key's record at the write. None if the key was absent (`version` is 0), if this
        /// answers a retry and the record has changed since, or if many refusals of one entry would
        /// carry too many bytes.
        current: Option<Record>,
    },
    /// The session is open.
    SessionOpened {
        /// Its id in this shard.
        session: SessionId,
    },
    /// The session is unknown to the shard: it was never opened, or was evicted. The command was
    /// not applied *now*; if this is a retry, an earlier attempt may have been.
    SessionUnknown,
    /// The sequence is below the session's lowest outstanding one: the client already has its
    /// outcome. Nothing was applied.
    SequenceForgotten,
    /// The sequence is too far ahead of the lowest outstanding one. Nothing was applied; the client
    /// waits for its writes.
    SequenceTooFar,
    /// The client routed by another arc epoch. Nothing was applied.
    WrongEpoch {
        /// The shard's epoch; 0 while the shard does not know its arc.
        epoch: u64,
    },
    /// The command was applied and has no result.
    Done,
}

/// The payload of one Raft entry: the commands that clients proposed while the previous entry was
/// in flight.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proposal {
    /// The leader's clock, in milliseconds. The shard's clock is the maximum over its log.
    pub time_ms: u64,
    /// The commands, in the order in which they are applied.
    pub commands: Vec<Command>,
}

impl Proposal {
    /// The encoded proposal, as it is in the log and on the wire.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::Proposal, self)
    }

    /// Decodes a proposal. An error is corruption: the replica stops.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Kind::Proposal, bytes)
    }
}

impl Command {
    /// The approximate size of the command in a proposal, in bytes.
    pub fn size_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 64;
        OVERHEAD_BYTES
            + match self {
                Command::Write { write, .. } => {
                    let value = match &write.mutation {
                        Mutation::Put(value) => value.as_bytes().len(),
                        Mutation::Delete => 0,
                    };
                    let expected = match &write.condition {
                        Some(Condition::Value(value)) => value.as_bytes().len(),
                        _ => 0,
                    };
                    write.key.as_bytes().len() + value + expected
                }
                _ => 0,
            }
    }
}
