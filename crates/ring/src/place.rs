//! The proposed placement: which nodes should hold each shard's replicas.

use std::collections::BTreeSet;

use quorate_types::{NodeId, ShardId};

use crate::arcs::ArcTable;
use crate::assign::{Assignment, Limit};
use crate::leaders;
use crate::points::Points;
use crate::zones::ZoneRule;

/// The heaviest node: a hundred times the default of 100. It bounds the points on the ring.
pub const WEIGHT_MAX: u32 = 10_000;

/// No node carries more than the mean (by weight) times this, rounded up.
const LOAD_BOUND: Ratio = Ratio { numerator: 11, denominator: 10 };

struct Ratio {
    numerator: u128,
    denominator: u128,
}

/// A node that may be given replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub id: NodeId,
    /// The part of the world that fails together with it; nodes with an empty one count as one zone.
    pub zone: String,
    /// Its share relative to other nodes, 100 by default, up to [`WEIGHT_MAX`]. A node of weight 0 is given nothing.
    pub weight: u32,
}

/// What [`place`] goes by.
#[derive(Clone, Copy, Debug)]
pub struct PlacementRequest<'a> {
    /// The cluster's hash key.
    pub hash_key: &'a [u8; 16],
    /// The nodes, in any order.
    pub nodes: &'a [Candidate],
    /// The shards and their arcs.
    pub shards: &'a ArcTable,
    /// Replicas of every shard, from 1.
    pub replicas: u32,
}

/// Why there is no placement. The caller must change the request; no retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Zero replicas were asked for.
    #[error("a shard needs at least one replica")]
    NoReplicas,
    /// A node is there twice.
    #[error("node {0} is there twice")]
    DuplicateNode(NodeId),
    /// A node is heavier than [`WEIGHT_MAX`].
    #[error("node {node} has weight {weight}; a node has at most {WEIGHT_MAX}")]
    TooHeavy {
        /// The node.
        node: NodeId,
        /// Its weight.
        weight: u32,
    },
    /// There are nodes, but every one has weight 0.
    #[error("every node has weight 0")]
    NoWeight,
    /// Replicas of a shard must be on distinct nodes, and there are fewer.
    #[error("{replicas} replicas need {replicas} nodes with a weight above 0; there are {nodes}")]
    TooFewNodes {
        /// Nodes with a weight above 0.
        nodes: usize,
        /// Replicas asked for.
        replicas: u32,
    },
}

/// Proposes the nodes of every shard, by shard id; the first of each is where its leader should be.
///
/// * The nodes of a shard are distinct and in distinct zones; where there are fewer zones than replicas, they are spread over
///   the zones as evenly as the zones' sizes allow.
/// * Zones come first, then load: no node has more than ceil(1.1 × its share by weight), if that is possible at all. Where
///   it is not (one node in a zone that every shard needs), just that much is exceeded.
/// * Then nearness: walking the ring of the nodes' points clockwise from the start of its arc, a shard takes the first nodes
///   it can have. So one node more or less moves little beyond that node's own share.
/// * Preferred leaders are spread by weight as evenly as the placement allows.
/// * The answer depends on what is in the request and not on its order. It is frozen: initial nodes of a cluster, and replicas of
///   group 0 of different releases, must compute the same.
///
/// ```
/// # use quorate_ring::{ArcTable, Candidate, PlacementRequest, equal_arcs, place};
/// # use quorate_types::{NodeId, ShardId};
/// let nodes: Vec<_> = (1..=5).map(|id| Candidate { id: NodeId(id), zone: format!("rack {id}"), weight: 100 }).collect();
/// let shards = ArcTable::new((1..).map(ShardId).zip(equal_arcs(16)))?;
/// let placement = place(&PlacementRequest { hash_key: &[7; 16], nodes: &nodes, shards: &shards, replicas: 3 })?;
/// assert_eq!(placement.len(), 16);
/// assert!(placement.iter().all(|(_, nodes)| nodes.len() == 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn place(request: &PlacementRequest<'_>) -> Result<Vec<(ShardId, Vec<NodeId>)>, PlacementError> {
    let candidates = eligible(request)?;
    let mut shards: Vec<_> = request.shards.iter().collect();
    shards.sort_by_key(|&(shard, _)| shard);

    let points = Points::new(request.hash_key, &candidates);
    let walks: Vec<_> = shards.iter().map(|&(_, arc)| points.walk(arc.start)).collect();
    let limits = limits(&candidates, shards.len(), request.replicas);
    let zones = ZoneRule::new(&candidates, request.replicas);
    let assignment = Assignment { walks: &walks, zones: &zones, replicas: request.replicas as usize, limits: &limits };
    let mut nodes = assignment.solve();
    let weights: Vec<u32> = candidates.iter().map(|candidate| candidate.weight).collect();
    leaders::balance(&mut nodes, &weights);

    let named = |nodes: Vec<usize>| nodes.into_iter().map(|node| candidates[node].id).collect();
    Ok(shards.iter().zip(nodes).map(|(&(shard, _), nodes)| (shard, named(nodes))).collect())
}

/// The nodes that may be given anything, by id.
pub(crate) fn eligible(request: &PlacementRequest<'_>) -> Result<Vec<Candidate>, PlacementError> {
    let PlacementRequest { nodes, replicas, .. } = *request;
    let mut seen = BTreeSet::new();
    for &Candidate { id: node, weight, .. } in nodes {
        if !seen.insert(node) {
            return Err(PlacementError::DuplicateNode(node));
        }
        if weight > WEIGHT_MAX {
            return Err(PlacementError::TooHeavy { node, weight });
        }
    }
    let mut candidates: Vec<Candidate> = nodes.iter().filter(|node| node.weight > 0).cloned().collect();
    candidates.sort_by_key(|candidate| candidate.id);
    match candidates.len() {
        _ if replicas == 0 => Err(PlacementError::NoReplicas),
        0 if !nodes.is_empty() => Err(PlacementError::NoWeight),
        nodes if nodes < replicas as usize => Err(PlacementError::TooFewNodes { nodes, replicas }),
        _ => Ok(candidates),
    }
}

/// What each candidate may carry: ceil([`LOAD_BOUND`] × its share of all replicas by weight).
pub(crate) fn limits(candidates: &[Candidate], shards: usize, replicas: u32) -> Vec<Limit> {
    let all = shards as u128 * u128::from(replicas);
    let weights: u128 = candidates.iter().map(|candidate| u128::from(candidate.weight)).sum();
    let limit = |candidate: &Candidate| {
        let share = all * u128::from(candidate.weight) * LOAD_BOUND.numerator;
        let bound = share.div_ceil(weights * LOAD_BOUND.denominator);
        Limit { bound: usize::try_from(bound).unwrap_or(usize::MAX), weight: candidate.weight }
    };
    candidates.iter().map(limit).collect()
}
