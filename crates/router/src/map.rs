//! One version of the cluster's map, as operations use it: from a key to its shard and the nodes of its replicas.
//!
//! A map is never changed. The next version takes over from the one before what outlives it: connections, leaders, sessions.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_ring::{ArcError, ArcTable, token};
use quorate_types::topology::{NodeInfo, NodeState, ShardInfo, Topology};
use quorate_types::{Key, NodeId, ShardId};

use crate::RouterConfig;
use crate::node::{Node, Target};
use crate::session::Sessions;

/// One version of the cluster's map.
pub(crate) struct Map {
    topology: Arc<Topology>,
    arcs: ArcTable,
    shards: HashMap<ShardId, Arc<Shard>>,
    /// Those that may be talked to.
    nodes: HashMap<NodeId, Arc<Node>>,
    /// Those that may not.
    barred: HashSet<NodeId>,
}

/// A shard as this version of the map has it.
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) epoch: u64,
    /// The nodes of its replicas; the first is where its leader should be.
    pub(crate) replicas: Vec<NodeId>,
    /// What outlives the version.
    pub(crate) live: Arc<Live>,
}

/// What the router knows of a shard beside the map.
#[derive(Default)]
pub(crate) struct Live {
    /// The node that led when somebody last said so; 0: not known.
    leader: AtomicU64,
    /// The writes' session.
    pub(crate) sessions: Sessions,
}

impl Live {
    pub(crate) fn leader(&self) -> Option<NodeId> {
        match self.leader.load(Ordering::Relaxed) {
            0 => None,
            node => Some(NodeId(node)),
        }
    }

    pub(crate) fn set_leader(&self, node: NodeId) {
        // Mostly it is set to what it is: then other cores keep their copy.
        if self.leader.load(Ordering::Relaxed) != node.0 {
            self.leader.store(node.0, Ordering::Relaxed);
        }
    }

    /// Forgets the leader if it is this node.
    pub(crate) fn forget_leader(&self, node: NodeId) {
        _ = self.leader.compare_exchange(node.0, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Map {
    /// The map of a topology, taking over what lives on. Refuses shards that do not cover the ring exactly once.
    pub(crate) fn new(topology: Topology, before: Option<&Map>, config: &RouterConfig) -> Result<Self, ArcError> {
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
                let target = Target {
                    cluster: topology.cluster.id,
                    node: info.id,
                    address: info.addresses.client.clone(),
                    connect_timeout: config.connect_timeout,
                };
                let kept = before.and_then(|map| map.nodes.get(&info.id)).filter(|node| *node.target() == target);
                (info.id, kept.map_or_else(|| Arc::new(Node::new(target)), Arc::clone))
            })
            .collect();
        let is_barred = |info: &&NodeInfo| info.state != NodeState::Removed && !config.allows(&info.addresses.client);
        let barred = topology.nodes.iter().filter(is_barred).map(|info| info.id).collect();
        Ok(Map { topology: Arc::new(topology), arcs, shards, nodes, barred })
    }

    /// The map with a shard's newer entry, as a node told it; none if it is not newer, or fits no more with the other shards.
    pub(crate) fn with_entry(&self, entry: ShardInfo, config: &RouterConfig) -> Option<Self> {
        let mut topology = Topology::clone(&self.topology);
        let place = topology.shards.iter_mut().find(|shard| shard.id == entry.id && shard.epoch < entry.epoch)?;
        *place = entry;
        Map::new(topology, Some(self), config).ok()
    }

    pub(crate) fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// The shard that owns the key.
    pub(crate) fn route(&self, key: &Key) -> &Arc<Shard> {
        let shard = self.arcs.lookup(token(&self.topology.cluster.hash_key, key));
        self.shards.get(&shard).expect("arcs and shards are made of the same list")
    }

    /// The shard, unless the cluster does not have it (any more).
    pub(crate) fn shard(&self, id: ShardId) -> Option<&Arc<Shard>> {
        self.shards.get(&id)
    }

    /// The node, unless the cluster does not have it (any more).
    pub(crate) fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// Whether this node may not be talked to, because the router is pinned to others.
    pub(crate) fn is_barred(&self, id: NodeId) -> bool {
        self.barred.contains(&id)
    }

    /// The client addresses of all nodes that may be talked to.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &str> {
        self.nodes.values().map(|node| node.target().address.as_str())
    }
}
