//! What nodes tell the reconciler of their replicas, and what it tells them to do.

use bincode::{Decode, Encode};

use crate::codec::{self, CodecError, Kind};
use crate::state::StoredMembership;
use crate::topology::Placement;
use crate::{GroupId, LogId, NodeId, ReplicaId, Role};

/// Entries that a voter may lack and still become the leader by a transfer.
///
/// A group has one entry in flight at a time, so a follower that keeps up lacks a handful; 64
/// leaves room for jitter. A voter that lacks more is slow, and the group has no leader until the
/// voter has flushed them. The planner applies the limit to its reports, and the leader again when
/// it executes the order.
pub const SUCCESSOR_LAG_MAX: u64 = 64;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeReport {
    /// The node.
    pub node: NodeId,
    /// How long it runs, in milliseconds.
    pub uptime_ms: u64,
    /// Free bytes on its disk.
    pub disk_free_bytes: u64,
    /// Its disk is below the reserve: it refuses writes.
    pub disk_full: bool,
    /// How it serves its users.
    pub foreground: Foreground,
    /// Its replicas.
    pub replicas: Vec<ReplicaReport>,
}

/// How a node serves its users: what the cluster does for itself gives way to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Foreground {
    /// There is little to serve.
    #[default]
    Idle,
    /// It serves them as fast as it should.
    Served,
    /// They wait: what it sends is throttled.
    Waits,
}

/// What a replica says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReplicaReport {
    /// Its group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// What it believes to be.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The index of its last log entry; 0 if there is none.
    pub last_index: u64,
    /// The newest membership in its log, committed or not.
    pub members: StoredMembership,
    /// The newest membership that it applied: it is committed.
    pub applied_members: StoredMembership,
    /// How far the others are, as far as a leader knows.
    pub others: Vec<Follower>,
}

/// How far another replica is, as its leader knows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Follower {
    /// The replica.
    pub replica: ReplicaId,
    /// The last entry that it is known to have; 0: none is known.
    pub matched_index: u64,
    /// It answered a moment ago.
    pub answers: bool,
    /// Why the last snapshot for it did not arrive; none: it did, or there was none.
    pub snapshot_failure: Option<String>,
}

impl NodeReport {
    /// The report's bytes, as they are sent.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::Report, self)
    }

    /// Reads a report.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Kind::Report, bytes)
    }
}

/// What the reconciler tells the leader of a group to do. Each is harmless when it is done already.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Order {
    /// The term in which the reconciler leads group 0: a node that has heard of a later one refuses.
    pub term: u64,
    /// The group.
    pub group: GroupId,
    /// What to do.
    pub what: OrderKind,
}

/// What the leader of a group can be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum OrderKind {
    /// A replica is to follow without a vote.
    AddLearner(Placement),
    /// A replica that has no vote is no member any more.
    RemoveLearner(ReplicaId),
    /// Voters come and go in one joint change, if the membership is still the one that was seen.
    ChangeVoters {
        /// A learner that votes from then on.
        add: Option<ReplicaId>,
        /// A voter that is no member any more.
        remove: Option<ReplicaId>,
        /// Where the membership that was seen stands in the log.
        seen: LogId,
    },
    /// A joint change that was left half done comes to its end.
    FinishJoint,
    /// Another voter is to lead.
    TransferLeader(ReplicaId),
    /// Says, confirmed by a quorum, that this replica is no member.
    ConfirmAbsent(ReplicaId),
}

impl Order {
    /// The order's bytes, as they are sent.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::Order, self)
    }

    /// Reads an order.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Kind::Order, bytes)
    }
}
