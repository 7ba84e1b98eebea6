//! One version of the cluster's map: from a key to its shard and the nodes of its replicas.
//!
//! A map is never changed. The next version takes over the connections, the known leaders and the
//! sessions of the one before.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use quorate_ring::{ArcError, ArcTable, token};
use quorate_types::topology::{NodeInfo, NodeState, ShardInfo, Topology};
use quorate_types::{Key, NodeId, ShardId};

use crate::live::Live;
use crate::node::{Node, Route};
use crate::{Network, RouterConfig, Target};

/// One version of the cluster's map.
pub(crate) struct Map {
    topology: Arc<Topology>,
    arcs: ArcTable,
    shards: HashMap<ShardId, Arc<Shard>>,
    /// The nodes that the router may use.
    nodes: HashMap<NodeId, Arc<Node>>,
    /// The nodes that a pinned router may not use.
    barred: HashSet<NodeId>,
}

/// A shard in this version of the map.
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) epoch: u64,
    /// The nodes of its replicas; the first is where its leader should be.
    pub(crate) replicas: Vec<NodeId>,
    /// The state of the shard that the next version takes over.
    pub(crate) live: Arc<Live>,
}

impl Shard {
    /// The route of requests that are sent by this entry of the map.
    pub(crate) fn route(&self) -> Route {
        Route { shard: self.id, epoch: self.epoch }
    }
}

impl Map {
    /// The map of a topology. Takes over connections and shard state from the map before it.
    ///
    /// # Errors
    ///
    /// When the shards do not cover the ring exactly once.
    pub(crate) fn new(
        topology: Topology,
        before: Option<&Map>,
        config: &RouterConfig,
        network: &dyn Network,
    ) -> Result<Self, ArcError> {
        let arcs = ArcTable::new(topology.shards.iter().map(|shard| (shard.id, shard.arc)))?;
        let shards = topology
            .shards
            .iter()
            .map(|info| {
                let live = before.and_then(|map| map.shards.get(&info.id)).map(|shard| Arc::clone(&shard.live));
                let replicas = info.replicas.iter().map(|placement| placement.node).collect();
                let shard = Shard { id: info.id, epoch: info.epoch, replicas, live: live.unwrap_or_default() };
                (info.id, Arc::new(shard))
            })
            .collect();
        let nodes: HashMap<NodeId, Arc<Node>> = topology
            .nodes
            .iter()
            .filter(|info| info.state != NodeState::Removed && config.allows(&info.addresses.client))
            .map(|info| {
                let target =
                    Target { cluster: topology.cluster.id, node: info.id, address: info.addresses.client.clone() };
                let kept = before.and_then(|map| map.nodes.get(&info.id)).filter(|node| *node.target() == target);
                (info.id, kept.map_or_else(|| Arc::new(Node::new(target, network)), Arc::clone))
            })
            .collect();
        let is_barred = |info: &&NodeInfo| info.state != NodeState::Removed && !config.allows(&info.addresses.client);
        let barred = topology.nodes.iter().filter(is_barred).map(|info| info.id).collect();
        Ok(Map { topology: Arc::new(topology), arcs, shards, nodes, barred })
    }

    /// The map with a newer entry of one shard. None if the entry is not newer, or does not fit the
    /// other shards.
    pub(crate) fn with_entry(&self, entry: ShardInfo, config: &RouterConfig, network: &dyn Network) -> Option<Self> {
        let mut topology = Topology::clone(&self.topology);
        let place = topology.shards.iter_mut().find(|shard| shard.id == entry.id && shard.epoch < entry.epoch)?;
        *place = entry;
        Map::new(topology, Some(self), config, network).ok()
    }

    pub(crate) fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// The shard that owns the key.
    pub(crate) fn route(&self, key: &Key) -> &Arc<Shard> {
        let shard = self.arcs.lookup(token(&self.topology.cluster.hash_key, key));
        self.shards.get(&shard).expect("arcs and shards come from the same list")
    }

    /// The shard, if the cluster has it.
    pub(crate) fn shard(&self, id: ShardId) -> Option<&Arc<Shard>> {
        self.shards.get(&id)
    }

    /// The node, if the cluster has it and the router may use it.
    pub(crate) fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// Whether the router is pinned to other nodes than this one.
    pub(crate) fn is_barred(&self, id: NodeId) -> bool {
        self.barred.contains(&id)
    }

    /// The client addresses of all nodes that the router may use, in the topology's order.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &str> {
        let nodes = self.topology.nodes.iter().filter_map(|info| self.node(info.id));
        nodes.map(|node| node.target().address.as_str())
    }
}
