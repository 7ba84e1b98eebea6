//! How a node learns of the cluster unless it leads the topology group: it asks others, one at a time.

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
        if hears_of_changes(&member) {
            tokio::time::sleep(RETRY_PAUSE).await;
            continue;
        }
        for address in known_addresses(&member) {
            follow(&member, &address).await;
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

/// Asks one node again and again until it knows nothing newer; pauses where it does not answer.
async fn follow(member: &Member, address: &str) {
    let identity = member.identity;
    let followed = async {
        let mut caller = PeerCaller::connect(address).await?;
        while !hears_of_changes(member) {
            let revision = member.feed.latest().map_or(0, |map| map.topology.revision);
            let hello = handshake::hello(identity.cluster, identity.node, NodeId(0));
            match caller.watch_topology(hello, revision).await? {
                Some(topology) => member.feed.offer(Arc::new(topology)),
                // It may be behind itself: the next one is asked.
                None => break,
            }
        }
        Ok(())
    };
    let ended: Result<(), String> = followed.await;
    if let Err(reason) = ended {
        debug!(address, reason, "topology not followed there");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Whether this node hears of every change first. A follower cannot know whether it still hears of them: its replica may have
/// been removed, and nobody tells it.
fn hears_of_changes(member: &Member) -> bool {
    member.topology_group().is_some_and(|group| group.is_leader())
}

/// Peer addresses of the others; those with a replica of the topology group first, as they know first.
fn known_addresses(member: &Member) -> Vec<String> {
    let map = member.feed.latest();
    let (nodes, voters): (&[NodeInfo], _) = match (&map, &member.bootstrap) {
        (Some(map), _) => (&map.topology.nodes, &map.topology.topology_replicas),
        (None, Some(bootstrap)) => (&bootstrap.nodes, &bootstrap.topology_replicas),
        (None, None) => return Vec::new(),
    };
    let others = nodes.iter().filter(|node| node.id != member.identity.node && node.state != NodeState::Removed);
    let mut others: Vec<_> = others.collect();
    others.sort_by_key(|node| !voters.iter().any(|voter| voter.node == node.id));
    others.into_iter().map(|node| node.addresses.peer.clone()).collect()
}
