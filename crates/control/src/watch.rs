//! Keeps a node's topology fresh while the node does not lead the topology group: it asks other
//! nodes, one at a time, for newer topologies.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::topology::{NodeState, Topology};
use tokio::time::timeout;
use tracing::debug;

use crate::feed::TopologyFeed;
use crate::peers::{PeerAddress, PeerError, WATCH_WAIT, known_nodes};
use crate::plane::Plane;
use crate::store::Store;

/// The pause after a node that could not be asked.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Answers a watcher: the first topology newer than `revision`, or `None` after [`WATCH_WAIT`].
pub async fn answer(feed: &TopologyFeed, revision: u64) -> Option<Arc<Topology>> {
    timeout(WATCH_WAIT, feed.newer_than(revision)).await.ok().map(|map| map.topology.clone())
}

/// Asks for newer topologies until the node stops.
pub async fn run(plane: Plane) {
    loop {
        if learns_first(&plane.store) {
            tokio::time::sleep(RETRY_PAUSE).await;
            continue;
        }
        for peer in known_peers(&plane.store) {
            follow(&plane, &peer).await;
        }
        // All known nodes may have moved since: those in the configuration are asked for their
        // present addresses.
        for peer in plane.peers.configured().await {
            follow(&plane, &peer).await;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Asks one node until it knows nothing newer; pauses if it does not answer.
async fn follow(plane: &Plane, peer: &PeerAddress) {
    if let Err(error) = follow_until_even(plane, peer).await {
        debug!(node = %peer.node, address = peer.address, %error, "topology not followed there");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn follow_until_even(plane: &Plane, peer: &PeerAddress) -> Result<(), PeerError> {
    let feed = &plane.store.feed;
    while !learns_first(&plane.store) {
        let revision = feed.latest().map_or(0, |map| map.topology.revision);
        // The node may be behind itself: the next one is asked.
        let Some(newer) = plane.peers.watch_topology(peer, revision).await? else { break };
        feed.offer(Arc::new(newer));
    }
    Ok(())
}

/// Whether this node applies every topology change itself, and first. Only the leader can know: a
/// follower's replica may have been removed without notice.
fn learns_first(store: &Store) -> bool {
    store.topology_group().is_some_and(|group| group.is_leader())
}

/// The other nodes that are not removed; voters of the topology group first, as they learn first.
fn known_peers(store: &Store) -> Vec<PeerAddress> {
    let map = store.feed.latest();
    let (nodes, voters) = known_nodes(map.as_ref().map(|map| &*map.topology), store.bootstrap.as_ref());
    let others = nodes.iter().filter(|node| node.id != store.identity.node && node.state != NodeState::Removed);
    let mut others: Vec<_> = others.collect();
    others.sort_by_key(|node| !voters.iter().any(|voter| voter.node == node.id));
    others.into_iter().map(PeerAddress::from).collect()
}
