//! The control plane's calls to other nodes, over gRPC.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use quorate_control::peers::WATCH_WAIT;
use quorate_control::{PeerAddress, PeerError, Peers, Proposed};
use quorate_types::NodeId;
use quorate_types::report::{NodeReport, Order};
use quorate_types::topology::{Command, Identity, NodeInfo, Topology};

use super::client::{PeerCaller, get_node};
use super::transport::PeerTransport;
use crate::handshake;

/// The control plane's calls to other nodes, over gRPC.
pub(crate) struct GrpcPeers {
    own: Identity,
    transport: Arc<PeerTransport>,
    /// Client addresses from the configuration.
    configured: Vec<String>,
    reporters: Reporters,
}

/// The connections over which reports are collected: rounds are frequent, so they stay open.
type Reporters = Arc<Mutex<HashMap<PeerAddress, PeerCaller>>>;

fn lock(reporters: &Reporters) -> MutexGuard<'_, HashMap<PeerAddress, PeerCaller>> {
    // A poisoned lock guards a whole table: entries are only inserted and removed.
    reporters.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GrpcPeers {
    /// Calls made as the node `own`; node 0 is a machine that has no id yet.
    pub(crate) fn new(own: Identity, transport: Arc<PeerTransport>, configured: Vec<String>) -> Self {
        GrpcPeers { own, transport, configured, reporters: Reporters::default() }
    }

    fn hello(&self, to: NodeId) -> quorate_proto::peer::Hello {
        handshake::hello(self.own.cluster, self.own.node, to)
    }
}

impl Peers for GrpcPeers {
    fn update(&self, nodes: &[NodeInfo]) {
        self.transport.update(nodes);
        let is_known = |peer: &PeerAddress| nodes.iter().any(|node| node.addresses.peer == peer.address);
        lock(&self.reporters).retain(|peer, _| is_known(peer));
    }

    fn report(&self, to: &PeerAddress, within: Duration) -> BoxFuture<'static, Result<NodeReport, PeerError>> {
        let (hello, to, reporters) = (self.hello(to.node), to.clone(), self.reporters.clone());
        Box::pin(async move {
            let open = lock(&reporters).remove(&to);
            let mut caller = match open {
                Some(caller) => caller,
                None => PeerCaller::connect(&to.address).await?,
            };
            let report = caller.report(hello, within).await?;
            lock(&reporters).insert(to, caller);
            Ok(report)
        })
    }

    fn stop_reports(&self) {
        lock(&self.reporters).clear();
    }

    fn execute(&self, to: &PeerAddress, order: Order, within: Duration) -> BoxFuture<'static, Result<(), PeerError>> {
        let (hello, address) = (self.hello(to.node), to.address.clone());
        Box::pin(async move { PeerCaller::connect(&address).await?.execute(hello, &order, within).await })
    }

    fn propose(&self, to: &PeerAddress, command: Command) -> BoxFuture<'static, Result<Proposed, PeerError>> {
        let (hello, address) = (self.hello(to.node), to.address.clone());
        Box::pin(async move { PeerCaller::connect(&address).await?.propose_topology(hello, &command).await })
    }

    fn watch_topology(
        &self,
        to: &PeerAddress,
        revision: u64,
    ) -> BoxFuture<'static, Result<Option<Topology>, PeerError>> {
        // Any node of the cluster may answer: the address may have passed to another one.
        let (hello, address) = (self.hello(NodeId(0)), to.address.clone());
        Box::pin(async move { PeerCaller::connect(&address).await?.watch_topology(hello, revision, WATCH_WAIT).await })
    }

    fn configured(&self) -> BoxFuture<'static, Vec<PeerAddress>> {
        let (own, addresses) = (self.own, self.configured.clone());
        Box::pin(async move {
            let asked = join_all(addresses.iter().map(async |address| get_node(address).await.ok())).await;
            let others = asked
                .into_iter()
                .flatten()
                .filter(|status| status.id != own.node.0 && status.cluster_id == own.cluster.to_string());
            others.map(|status| PeerAddress { node: NodeId(status.id), address: status.peer_address }).collect()
        })
    }
}
