//! The replicas that a node holds.

use std::fmt;

use quorate_types::{GroupId, NodeId};

use super::cluster::ClusterState;

/// The replicas that the map has on a node or that move to it. Displays as a phrase:
/// `2 replicas and one of the topology group`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    shards: usize,
    topology: usize,
}

impl Held {
    /// Counts the replicas of a node.
    pub(crate) fn by(state: &ClusterState, node: NodeId) -> Held {
        let settled = state.shards.values().flat_map(|shard| &shard.replicas);
        let settled = settled.map(|at| (false, at.node));
        let topology = state.topology_replicas().iter().map(|at| (true, at.node));
        let moving = state.moves.values().filter_map(|moving| {
            let to = moving.to?;
            Some((moving.group == GroupId::TOPOLOGY, to.node))
        });
        let mut held = Held { shards: 0, topology: 0 };
        for (of_topology, _) in settled.chain(topology).chain(moving).filter(|(_, at)| *at == node) {
            *(if of_topology { &mut held.topology } else { &mut held.shards }) += 1;
        }
        // Two while one replaces the other on its own node.
        assert!(held.topology <= 2, "node {node} has {} replicas of the topology group", held.topology);
        held
    }

    /// The number of replicas, that of the topology group included.
    pub(crate) fn total(self) -> usize {
        self.shards + self.topology
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shards = match self.shards {
            0 => None,
            1 => Some("1 replica".to_owned()),
            many => Some(format!("{many} replicas")),
        };
        let topology = match self.topology {
            0 => None,
            1 => Some("one of the topology group".to_owned()),
            many => Some(format!("{many} of the topology group")),
        };
        let parts: Vec<String> = shards.into_iter().chain(topology).collect();
        f.write_str(&parts.join(" and "))
    }
}
