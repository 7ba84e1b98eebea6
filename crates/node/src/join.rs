//! Joining a cluster that runs: asking those whom the operator names, and getting an id.
//!
//! A node that is in no cluster waits for one of two things: an order to found a cluster that names it, or an address of
//! `join` that is in a running cluster. It registers only in the second case, when every address that answers names the same
//! cluster and that cluster has no node of these addresses that is past joining: such a node has lost its data directory, and
//! must not come back as if it had not.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use quorate_types::topology::{Command, Identity, NodeAddresses, NodeState, Outcome, Topology};
use quorate_types::{ClusterId, NodeId};
use tracing::{debug, info, warn};

use crate::data_dir::DataDirError;
use crate::fatal::fail_stop;
use crate::handshake;
use crate::node::Node;
use crate::peer::{PeerCaller, get_node};
use crate::propose::Proposer;

/// The pause between two rounds of questions.
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// How long the cluster may take to give out an id.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks until this node is in a cluster, whichever way that came about.
pub(crate) async fn run(node: Arc<Node>) {
    let mut said = None;
    while node.member().is_none() {
        if let Err(reason) = try_join(&node).await {
            // Said once, not every second.
            if said.as_ref() != Some(&reason) {
                warn!(reason, "not joined yet");
                said = Some(reason);
            }
        }
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

async fn try_join(node: &Arc<Node>) -> Result<(), String> {
    let Some((cluster, peer_address)) = running_cluster(node).await? else { return Ok(()) };
    let hello = handshake::hello(cluster, NodeId(0), NodeId(0));
    let mut caller = PeerCaller::connect(&peer_address).await?;
    let Some(topology) = caller.watch_topology(hello, 0).await? else { return Ok(()) };
    check_addresses(&topology, &node.addresses)?;

    let deciding = node.deciding.lock().await;
    if node.data.bootstrap().map_err(|e| e.to_string())?.is_some() || node.member().is_some() {
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
        Err(error) => return Err(error.to_string()),
    }
    info!(%cluster, node = %id, "joined");
    node.enter_cluster().await.unwrap_or_else(|error| fail_stop(&error.to_string()));
    drop(deciding);
    Ok(())
}

/// The cluster that the named addresses are in, and the peer address of one of them; none while they are in none.
async fn running_cluster(node: &Node) -> Result<Option<(ClusterId, String)>, String> {
    let answers = clusters_of(node).await;
    let Some((_, cluster, peer_address)) = answers.first().cloned() else { return Ok(None) };
    if let Some((address, other, _)) = answers.iter().find(|(_, other, _)| *other != cluster) {
        let first = &answers[0].0;
        return Err(format!(
            "{first} is in cluster {cluster}, but {address} is in cluster {other}; name nodes of one cluster"
        ));
    }
    Ok(Some((cluster, peer_address)))
}

/// Which of the named addresses are in which cluster: client address, cluster, peer address.
async fn clusters_of(node: &Node) -> Vec<(String, ClusterId, String)> {
    let others = node.config.join.iter().filter(|address| **address != node.addresses.client);
    let answers = join_all(others.map(async |address| (address, get_node(address).await))).await;
    let in_cluster = answers.into_iter().filter_map(|(address, answer)| {
        let status = answer.inspect_err(|reason| debug!(address, reason, "no answer")).ok()?;
        let cluster = status.cluster_id.parse().ok()?;
        Some((address.clone(), cluster, status.peer_address))
    });
    in_cluster.collect()
}

/// Refuses a cluster that has a node of these addresses, unless it is one that is still joining: this node, before a crash.
fn check_addresses(topology: &Topology, own: &NodeAddresses) -> Result<(), String> {
    let shared = |other: &NodeAddresses| other.client == own.client || other.peer == own.peer;
    let alive = topology.nodes.iter().filter(|node| node.state != NodeState::Removed);
    match alive.clone().find(|node| shared(&node.addresses)) {
        Some(node) if node.state != NodeState::Joining || node.addresses != *own => Err(format!(
            "cluster {} has node {id} at these addresses already, which is not this one. If it lost its data directory: quorate \
             node remove {id} --dead --confirm {} – this one joins by itself then. Else start this one at other addresses",
            topology.cluster.id,
            node.addresses.client,
            id = node.id,
        )),
        _ => Ok(()),
    }
}

async fn register(node: &Node, topology: &Topology) -> Result<NodeId, String> {
    let voters = topology.topology_replicas.iter().filter_map(|voter| topology.node(voter.node));
    let others = voters.map(|voter| (voter.id, voter.addresses.peer.clone())).collect();
    let command = Command::RegisterNode {
        addresses: node.addresses.clone(),
        zone: node.config.zone.clone(),
        weight: node.config.weight,
    };
    let proposer = Proposer { cluster: topology.cluster.id, own: None, others };
    match proposer.propose(&command, REGISTER_TIMEOUT).await.map_err(|refusal| refusal.to_string())? {
        Outcome::Node(id) => Ok(id),
        Outcome::Refused(reason) => Err(format!("the cluster refuses this node: {reason}")),
        other => Err(format!("the cluster answered {other:?}")),
    }
}

/// Whether a node that has an identity was told to join another cluster; asked once, at start.
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

    /// A node that lost its data must not come back under its old id, which has voted and acknowledged.
    #[test]
    fn only_a_new_node_or_one_that_was_joining_may_register() {
        let own = addresses("own");
        assert_eq!(check_addresses(&topology("other", NodeState::Active), &own), Ok(()));
        assert_eq!(check_addresses(&topology("own", NodeState::Joining), &own), Ok(()));
        assert_eq!(check_addresses(&topology("own", NodeState::Removed), &own), Ok(()));
        assert!(check_addresses(&topology("own", NodeState::Active), &own).unwrap_err().contains("has node 1"));
        assert!(check_addresses(&topology("own", NodeState::Draining), &own).is_err());
        let half = NodeAddresses { client: "new:1".into(), ..own };
        assert!(check_addresses(&topology("own", NodeState::Joining), &half).is_err());
    }
}
