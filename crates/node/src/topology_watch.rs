//! How a node without a replica of the topology group learns of the cluster: it asks others, one at a time.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::NodeId;
use quorate_types::topology::{NodeInfo, NodeState};
use tracing::debug;

use crate::handshake;
use crate::member::Member;
use crate::node::Node;
use crate::peer::{PeerCaller, get_node};

/// The pause after a node that could not be asked.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Asks for newer topologies for as long as the node runs.
pub(crate) async fn run(node: Arc<Node>, member: Arc<Member>) {
    loop {
        for address in known_addresses(&member) {
            follow(&member, &address).await;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        // Everybody known may have moved since: those whom the operator names are asked where they are now.
        for client_address in &node.config.join {
            if let Ok(status) = get_node(client_address).await
                && status.id != member.identity.node.0
                && status.cluster_id == member.identity.cluster.to_string()
            {
                follow(&member, &status.peer_address).await;
            }
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Asks one node again and again until it does not answer.
async fn follow(member: &Member, address: &str) {
    let identity = member.identity;
    let followed = async {
        let mut caller = PeerCaller::connect(address).await?;
        loop {
            let revision = member.feed.latest().map_or(0, |map| map.topology.revision);
            let hello = handshake::hello(identity.cluster, identity.node, NodeId(0));
            if let Some(topology) = caller.watch_topology(hello, revision).await? {
                member.feed.offer(Arc::new(topology));
            }
        }
    };
    let ended: Result<std::convert::Infallible, String> = followed.await;
    let Err(reason) = ended;
    debug!(address, reason, "topology not followed there");
}

/// Peer addresses of the others; those with a replica of the topology group first, as they know first.
fn known_addresses(member: &Member) -> Vec<String> {
    let map = member.feed.latest();
    let (nodes, voters): (&[NodeInfo], _) = match (&map, &member.founding) {
        (Some(map), _) => (&map.topology.nodes, &map.topology.topology_replicas),
        (None, Some(founding)) => (&founding.nodes, &founding.topology_replicas),
        (None, None) => return Vec::new(),
    };
    let others = nodes.iter().filter(|node| node.id != member.identity.node && node.state != NodeState::Removed);
    let mut others: Vec<_> = others.collect();
    others.sort_by_key(|node| !voters.iter().any(|voter| voter.node == node.id));
    others.into_iter().map(|node| node.addresses.peer.clone()).collect()
}
