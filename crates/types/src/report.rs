//! The reports of nodes to the reconciler, and its orders to the leaders of groups.

use bincode::{Decode, Encode};

use crate::codec::{self, CodecError, Kind};
use crate::state::StoredMembership;
use crate::topology::Placement;
use crate::{GroupId, LogId, NodeId, ReplicaId, Role};

/// Entries that a voter may lack and still be planned as the next leader.
///
/// A group has one entry in flight at a time, so a follower that keeps up lacks a handful; 64
/// leaves room for jitter. A voter that lacks more is slow, and the group has no leader until the
/// voter has flushed them.
pub const PLANNED_SUCCESSOR_LAG_MAX: u64 = 64;

/// Entries that a voter may lack when the leader executes the order to transfer its leadership.
///
/// Four times [`PLANNED_SUCCESSOR_LAG_MAX`]: the report behind the plan is up to a second old, and
/// a refused transfer is planned again only after a pause.
pub const SUCCESSOR_LAG_MAX: u64 = 4 * PLANNED_SUCCESSOR_LAG_MAX;

/// The report of a node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeReport {
    /// The node.
    pub node: NodeId,
    /// Its uptime, in milliseconds.
    pub uptime_ms: u64,
    /// Free bytes on its disk.
    pub disk_free_bytes: u64,
    /// Free bytes above the reserve: the room for more replicas.
    pub disk_room_bytes: u64,
    /// Its disk is below the reserve: it refuses writes.
    pub disk_full: bool,
    /// The latency of its user requests.
    pub foreground: Foreground,
    /// Its replicas.
    pub replicas: Vec<ReplicaReport>,
}

/// The load and latency of a node's user requests. Background work gives way to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Foreground {
    /// There are few user requests.
    #[default]
    Idle,
    /// User requests meet the latency target.
    Served,
    /// User requests are slow: the node throttles its snapshot transfers.
    Waits,
}

/// The report of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReplicaReport {
    /// Its group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// Its role, as far as it knows.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The index of its last log entry; 0 if there is none.
    pub last_index: u64,
    /// The newest membership in its log, committed or not.
    pub members: StoredMembership,
    /// The newest membership that it applied, which is committed.
    pub applied_members: StoredMembership,
    /// It lost entries that it had confirmed, and takes no part in its group: it must be replaced.
    pub doubtful: bool,
    /// The progress of the other members, if it is the leader.
    pub others: Vec<Follower>,
    /// The approximate size of its state, in bytes.
    pub bytes: u64,
}

/// The progress of another member, as its leader knows it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Follower {
    /// The replica.
    pub replica: ReplicaId,
    /// The last log index that it is known to have; 0 if none is known.
    pub matched_index: u64,
    /// Whether it answered a moment ago.
    pub answers: bool,
    /// The error of the last snapshot transfer to it; none if that succeeded, or if there was none.
    pub snapshot_failure: Option<String>,
}

impl NodeReport {
    /// The encoded report, as it is sent.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::Report, self)
    }

    /// Decodes a report.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Kind::Report, bytes)
    }
}

/// An order of the reconciler to the leader of a group. An order that is executed already is
/// harmless.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Order {
    /// The term in which the reconciler leads the topology group. A node that knows a later term
    /// refuses the order.
    pub term: u64,
    /// The group.
    pub group: GroupId,
    /// The order.
    pub what: OrderKind,
}

/// The orders that the leader of a group executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum OrderKind {
    /// Adds a replica as a learner.
    AddLearner(Placement),
    /// Removes a learner from the members.
    RemoveLearner(ReplicaId),
    /// Changes the voters in one joint change, if the membership is still the seen one.
    ChangeVoters {
        /// The learner that becomes a voter.
        add: Option<ReplicaId>,
        /// The voter that leaves the members.
        remove: Option<ReplicaId>,
        /// The place of the seen membership in the log.
        seen: LogId,
    },
    /// Finishes an interrupted joint change.
    FinishJoint,
    /// Transfers the leadership to another voter.
    TransferLeader(ReplicaId),
    /// Confirms with a quorum that this replica is no member.
    ConfirmAbsent(ReplicaId),
}

impl Order {
    /// The encoded order, as it is sent.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::Order, self)
    }

    /// Decodes an order.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Kind::Order, bytes)
    }
}
