//! What operators ask of a cluster, as group 0 keeps it: operations that outlive whoever asked, and the replicas in motion.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::placement::{NodeState, Placement};
use crate::{GroupId, NodeId, ShardId};

/// An operation, numbered from 1 by the cluster and never used again; 0 is the cluster's own upkeep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct OperationId(pub u64);

impl OperationId {
    /// What the cluster does without being asked: the replicas of group 0 follow the nodes.
    pub const UPKEEP: OperationId = OperationId(0);
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for OperationId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(OperationId)
    }
}

/// A replica on its way from one node to another. At most one of a group is in motion.
///
/// Where `from` is none the group gains a voter, and where `to` is none it loses one: only group 0 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ReplicaMove {
    /// The group.
    pub group: GroupId,
    /// The replica that leaves.
    pub from: Option<Placement>,
    /// The replica that comes: new, and never used before.
    pub to: Option<Placement>,
    /// What it is part of.
    pub operation: OperationId,
    /// It is taken back, unless the new replica votes already.
    pub cancelled: bool,
}

/// One replica that should be elsewhere, by nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
pub struct PlannedMove {
    /// The shard.
    pub shard: ShardId,
    /// The node that has the replica.
    pub from: NodeId,
    /// The node that should have it.
    pub to: NodeId,
}

/// What an operation is for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Intent {
    /// A node that joined gets its share of the replicas.
    Add {
        /// The node.
        node: NodeId,
    },
    /// A node gives all its replicas away, and keeps running.
    Drain {
        /// The node.
        node: NodeId,
    },
    /// A node that was draining keeps what it has and takes replicas again.
    Undrain {
        /// The node.
        node: NodeId,
    },
    /// A node leaves for good. One that is alive must be drained first; of one that is dead the replicas are made anew
    /// elsewhere.
    Remove {
        /// The node.
        node: NodeId,
        /// It will never come back.
        dead: bool,
    },
    /// A node takes over every replica of another, which leaves for good.
    Replace {
        /// The node that leaves.
        old: NodeId,
        /// The node that takes over.
        new: NodeId,
    },
    /// One replica moves.
    Move {
        /// Which, and where.
        planned: PlannedMove,
    },
    /// Exactly these replicas move.
    Rebalance {
        /// Which, and where.
        moves: Vec<PlannedMove>,
    },
}

impl Intent {
    /// The node that it is about, if it is about one.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Intent::Add { node } | Intent::Drain { node } | Intent::Undrain { node } | Intent::Remove { node, .. } => {
                Some(*node)
            }
            Intent::Replace { old, .. } => Some(*old),
            Intent::Move { .. } | Intent::Rebalance { .. } => None,
        }
    }

    /// The node that holds no replica when the operation is done; none for operations that empty no
    /// node.
    pub fn leaving_node(&self) -> Option<NodeId> {
        match self {
            Intent::Drain { node } | Intent::Remove { node, .. } | Intent::Replace { old: node, .. } => Some(*node),
            Intent::Add { .. } | Intent::Undrain { .. } | Intent::Move { .. } | Intent::Rebalance { .. } => None,
        }
    }

    /// The moves that the operator named; empty for operations on nodes.
    pub fn planned_moves(&self) -> &[PlannedMove] {
        match self {
            Intent::Move { planned } => std::slice::from_ref(planned),
            Intent::Rebalance { moves } => moves,
            _ => &[],
        }
    }
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Intent::Add { node } => write!(f, "add node {node}"),
            Intent::Drain { node } => write!(f, "drain node {node}"),
            Intent::Undrain { node } => write!(f, "undrain node {node}"),
            Intent::Remove { node, dead: false } => write!(f, "remove node {node}"),
            Intent::Remove { node, dead: true } => write!(f, "remove dead node {node}"),
            Intent::Replace { old, new } => write!(f, "replace node {old} with node {new}"),
            Intent::Move { planned: PlannedMove { shard, from, to } } => {
                write!(f, "move shard {shard} from node {from} to node {to}")
            }
            Intent::Rebalance { moves } => {
                write!(f, "rebalance {} replica{}", moves.len(), if moves.len() == 1 { "" } else { "s" })
            }
        }
    }
}

/// Where an operation is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationState {
    /// The cluster works on it.
    Running,
    /// Everything that was asked for is so.
    Done,
    /// Somebody took it back, or another operation made it impossible; what had moved stays where it is.
    Cancelled,
}

/// What operators asked of the cluster, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What it is for.
    pub intent: Intent,
    /// Where it is in its life.
    pub state: OperationState,
    /// When it was asked for, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended; 0 while it runs.
    pub ended_ms: u64,
    /// Replicas that have moved for it.
    pub moved: u32,
    /// The state of the node that it is about when it was started, to return to if it is taken back. Nobody is told.
    #[serde(skip)]
    pub node_was: Option<NodeState>,
}
