//! The bootstrap of a cluster: the voters of the topology group, the shards, and their replicas.
//!
//! The plan depends only on the fixed facts of the cluster and the descriptions of the initial
//! nodes, so every initial node plans the same. That freezes the placement of `quorate_ring`: a
//! release with another placement would refuse a bootstrap in the log.

use std::collections::{BTreeMap, BTreeSet};

use quorate_ring::{ArcTable, Candidate, PlacementError, PlacementRequest, equal_arcs, place};
use quorate_types::topology::{Bootstrap, ClusterInfo, NodeInfo, NodeState, Placement, ShardInfo};
use quorate_types::{NodeId, ReplicaId, ShardId};

use crate::limits::{self, DescriptionError, NODES_MAX};

/// Shards of a new cluster. Every client and node gets the whole map, so it must stay small.
pub const SHARDS_MAX: u32 = 4096;
/// Numbers of voters of the topology group: the largest one that there are nodes for.
pub(crate) const TOPOLOGY_VOTERS: [usize; 3] = [5, 3, 1];

/// The reason why a cluster cannot be bootstrapped. The caller must ask for something else; no
/// retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// An even number tolerates no more failures than one replica less, and more than five replicas
    /// cost more than they save.
    #[error("{0} replicas are not possible; choose 1, 3 or 5")]
    Replicas(u32),
    /// No shards, or too many.
    #[error("{0} shards are not possible; choose 1 to {SHARDS_MAX}")]
    Shards(u32),
    /// Too many initial nodes.
    #[error("{0} nodes are too many; a cluster has at most {NODES_MAX}")]
    Nodes(usize),
    /// The ids of the initial nodes are not 1, 2, 3 and so on.
    #[error("the initial nodes must be numbered 1, 2, … without a gap; expected {expected}, found {found}")]
    NodeId {
        /// The expected id.
        expected: NodeId,
        /// The given id.
        found: NodeId,
    },
    /// The description of an initial node is invalid.
    #[error("node {node}: {error}")]
    Node {
        /// The initial node.
        node: NodeId,
        /// The mistake in the description.
        error: DescriptionError,
    },
    /// Two initial nodes have the same address.
    #[error("node {node}: the address {address} also belongs to an earlier node")]
    SharedAddress {
        /// The second node with the address.
        node: NodeId,
        /// The address.
        address: String,
    },
    /// There are too few initial nodes for the replicas.
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

/// Plans a cluster: the order that every initial node records, and the shards that follow from it.
///
/// `nodes` are the initial nodes in any order, with ids 1, 2 and so on; they are active from the
/// start. The topology group gets 5, 3 or 1 of them as voters, in distinct zones where possible.
/// Replica ids start at 1: first the replicas of the topology group, then those of the shards.
///
/// ```
/// # use quorate_topology::plan_bootstrap;
/// # use quorate_types::{ClusterId, NodeId};
/// # use quorate_types::topology::{ClusterInfo, NodeAddresses, NodeInfo, NodeState};
/// let node = |id: u64| {
///     let address = |port: u64| format!("10.0.0.{id}:{port}");
///     let [client, peer, ops] = [7001, 7002, 7003].map(address);
///     let (addresses, zone) = (NodeAddresses { client, peer, ops }, String::new());
///     NodeInfo { id: NodeId(id), addresses, zone, weight: 100, state: NodeState::Active }
/// };
/// let cluster = ClusterInfo { id: ClusterId(1), hash_key: [7; 16], replicas: 3, shards: 16 };
/// let (bootstrap, shards) = plan_bootstrap(&cluster, &[node(1), node(2), node(3)])?;
/// assert_eq!((bootstrap.topology_replicas.len(), shards.len()), (3, 16));
/// # Ok::<(), quorate_topology::BootstrapError>(())
/// ```
pub fn plan_bootstrap(
    cluster: &ClusterInfo,
    nodes: &[NodeInfo],
) -> Result<(Bootstrap, Vec<ShardInfo>), BootstrapError> {
    let mut nodes: Vec<NodeInfo> =
        nodes.iter().map(|node| NodeInfo { state: NodeState::Active, ..node.clone() }).collect();
    nodes.sort_by_key(|node| node.id);
    check(cluster, &nodes)?;
    let voters = (1..).map(ReplicaId).zip(topology_voters(&nodes));
    let topology_replicas = voters.map(|(replica, node)| Placement { replica, node }).collect();
    let bootstrap = Bootstrap { cluster: cluster.clone(), nodes, topology_replicas };
    let shards = bootstrap_shards(&bootstrap)?;
    Ok((bootstrap, shards))
}

