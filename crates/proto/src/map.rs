//! The cluster's map in its wire form.
//!
//! The initial replicas of a shard stay inside the cluster: a map from the wire has none.

use quorate_types::topology::{ClusterInfo, NodeAddresses, NodeInfo, NodeState, Placement, ShardInfo, Topology};
use quorate_types::{ClusterId, NodeId, ReplicaId, ShardId, Token, TokenArc};

use crate::convert::WireError;
use crate::{admin, kv};

impl From<Placement> for kv::Placement {
    fn from(placement: Placement) -> Self {
        kv::Placement { replica: placement.replica.0, node: placement.node.0 }
    }
}

impl From<kv::Placement> for Placement {
    fn from(placement: kv::Placement) -> Self {
        Placement { replica: ReplicaId(placement.replica), node: NodeId(placement.node) }
    }
}

impl From<ShardInfo> for kv::Shard {
    fn from(shard: ShardInfo) -> Self {
        kv::Shard {
            id: shard.id.0,
            arc_start: shard.arc.start.0,
            arc_end: shard.arc.end.0,
            epoch: shard.epoch,
            replicas: shard.replicas.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<kv::Shard> for ShardInfo {
    type Error = WireError;

    fn try_from(shard: kv::Shard) -> Result<Self, WireError> {
        if shard.id == 0 {
            return Err(WireError::new("a shard without a number"));
        }
        Ok(ShardInfo {
            id: ShardId(shard.id),
            arc: TokenArc { start: Token(shard.arc_start), end: Token(shard.arc_end) },
            epoch: shard.epoch,
            replicas: shard.replicas.into_iter().map(Into::into).collect(),
            initial_replicas: Vec::new(),
        })
    }
}

impl From<NodeInfo> for admin::Node {
    fn from(node: NodeInfo) -> Self {
        admin::Node {
            id: node.id.0,
            client_address: node.addresses.client,
            peer_address: node.addresses.peer,
            ops_address: node.addresses.ops,
            zone: node.zone,
            weight: node.weight,
            state: match node.state {
                NodeState::Joining => "joining",
                NodeState::Active => "active",
                NodeState::Draining => "draining",
                NodeState::Removed => "removed",
            }
            .to_owned(),
        }
    }
}

impl TryFrom<admin::Node> for NodeInfo {
    type Error = WireError;

    fn try_from(node: admin::Node) -> Result<Self, WireError> {
        if node.id == 0 {
            return Err(WireError::new("a node without a number"));
        }
        let state = match node.state.as_str() {
            "joining" => NodeState::Joining,
            "active" => NodeState::Active,
            "draining" => NodeState::Draining,
            "removed" => NodeState::Removed,
            other => return Err(WireError(format!("node {} is in the unknown state '{other}'", node.id))),
        };
        Ok(NodeInfo {
            id: NodeId(node.id),
            addresses: NodeAddresses { client: node.client_address, peer: node.peer_address, ops: node.ops_address },
            zone: node.zone,
            weight: node.weight,
            state,
        })
    }
}

impl From<Topology> for admin::Topology {
    fn from(topology: Topology) -> Self {
        admin::Topology {
            cluster_id: topology.cluster.id.to_string(),
            hash_key: topology.cluster.hash_key.to_vec().into(),
            revision: topology.revision,
            replicas: topology.cluster.replicas,
            initial_shards: topology.cluster.shards,
            nodes: topology.nodes.into_iter().map(Into::into).collect(),
            shards: topology.shards.into_iter().map(Into::into).collect(),
            topology_replicas: topology.topology_replicas.into_iter().map(Into::into).collect(),
            moves: topology.moves.into_iter().map(Into::into).collect(),
            paused: topology.paused,
        }
    }
}

impl TryFrom<admin::Topology> for Topology {
    type Error = WireError;

    fn try_from(topology: admin::Topology) -> Result<Self, WireError> {
        let id: ClusterId = topology
            .cluster_id
            .parse()
            .map_err(|_| WireError(format!("'{}' is not a cluster id", topology.cluster_id.escape_debug())))?;
        let hash_key = <[u8; 16]>::try_from(topology.hash_key.as_ref())
            .map_err(|_| WireError(format!("the hash key has {} bytes, not 16", topology.hash_key.len())))?;
        let mut shards = try_all::<_, ShardInfo>(topology.shards)?;
        shards.sort_by_key(|shard| shard.arc.start);
        let mut nodes = try_all::<_, NodeInfo>(topology.nodes)?;
        nodes.sort_by_key(|node| node.id);
        Ok(Topology {
            revision: topology.revision,
            cluster: ClusterInfo { id, hash_key, replicas: topology.replicas, shards: topology.initial_shards },
            nodes,
            shards,
            topology_replicas: topology.topology_replicas.into_iter().map(Into::into).collect(),
            moves: topology.moves.into_iter().map(Into::into).collect(),
            paused: topology.paused,
        })
    }
}

fn try_all<W, T: TryFrom<W, Error = WireError>>(wire: Vec<W>) -> Result<Vec<T>, WireError> {
    wire.into_iter().map(TryInto::try_into).collect()
}
