//! Raft's transport over gRPC: the table of peers, and the choice of the queue for a message.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use futures::future::BoxFuture;
use quorate_machine::rate_limiter::RateLimiter;
use quorate_raft::{Lane, SnapshotFiles, SnapshotUnsent, Transport, Unsent};
use quorate_types::peer::{PeerMessage, SnapshotHeader};
use quorate_types::topology::{Identity, NodeInfo, NodeState};
use quorate_types::{NodeId, Vote};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tracing::{Instrument, info_span};

use super::lane::{LaneSender, lane};
use super::link::Link;
use super::snapshots_out::SnapshotSender;
use crate::handshake;

/// Raft's transport over gRPC. It owns the tasks of its connections.
pub(crate) struct PeerTransport {
    own: Identity,
    peers: ArcSwap<HashMap<NodeId, Arc<Peer>>>,
    snapshots: SnapshotSender,
    links: TaskTracker,
    stopping: CancellationToken,
}

/// A node that receives messages. Dropping it ends its connections.
struct Peer {
    address: watch::Sender<String>,
    control: LaneSender,
    control_connection: Arc<ArcSwapOption<Channel>>,
    bulk: LaneSender,
}

impl PeerTransport {
    /// A transport of this node without peers.
    pub(crate) fn new(own: Identity) -> Self {
        PeerTransport {
            own,
            peers: ArcSwap::default(),
            snapshots: SnapshotSender::default(),
            links: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }
    }

    /// The limiter of all snapshots that this node sends.
    pub(crate) fn snapshot_rate(&self) -> Arc<RateLimiter> {
        self.snapshots.rate_limiter()
    }

    /// Adopts the nodes of the topology: connects to new nodes, reconnects to nodes whose address
    /// changed, and disconnects from removed ones; from all nodes if this one was removed, as all
    /// would refuse it. Called by one task at a time, inside a tokio runtime.
    pub(crate) fn update(&self, nodes: &[NodeInfo]) {
        let known = self.peers.load();
        let is_removed = nodes.iter().any(|node| node.id == self.own.node && node.state == NodeState::Removed);
        let is_other = |node: &&NodeInfo| node.id != self.own.node && node.state != NodeState::Removed && !is_removed;
        let others = nodes.iter().filter(is_other);
        let peers = others.map(|node| {
            let peer = match known.get(&node.id) {
                Some(peer) => peer.clone(),
                None => Arc::new(self.connect(node)),
            };
            peer.address.send_if_modified(|address| {
                let changed = *address != node.addresses.peer;
                address.clone_from(&node.addresses.peer);
                changed
            });
            (node.id, peer)
        });
        self.peers.store(Arc::new(peers.collect()));
    }

    /// The open connection to a node that carries votes and heartbeats; none while it is broken.
    pub(crate) fn control_connection(&self, to: NodeId) -> Option<Channel> {
        let peers = self.peers.load();
        peers.get(&to)?.control_connection.load().as_deref().cloned()
    }

    /// Ends all connections and waits for their tasks.
    pub(crate) async fn shutdown(&self) {
        self.stopping.cancel();
        self.links.close();
        self.links.wait().await;
    }

    fn connect(&self, node: &NodeInfo) -> Peer {
        let (address, changes) = watch::channel(node.addresses.peer.clone());
        let open = |name| {
            let (sender, receiver) = lane();
            let connection = Arc::<ArcSwapOption<Channel>>::default();
            let link = Link {
                to: node.id,
                lane: name,
                hello: handshake::hello(self.own.cluster, self.own.node, node.id),
                address: changes.clone(),
                connection: connection.clone(),
                stopping: self.stopping.clone(),
            };
            self.links.spawn(link.run(receiver));
            (sender, connection)
        };
        let ((control, control_connection), (bulk, _)) = (open("control"), open("bulk"));
        Peer { address, control, control_connection, bulk }
    }
}

impl Transport for PeerTransport {
    fn send(&self, to: NodeId, lane: Lane, message: PeerMessage) -> Result<(), Unsent> {
        let peers = self.peers.load();
        let peer = peers.get(&to).ok_or(Unsent(to))?;
        let lane = match lane {
            Lane::Control => &peer.control,
            Lane::Bulk => &peer.bulk,
        };
        if lane.send(message) { Ok(()) } else { Err(Unsent(to)) }
    }

    fn send_snapshot(
        &self,
        to: NodeId,
        header: SnapshotHeader,
        files: SnapshotFiles,
    ) -> BoxFuture<'static, Result<Vote, SnapshotUnsent>> {
        let address = self.peers.load().get(&to).map(|peer| peer.address.borrow().clone());
        let hello = handshake::hello(self.own.cluster, self.own.node, to);
        let snapshots = self.snapshots.clone();
        let (node, group, term) = (self.own.node, header.group, header.vote.term);
        let span = info_span!("stream_snapshot", %node, %group, from = %header.from, to = %header.to, term);
        let streamed = async move {
            let address = address.ok_or_else(|| SnapshotUnsent::Failed(format!("node {to} is not known")))?;
            snapshots.send(&address, hello, header, files).await
        };
        Box::pin(streamed.instrument(span))
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::ClusterId;

    use super::*;

    /// A removed node used to reconnect to all nodes several times a second, only to be refused.
    #[tokio::test]
    async fn removed_node_stops_reconnecting() {
        let own = Identity { cluster: ClusterId(1), node: NodeId(1) };
        let transport = PeerTransport::new(own);
        let mut nodes = [1, 2].map(|id| NodeInfo {
            id: NodeId(id),
            addresses: Default::default(),
            zone: String::new(),
            weight: 100,
            state: NodeState::Active,
        });
        transport.update(&nodes);
        assert_eq!(transport.peers.load().len(), 1);
        nodes[0].state = NodeState::Removed;
        transport.update(&nodes);
        assert!(transport.peers.load().is_empty());
        transport.shutdown().await;
    }
}