/// The shards that follow from a bootstrap, by the start of their arcs. Its
/// [`quorate_types::topology::Command::Bootstrap`] must carry exactly these.
pub fn bootstrap_shards(bootstrap: &Bootstrap) -> Result<Vec<ShardInfo>, BootstrapError> {
    let Bootstrap { cluster, nodes, topology_replicas } = bootstrap;
    let shards = (1..).map(ShardId).zip(equal_arcs(cluster.shards));
    let arcs = ArcTable::new(shards.clone()).map_err(|_| BootstrapError::Shards(cluster.shards))?;
    let candidate = |node: &NodeInfo| Candidate { id: node.id, zone: node.zone.clone(), weight: node.weight };
    let nodes: Vec<Candidate> = nodes.iter().map(candidate).collect();
    let request =
        PlacementRequest { hash_key: &cluster.hash_key, nodes: &nodes, shards: &arcs, replicas: cluster.replicas };

    let last = topology_replicas.iter().map(|placement| placement.replica.0).max().unwrap_or(0);
    let mut ids = (last + 1..).map(ReplicaId);
    let shard = |((id, arc), (_, nodes)): ((ShardId, _), (_, Vec<NodeId>))| {
        let initial_replicas: Vec<Placement> =
            ids.by_ref().zip(nodes).map(|(replica, node)| Placement { replica, node }).collect();
        ShardInfo { id, arc, epoch: 1, replicas: initial_replicas.clone(), initial_replicas }
    };
    Ok(shards.zip(place(&request)?).map(shard).collect())
}

/// Checks the conditions that the placement does not check.
fn check(cluster: &ClusterInfo, nodes: &[NodeInfo]) -> Result<(), BootstrapError> {
    if ![1, 3, 5].contains(&cluster.replicas) {
        return Err(BootstrapError::Replicas(cluster.replicas));
    }
    if cluster.shards == 0 || cluster.shards > SHARDS_MAX {
        return Err(BootstrapError::Shards(cluster.shards));
    }
    if nodes.len() > NODES_MAX {
        return Err(BootstrapError::Nodes(nodes.len()));
    }
    let mut taken = BTreeSet::new();
    for (expected, NodeInfo { id: node, addresses, zone, weight, .. }) in (1..).map(NodeId).zip(nodes) {
        if *node != expected {
            return Err(BootstrapError::NodeId { expected, found: *node });
        }
        limits::check_node(addresses, zone, *weight).map_err(|error| BootstrapError::Node { node: *node, error })?;
        if let Some(address) = limits::all(addresses).find(|&address| !taken.insert(address)) {
            return Err(BootstrapError::SharedAddress { node: *node, address: address.into() });
        }
    }
    Ok(())
}

/// The nodes that vote in the topology group, by id: first one of every zone, then a second one of
/// every zone, and so on.
fn topology_voters(nodes: &[NodeInfo]) -> Vec<NodeId> {
    let mut of_zone: BTreeMap<&str, usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, NodeId)> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let rank = of_zone.entry(&node.zone).or_default();
        ranked.push((*rank, node.id));
        *rank += 1;
    }
    ranked.sort_unstable();
    let voters = TOPOLOGY_VOTERS.into_iter().find(|&voters| voters <= nodes.len()).unwrap_or(0);
    let mut chosen: Vec<NodeId> = ranked.into_iter().take(voters).map(|(_, node)| node).collect();
    chosen.sort_unstable();
    assert_eq!(chosen.len(), voters, "the topology group gets as many voters as there are nodes for");
    chosen
}
