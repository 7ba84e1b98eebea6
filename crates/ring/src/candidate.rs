//! A node as a candidate for replicas.

use quorate_types::NodeId;

/// The largest weight of a node: a hundred times the default of 100. It bounds the points on the
/// ring.
pub const WEIGHT_MAX: u32 = 10_000;

/// A node that may hold replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub id: NodeId,
    /// The failure domain. Nodes with an empty one count as one zone.
    pub zone: String,
    /// The share of the replicas relative to other nodes, 100 by default, up to [`WEIGHT_MAX`]. A
    /// node of weight 0 gets no replicas.
    pub weight: u32,
}
