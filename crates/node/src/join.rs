//! Joins a running cluster: asks the configured nodes, and gets an id.
//!
//! A node without a cluster waits for one of two events: an order to bootstrap a cluster that names
//! it, or an answer of a configured node that is in a cluster. It registers only in the second
//! case, if all answers name the same cluster and if that cluster has no node at these addresses
//! that is past joining: such a node has lost its data directory, and must not return as if it had
//! not.

use std::sync::Arc;
use std::time::Duration;

use quorate_control::peers::WATCH_WAIT;
use quorate_control::{PeerAddress, PeerError, ProposeError, Proposer};
use quorate_types::topology::{Command, Identity, NodeAddresses, NodeState, Outcome, Topology};
use quorate_types::{ClusterId, NodeId};
use tracing::{debug, info, warn};

use crate::data_dir::DataDirError;
use crate::fatal::fail_stop;
use crate::handshake;
use crate::node::Node;
use crate::peer::{GrpcPeers, PeerCaller, PeerTransport, get_nodes};
use crate::tasks::enter_cluster;

/// Why this node has not joined yet. It tries again in each case.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    /// A node of the cluster did not answer.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The topology group did not answer.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The data directory cannot be read.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The configured nodes are in different clusters.
    #[error("{first} is in cluster {cluster}, but {address} is in cluster {other}; name nodes of one cluster")]
    TwoClusters { first: String, cluster: ClusterId, address: String, other: ClusterId },
    /// The cluster has a node at this node's addresses that is past joining.
    #[error(
        "cluster {cluster} has node {node} at these addresses already, which is not this one. If it lost its data \
         directory: quorate node remove {node} --dead --confirm {client} – this one joins by itself then. Else start this \
         one at other addresses"
    )]
    Occupied { cluster: ClusterId, node: NodeId, client: String },
    /// The cluster refuses this node.
    #[error("the cluster refuses this node: {0}")]
    Refused(String),
}

