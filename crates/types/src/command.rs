//! What a shard's log says, and what came of it when it was applied.

use bincode::{Decode, Encode};

use crate::codec::{self, CodecError, Kind};
use crate::{Key, Record, SessionId, TokenArc, Value};

/// What a write does to its key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Mutation {
    /// The key holds this value from now on.
    Put(Value),
    /// The key holds nothing from now on. Deleting an absent key succeeds.
    Delete,
}

/// What must hold for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Condition {
    /// The key holds nothing.
    Absent,
    /// The key holds something.
    Exists,
    /// The key's record has this version. 0 means absent.
    Version(u64),
    /// The key holds these bytes.
    Value(Value),
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// What to do.
    pub mutation: Mutation,
    /// What must hold for it; none: it is done whatever the key holds.
    pub condition: Option<Condition>,
}

/// Which write of which session this is. A write that is sent again carries the same stamp, so that it is applied once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SessionStamp {
    /// The session, as the shard gave it out.
    pub session: SessionId,
    /// The write's number in the session, from 1.
    pub sequence: u64,
    /// The lowest sequence whose outcome the client may still ask for: what is below it is forgotten.
    pub lowest: u64,
}

/// One command in a shard's log. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// The first command of a shard: which arc it owns. Repeating it changes nothing.
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
        /// Which write of which session.
        stamp: SessionStamp,
        /// The write.
        write: Write,
    },
    /// Nothing but the time that the proposal carries: expiry goes on where no write comes.
    Tick,
}

/// What came of a command: the same on every replica, and the same for every retry of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// The write was done. `version` is the shard's revision at it; for a put that is the record's version.
    Written {
        /// The shard's revision at the write.
        version: u64,
        /// The version of the record that it replaced or deleted; 0 if the key was absent or if nobody looked (an
        /// unconditional put does not look).
        replaced: u64,
    },
    /// The condition did not hold and nothing was changed.
    Refused {
        /// The version of the key's record then; 0 if the key was absent.
        version: u64,
        /// The key's record then. None if it was absent (`version` is 0), if this answers a retry and the record has changed
        /// since, or if many refusals at once would have carried too much.
        current: Option<Record>,
    },
    /// The session is open.
    SessionOpened {
        /// Its id in this shard.
        session: SessionId,
    },
    /// The session is unknown here: never opened, or evicted. The command was not applied *now*; if this is a retry, an
    /// earlier try may have been.
    SessionUnknown,
    /// The sequence is below the session's lowest outstanding one: the client already has its outcome. Nothing was applied.
    SequenceForgotten,
    /// The sequence is too far ahead of the lowest outstanding one. Nothing was applied; the client waits for its writes.
    SequenceTooFar,
    /// The client routed by another arc epoch. Nothing was applied.
    WrongEpoch {
        /// The shard's epoch; 0 while the shard does not know its arc.
        epoch: u64,
    },
    /// The command was done and has nothing to say.
    Done,
}

/// The payload of one Raft entry: what many clients proposed while the entry before it was in flight.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proposal {
    /// The leader's clock, in milliseconds. The shard's clock is the largest that its log ever said.
    pub time_ms: u64,
    /// The commands, in the order in which they are applied.
    pub commands: Vec<Command>,
}

impl Proposal {
    /// The proposal's bytes, as they go into the log and over the wire.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::Proposal, self)
    }

    /// Reads a proposal back. An error is corruption: a replica that meets one stops.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Kind::Proposal, bytes)
    }
}

impl Command {
    /// About how many bytes the command takes in a proposal.
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
