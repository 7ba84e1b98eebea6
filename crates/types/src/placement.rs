//! Where replicas are, and the state of the nodes that hold them.

use std::fmt;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{NodeId, ReplicaId};

/// A replica and the node that it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Placement {
    /// The replica.
    pub replica: ReplicaId,
    /// The node.
    pub node: NodeId,
}

/// The state of a node in its life cycle. Displays in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Has an id, and no replicas yet.
    Joining,
    /// Holds replicas.
    Active,
    /// Keeps running while its replicas move to other nodes.
    Draining,
    /// Left the cluster for good; its id is never used again.
    Removed,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeState::Joining => "joining",
            NodeState::Active => "active",
            NodeState::Draining => "draining",
            NodeState::Removed => "removed",
        })
    }
}