/// The pause between two rounds of calls.
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// How long the cluster may take to assign an id.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks until this node is in a cluster, by joining or by bootstrap.
pub(crate) async fn run(node: Arc<Node>) {
    let mut said = None;
    while node.cluster_node().is_none() {
        if let Err(reason) = try_join(&node).await {
            let reason = reason.to_string();
            // Logged once, not every second.
            if said.as_ref() != Some(&reason) {
                warn!(reason, "not joined yet");
                said = Some(reason);
            }
        }
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

async fn try_join(node: &Arc<Node>) -> Result<(), JoinError> {
    let Some((cluster, peer_address)) = running_cluster(node).await? else { return Ok(()) };
    let hello = handshake::hello(cluster, NodeId(0), NodeId(0));
    let mut caller = PeerCaller::connect(&peer_address).await?;
    let Some(topology) = caller.watch_topology(hello, 0, WATCH_WAIT).await? else { return Ok(()) };
    check_addresses(&topology, &node.addresses)?;

    let deciding = node.deciding.lock().await;
    if node.data.bootstrap()?.is_some() || node.cluster_node().is_some() {
        return Ok(());
    }
    let id = register(node, &topology).await?;
    let identity = Identity { cluster, node: id };
    let recorder = node.clone();
    let recorded = tokio::task::spawn_blocking(move || {
        recorder.data.record_topology(&topology)?;
        recorder.data.record_identity(identity)
    });
    match recorded.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => fail_stop(&error.to_string()),
        Err(_stopping) => return Ok(()),
    }
    info!(%cluster, node = %id, "joined");
    enter_cluster(node).await.unwrap_or_else(|error| fail_stop(&error.to_string()));
    drop(deciding);
    Ok(())
}

/// The cluster of the configured nodes, and the peer address of one of them; none while they are in
/// no cluster.
async fn running_cluster(node: &Node) -> Result<Option<(ClusterId, String)>, JoinError> {
    let answers = clusters_of(node).await;
    let Some((_, cluster, peer_address)) = answers.first().cloned() else { return Ok(None) };
    if let Some((address, other, _)) = answers.iter().find(|(_, other, _)| *other != cluster) {
        let first = answers[0].0.clone();
        return Err(JoinError::TwoClusters { first, cluster, address: address.clone(), other: *other });
    }
    Ok(Some((cluster, peer_address)))
}

/// The configured nodes that are in a cluster: client address, cluster, peer address.
async fn clusters_of(node: &Node) -> Vec<(String, ClusterId, String)> {
    let others = node.config.join.iter().filter(|address| **address != node.addresses.client);
    let answers = get_nodes(others).await;
    let in_cluster = answers.into_iter().filter_map(|(address, answer)| {
        let status = answer.inspect_err(|reason| debug!(address, %reason, "no answer")).ok()?;
        let cluster = status.cluster_id.parse().ok()?;
        Some((address.clone(), cluster, status.peer_address))
    });
    in_cluster.collect()
}

/// Refuses a cluster that has a node at these addresses, unless that node is still joining: it is
/// this node, before a crash.
fn check_addresses(topology: &Topology, own: &NodeAddresses) -> Result<(), JoinError> {
    let shared = |other: &NodeAddresses| other.client == own.client || other.peer == own.peer;
    match topology.living().find(|node| shared(&node.addresses)) {
        Some(node) if node.state != NodeState::Joining || node.addresses != *own => Err(JoinError::Occupied {
            cluster: topology.cluster.id,
            node: node.id,
            client: node.addresses.client.clone(),
        }),
        _ => Ok(()),
    }
}

async fn register(node: &Node, topology: &Topology) -> Result<NodeId, JoinError> {
    let stranger = Identity { cluster: topology.cluster.id, node: NodeId(0) };
    let voters = topology.topology_replicas.iter().filter_map(|voter| topology.node(voter.node));
    let peers = GrpcPeers::new(stranger, Arc::new(PeerTransport::new(stranger)), Vec::new());
    let command = Command::RegisterNode {
        addresses: node.addresses.clone(),
        zone: node.config.zone.clone(),
        weight: node.config.weight,
    };
    let proposer = Proposer::of_stranger(&peers, voters.map(PeerAddress::from).collect());
    match proposer.propose(&command, REGISTER_TIMEOUT).await? {
        Outcome::Node(id) => Ok(id),
        Outcome::Refused(reason) => Err(JoinError::Refused(reason)),
        other => Err(JoinError::Refused(format!("unexpected outcome {other:?}"))),
    }
}

/// Whether a node that has an identity was told to join another cluster; checked once, at start.
pub(crate) async fn other_cluster(node: &Node, own: Identity) -> Option<DataDirError> {
    let answers = clusters_of(node).await;
    let (_, other, _) = answers.into_iter().find(|(_, cluster, _)| *cluster != own.cluster)?;
    node.data.not_of_cluster(other).ok()
}

#[cfg(test)]
mod tests {
    use quorate_types::topology::{ClusterInfo, NodeInfo};

    use super::*;

    fn addresses(host: &str) -> NodeAddresses {
        NodeAddresses { client: format!("{host}:1"), peer: format!("{host}:2"), ops: format!("{host}:3") }
    }

    fn topology(host: &str, state: NodeState) -> Topology {
        let cluster = ClusterInfo { id: ClusterId(1), hash_key: [0; 16], replicas: 1, shards: 1 };
        let node = NodeInfo { id: NodeId(1), addresses: addresses(host), zone: String::new(), weight: 100, state };
        Topology {
            revision: 1,
            cluster,
            nodes: vec![node],
            shards: vec![],
            topology_replicas: vec![],
            moves: vec![],
            paused: false,
        }
    }

    /// A node that lost its data must not return under its old id, which has voted and acknowledged.
    #[test]
    fn only_a_new_node_or_one_that_was_joining_may_register() {
        let own = addresses("own");
        assert_eq!(check_addresses(&topology("other", NodeState::Active), &own).ok(), Some(()));
        assert_eq!(check_addresses(&topology("own", NodeState::Joining), &own).ok(), Some(()));
        assert_eq!(check_addresses(&topology("own", NodeState::Removed), &own).ok(), Some(()));
        assert!(
            check_addresses(&topology("own", NodeState::Active), &own).unwrap_err().to_string().contains("has node 1")
        );
        assert!(check_addresses(&topology("own", NodeState::Draining), &own).is_err());
        let half = NodeAddresses { client: "new:1".into(), ..own };
        assert!(check_addresses(&topology("own", NodeState::Joining), &half).is_err());
    }
}
