//! The control plane's calls to other nodes, over gRPC.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use quorate_control::peers::WATCH_WAIT;
use quorate_control::{PeerAddress, PeerError, Peers, Proposed};
use quorate_types::NodeId;
use quorate_types::ping::Ping;
use quorate_types::report::{NodeReport, Order};
use quorate_types::topology::{Command, Identity, NodeInfo, NodeState, Topology};

use super::client::PeerCaller;
use super::open_callers::OpenCallers;
use super::status::get_nodes;
use super::transport::PeerTransport;
use crate::handshake;

/// The control plane's calls to other nodes, over gRPC.
pub(crate) struct GrpcPeers {
    own: Identity,
    transport: Arc<PeerTransport>,
    /// Client addresses from the configuration.
    configured: Vec<String>,
    /// Connections for reports: the reconciler's rounds are frequent.
    reports: OpenCallers,
    /// The connection to the node whose topology is watched.
    watches: OpenCallers,
}

impl GrpcPeers {
    /// Calls made as the node `own`; node 0 is a machine that has no id yet.
    pub(crate) fn new(own: Identity, transport: Arc<PeerTransport>, configured: Vec<String>) -> Self {
        GrpcPeers { own, transport, configured, reports: OpenCallers::default(), watches: OpenCallers::default() }
    }

    fn hello(&self, to: NodeId) -> quorate_proto::peer::Hello {
        handshake::hello(self.own.cluster, self.own.node, to)
    }
}

impl Peers for GrpcPeers {
    fn update(&self, nodes: &[NodeInfo]) {
        self.transport.update(nodes);
        let known = nodes.iter().filter(|node| node.state != NodeState::Removed);
        let known: HashSet<PeerAddress> = known.map(PeerAddress::from).collect();
        self.reports.update(known.clone());
        self.watches.update(known);
    }

    fn ping(&self, to: &PeerAddress, ping: Ping, within: Duration) -> BoxFuture<'static, Result<Ping, PeerError>> {
        let (hello, channel) = (self.hello(to.node), self.transport.control_connection(to.node));
        Box::pin(async move {
            let channel = channel.ok_or_else(|| PeerError::Unanswered("not connected".to_owned()))?;
            PeerCaller::over(channel).ping(hello, &ping, within).await
        })
    }

    fn report(&self, to: &PeerAddress, within: Duration) -> BoxFuture<'static, Result<NodeReport, PeerError>> {
        let (hello, to, callers) = (self.hello(to.node), to.clone(), self.reports.clone());
        Box::pin(async move {
            let mut caller = callers.open(&to).await?;
            let report = caller.report(hello, within).await?;
            callers.keep(&to, caller);
            Ok(report)
        })
    }

    fn stop_reports(&self) {
        self.reports.clear();
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
        let (hello, to, callers) = (self.hello(NodeId(0)), to.clone(), self.watches.clone());
        Box::pin(async move {
            let mut caller = callers.open(&to).await?;
            let newer = caller.watch_topology(hello, revision, WATCH_WAIT).await?;
            // A node that has nothing newer is not asked again before the others.
            if newer.is_some() {
                callers.keep(&to, caller);
            }
            Ok(newer)
        })
    }

    fn configured(&self) -> BoxFuture<'static, Vec<PeerAddress>> {
        let (own, addresses) = (self.own, self.configured.clone());
        Box::pin(async move {
            let asked = get_nodes(addresses.iter()).await;
            let others = asked
                .into_iter()
                .filter_map(|(_, answer)| answer.ok())
                .filter(|status| status.id != own.node.0 && status.cluster_id == own.cluster.to_string());
            others.map(|status| PeerAddress { node: NodeId(status.id), address: status.peer_address }).collect()
        })
    }
}
