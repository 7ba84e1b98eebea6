//! The parts of a Raft log. These structs are persisted and sent; the `raft` crate converts
//! openraft's types to and from them, so that a new openraft changes no byte on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::codec::Blob;
use crate::{NodeId, ReplicaId};

/// The place of an entry in a group's log. Ordered by term, leader, index: the order in which Raft
/// compares logs.
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

/// A replica's vote: its candidate, its term, and whether a quorum granted it. A granted vote names
/// the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Vote {
    /// The term voted in.
    pub term: u64,
    /// The replica voted for.
    pub candidate: ReplicaId,
    /// Whether a quorum is known to have granted it.
    pub committed: bool,
}

/// The voters and learners of a group. Two sets of voters while a change is under way (joint
/// consensus).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Membership {
    /// One set of voters; two while a joint change is under way.
    pub voters: Vec<BTreeSet<ReplicaId>>,
    /// The node of each member, voter or learner.
    pub nodes: BTreeMap<ReplicaId, NodeId>,
}

impl Membership {
    /// Whether a group can have these members: one or two sets of voters, none empty, and a node
    /// for every voter.
    pub fn is_well_formed(&self) -> bool {
        let has_node = |voter: &ReplicaId| self.nodes.contains_key(voter);
        let is_set = |voters: &BTreeSet<ReplicaId>| !voters.is_empty() && voters.iter().all(has_node);
        matches!(self.voters.len(), 1 | 2) && self.voters.iter().all(is_set)
    }
}

/// The payload of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Payload {
    /// Nothing: a new leader commits a blank entry to find out the commit index.
    Blank,
    /// An encoded batch of commands for the group's state machine.
    Normal(Blob),
    /// The group's members from here on.
    Membership(Membership),
}

/// One entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Its place in the log.
    pub id: LogId,
    /// Its payload.
    pub payload: Payload,
}

impl Entry {
    /// An entry with an encoded batch of commands.
    pub fn normal(id: LogId, proposal: Bytes) -> Self {
        Entry { id, payload: Payload::Normal(Blob(proposal)) }
    }

    /// The approximate size of the entry in memory, on disk and on the wire, in bytes: its payload
    /// and a constant.
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
