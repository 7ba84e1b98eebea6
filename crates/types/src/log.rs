//! What the Raft log is made of. These are our own structs, persisted and sent; openraft's types are converted to and from
//! them in the `raft` crate, so that a new openraft changes no byte on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::codec::Blob;
use crate::{NodeId, ReplicaId};

/// The place of an entry in a group's log. Ordered by term, leader, index: the order in which Raft compares logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct LogId {
    /// The term in which the entry was proposed.
    pub term: u64,
    /// The replica that led the term.
    pub leader: ReplicaId,
    /// The position in the log, from 0, without holes.
    pub index: u64,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.term, self.leader, self.index)
    }
}

/// A replica's vote: for whom, in which term, and whether a quorum granted it (then it names the leader).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Vote {
    /// The term voted in.
    pub term: u64,
    /// The replica voted for.
    pub candidate: ReplicaId,
    /// Whether a quorum is known to have granted it.
    pub committed: bool,
}

/// The voters and learners of a group. Two sets of voters while a change is under way (joint consensus).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Membership {
    /// One set of voters; two while a joint change is under way.
    pub voters: Vec<BTreeSet<ReplicaId>>,
    /// Where each member, voter or learner, lives.
    pub nodes: BTreeMap<ReplicaId, NodeId>,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Payload {
    /// Nothing: a new leader commits one to learn what is committed.
    Blank,
    /// An encoded batch of commands for the group's state machine.
    Normal(Blob),
    /// The group's members from here on.
    Membership(Membership),
}

/// One entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Where it stands.
    pub id: LogId,
    /// What it says.
    pub payload: Payload,
}

impl Entry {
    /// An entry with an encoded batch of commands.
    pub fn normal(id: LogId, proposal: Bytes) -> Self {
        Entry { id, payload: Payload::Normal(Blob(proposal)) }
    }

    /// About how many bytes the entry takes in memory, on disk and on the wire: its payload and a constant.
    pub fn size_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 64;
        OVERHEAD_BYTES
            + match &self.payload {
                Payload::Blank => 0,
                Payload::Normal(proposal) => proposal.0.len(),
                Payload::Membership(members) => 32 * members.nodes.len(),
            }
    }
}
