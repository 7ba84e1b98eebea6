//! The bootstrap of a cluster: who votes in group 0, which shards there are, and who has their replicas.
//!
//! Everything here follows from the cluster's fixed facts and the initial nodes' descriptions alone, so that every initial node plans
//! the same. That freezes the placement of `quorate_ring`: a release that placed otherwise would refuse a bootstrap in the log.

use std::collections::{BTreeMap, BTreeSet};

use quorate_ring::{ArcTable, Candidate, PlacementError, PlacementRequest, equal_arcs, place};
use quorate_types::topology::{Bootstrap, ClusterInfo, NodeInfo, NodeState, Placement, ShardInfo};
use quorate_types::{NodeId, ReplicaId, ShardId};

use crate::limits::{self, DescriptionError, NODES_MAX};

/// Shards of a new cluster. The map goes to every client and node whole: it must stay small.
pub const SHARDS_MAX: u32 = 4096;
/// Voters of group 0: as many as there are initial nodes for.
pub(crate) const TOPOLOGY_VOTERS: [usize; 3] = [5, 3, 1];

/// Why a cluster cannot be bootstrapped like this. Whoever asked must ask for something else; no retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// An even number of replicas survives no more than one less, and more than five cost more than they save.
    #[error("{0} replicas are not possible; choose 1, 3 or 5")]
    Replicas(u32),
    /// No shards, or too many.
    #[error("{0} shards are not possible; choose 1 to {SHARDS_MAX}")]
    Shards(u32),
    /// Too many initial nodes.
    #[error("{0} nodes are too many; a cluster has at most {NODES_MAX}")]
    Nodes(usize),
    /// The initial nodes' ids are given out in order.
    #[error("the initial nodes must be numbered 1, 2, … without a gap; there is {found} where {expected} should be")]
    NodeId {
        /// The id that should be there.
        expected: NodeId,
        /// The id that is.
        found: NodeId,
    },
    /// A initial node's description is not usable.
    #[error("node {node}: {error}")]
    Node {
        /// The initial node.
        node: NodeId,
        /// The mistake in the description.
        error: DescriptionError,
    },
    /// Two initial nodes have the same address.
    #[error("node {node}: the address {address} belongs to an earlier node too")]
    SharedAddress {
        /// The later one of the two.
        node: NodeId,
        /// The address.
        address: String,
    },
    /// There are not enough initial nodes for the replicas.
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

/// Plans a cluster: the order that every initial node records, and the shards that follow from it.
///
/// `nodes` are the initial nodes in any order, with ids 1, 2, …; they are active from the start. Group 0 gets 5, 3 or 1 of them as
/// voters, in distinct zones where possible. Replica ids start at 1: first the topology's, then the shards'.
///
/// ```
/// # use quorate_topology::plan_bootstrap;
/// # use quorate_types::{ClusterId, NodeId};
/// # use quorate_types::topology::{ClusterInfo, NodeAddresses, NodeInfo, NodeState};
/// let node = |id: u64| {
///     let address = |port: u64| format!("10.0.0.{id}:{port}");
///     let addresses = NodeAddresses { client: address(7001), peer: address(7002), ops: address(7003) };
///     NodeInfo { id: NodeId(id), addresses, zone: String::new(), weight: 100, state: NodeState::Active }
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

/// The shards that follow from a bootstrap, by the start of their arcs: what its `Found` command must say.
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

/// Checks everything that the placement does not.
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

/// The nodes that vote in group 0, by id: first one of every zone, then a second one of every zone, and so on.
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
    chosen
}
