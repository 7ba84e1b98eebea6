//! The moves that balance the map.

use quorate_ring::{ArcTable, Candidate, Move, PlacementRequest, rebalance};
use quorate_types::NodeId;
use quorate_types::topology::NodeState;

use super::open_moves::named_shards;
use super::targets::nodes_after;
use crate::state::{ClusterState, plans};

/// The moves that balance the map as it will be once the moves in motion are done. None if there
/// are too few nodes.
pub(super) fn balancing_moves(cluster: &ClusterState) -> Vec<Move> {
    let Some(bootstrap) = cluster.bootstrap() else { return Vec::new() };
    let active = cluster.nodes.values().filter(|node| node.state == NodeState::Active);
    let nodes: Vec<Candidate> =
        active.map(|node| Candidate { id: node.id, zone: node.zone.clone(), weight: node.weight }).collect();
    let Ok(shards) = ArcTable::new(cluster.shards.values().map(|shard| (shard.id, shard.arc))) else {
        return Vec::new();
    };
    let current: Vec<_> = cluster.shards.keys().map(|&shard| (shard, nodes_after(cluster, shard))).collect();
    let request = PlacementRequest {
        hash_key: &bootstrap.cluster.hash_key,
        nodes: &nodes,
        shards: &shards,
        replicas: bootstrap.cluster.replicas,
    };
    rebalance(&request, &current).unwrap_or_default()
}

/// The moves that would balance the map and that an operator may start now, because no other
/// operation moves their shards. None if there are too few nodes.
pub fn possible_moves(cluster: &ClusterState) -> Vec<Move> {
    let named = named_shards(cluster);
    let is_free = |wanted: &Move| {
        let nodes = cluster.shards.get(&wanted.shard).map(|shard| shard.replicas.iter().map(|at| at.node).collect());
        let emptied = nodes.is_some_and(|nodes: Vec<NodeId>| plans::emptied_by(cluster, &nodes).is_some());
        !emptied && !named.contains(&wanted.shard) && !cluster.moves.contains_key(&wanted.shard.group())
    };
    balancing_moves(cluster).into_iter().filter(is_free).collect()
}
