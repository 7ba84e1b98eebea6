//! The proposed placement: the nodes of each shard's replicas.

use std::collections::BTreeSet;

use quorate_types::{NodeId, ShardId};

use crate::arcs::ArcTable;
use crate::assign::{Assignment, Limit};
use crate::candidate::{Candidate, WEIGHT_MAX};
use crate::leaders;
use crate::points::Points;
use crate::zones::ZoneRule;

/// The largest load of a node, relative to its share by weight, rounded up.
const LOAD_BOUND: Ratio = Ratio { numerator: 11, denominator: 10 };

struct Ratio {
    numerator: u128,
    denominator: u128,
}

/// The input of [`place`].
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

/// The reason why there is no placement. The caller must change the request; no retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// The request has zero replicas.
    #[error("a shard needs at least one replica")]
    NoReplicas,
    /// The request has a node twice.
    #[error("node {0} is listed twice")]
    DuplicateNode(NodeId),
    /// A node's weight is above [`WEIGHT_MAX`].
    #[error("node {node} has weight {weight}; a node has at most {WEIGHT_MAX}")]
    TooHeavy {
        /// The node.
        node: NodeId,
        /// Its weight.
        weight: u32,
    },
    /// Every node has weight 0.
    #[error("every node has weight 0")]
    NoWeight,
    /// There are fewer nodes than replicas, and replicas of a shard must be on distinct nodes.
    #[error("{replicas} replicas need {replicas} nodes with a weight above 0; there are {nodes}")]
    TooFewNodes {
        /// Nodes with a weight above 0.
        nodes: usize,
        /// Replicas in the request.
        replicas: u32,
    },
}

/// Proposes the nodes of every shard, by shard id. The first node of each is its preferred leader.
///
/// * The nodes of a shard are distinct and in distinct zones. If there are fewer zones than
///   replicas, they are spread over the zones as evenly as the sizes of the zones allow.
/// * Zones come first, then load: no node has more than ceil(1.1 × its share by weight), if any
///   placement allows that. If none does (one node in a zone that every shard needs), the bound is
///   exceeded by the minimum.
/// * Then distance: a shard takes the first possible nodes clockwise from the start of its arc on
///   the ring of the nodes' points. So a node that joins or leaves moves little beyond its own
///   share.
/// * Preferred leaders are balanced by weight, as evenly as the placement allows.
/// * The result depends on the content of the request and not on its order. It is frozen: the
///   initial nodes of a cluster, and topology replicas of different releases, must compute the
///   same.
///
/// ```
/// # use quorate_ring::{ArcTable, Candidate, PlacementRequest, equal_arcs, place};
/// # use quorate_types::{NodeId, ShardId};
/// let node = |id| Candidate { id: NodeId(id), zone: format!("rack {id}"), weight: 100 };
/// let nodes: Vec<_> = (1..=5).map(node).collect();
/// let shards = &ArcTable::new((1..).map(ShardId).zip(equal_arcs(16)))?;
/// let request = PlacementRequest { hash_key: &[7; 16], nodes: &nodes, shards, replicas: 3 };
/// let placement = place(&request)?;
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

/// The nodes with a weight, by id.
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

/// The limit of each candidate: ceil([`LOAD_BOUND`] × its share of all replicas by weight).
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
