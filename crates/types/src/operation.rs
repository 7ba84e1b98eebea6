//! Operations, which operators start and the topology group records, and the moves of replicas.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::placement::{NodeState, Placement};
use crate::{GroupId, NodeId, ShardId};

/// An operation, numbered from 1 by the cluster and never used again; 0 is the cluster's own
/// upkeep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct OperationId(pub u64);

impl OperationId {
    /// The cluster's own upkeep: the topology group's replicas follow the nodes.
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

/// The move of a replica to another node. A group has at most one move at a time.
///
/// A topology group's move may lack an end: without `from` the group gains a voter, without `to` it
/// loses one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ReplicaMove {
    /// The group.
    pub group: GroupId,
    /// The replica that leaves.
    pub from: Option<Placement>,
    /// The new replica; its id was never used before.
    pub to: Option<Placement>,
    /// The operation that the move belongs to.
    pub operation: OperationId,
    /// Whether the move is cancelled: it is undone unless the new replica votes already.
    pub cancelled: bool,
}

/// A planned move of a replica, by nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
pub struct PlannedMove {
    /// The shard.
    pub shard: ShardId,
    /// The node that the replica leaves.
    pub from: NodeId,
    /// The node that gets the new replica.
    pub to: NodeId,
}

/// The goal of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Intent {
    /// A joining node gets its share of the replicas.
    Add {
        /// The node.
        node: NodeId,
    },
    /// All replicas of a node move to other nodes; the node keeps running.
    Drain {
        /// The node.
        node: NodeId,
    },
    /// A draining node keeps its replicas and takes new ones again.
    Undrain {
        /// The node.
        node: NodeId,
    },
    /// A node leaves for good. A node that is alive must be drained first; the replicas of a dead
    /// node are re-created elsewhere.
    Remove {
        /// The node.
        node: NodeId,
        /// The node is dead and will not return.
        dead: bool,
    },
    /// A node takes over every replica of another, which leaves for good.
    Replace {
        /// The node that leaves.
        old: NodeId,
        /// The node that takes over.
        new: NodeId,
        /// The leaving node is dead and will not return.
        dead: bool,
    },
    /// One replica moves.
    Move {
        /// The move.
        planned: PlannedMove,
    },
    /// Exactly these replicas move.
    Rebalance {
        /// The moves.
        moves: Vec<PlannedMove>,
    },
}

impl Intent {
    /// The node that the operation changes; none for moves and rebalances.
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

    /// The node that the operation gives up as dead; none for operations that name no dead node.
    pub fn dead_node(&self) -> Option<NodeId> {
        match self {
            Intent::Remove { node, dead: true } | Intent::Replace { old: node, dead: true, .. } => Some(*node),
            _ => None,
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
            Intent::Replace { old, new, dead: false } => write!(f, "replace node {old} with node {new}"),
            Intent::Replace { old, new, dead: true } => write!(f, "replace dead node {old} with node {new}"),
            Intent::Move { planned: PlannedMove { shard, from, to } } => {
                write!(f, "move shard {shard} from node {from} to node {to}")
            }
            Intent::Rebalance { moves } => {
                write!(f, "rebalance {} replica{}", moves.len(), if moves.len() == 1 { "" } else { "s" })
            }
        }
    }
}

/// The state of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationState {
    /// Its goal is not reached yet.
    Running,
    /// Its goal is reached.
    Done,
    /// An operator cancelled it, or another operation made it impossible. Replicas that have moved
    /// stay where they are.
    Cancelled,
}

/// An operation on record.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// Its goal.
    pub intent: Intent,
    /// Its state.
    pub state: OperationState,
    /// When it started, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended; 0 while it runs.
    pub ended_ms: u64,
    /// Replicas that have moved for it.
    pub moved: u32,
    /// The state of its node before it started, which a cancellation restores. Not part of the JSON
    /// form.
    #[serde(skip)]
    pub node_was: Option<NodeState>,
}
