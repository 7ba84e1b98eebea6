//! Calls from one node to another beside Raft's messages, as the control loops make them.

use std::time::Duration;

use futures::future::BoxFuture;
use quorate_types::NodeId;
use quorate_types::ping::Ping;
use quorate_types::report::{NodeReport, Order};
use quorate_types::topology::{Bootstrap, Command, NodeInfo, Outcome, Topology};

/// How long a node waits for a newer topology before it answers a watcher that it has none.
pub const WATCH_WAIT: Duration = Duration::from_secs(5);

/// A node to call, and the address of its peer port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    /// The node.
    pub node: NodeId,
    /// Its peer address, `host:port`.
    pub address: String,
}

impl From<&NodeInfo> for PeerAddress {
    fn from(node: &NodeInfo) -> Self {
        PeerAddress { node: node.id, address: node.addresses.peer.clone() }
    }
}

/// Why a call to another node failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The node answered with a refusal: repeating the call there gives the same answer for now.
    #[error("{0}")]
    Refused(String),
    /// The call failed or timed out, or the node answered that the outcome is unknown. It may have
    /// executed the call; ask again, or ask another node.
    #[error("{0}")]
    Unanswered(String),
}

/// A node's answer to a proposed topology command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposed {
    /// The topology group applied the command: it is done or refused.
    Outcome(Outcome),
    /// The node does not lead the topology group, and names the node that may.
    NotLeader(Option<NodeId>),
    /// The node leads the topology group, and cannot decide yet, for this reason. Nothing was
    /// proposed: try again.
    NotYet(String),
}

/// The other nodes, as the control loops reach them: over gRPC in a server, over a simulated
/// network in tests.
///
/// # To be correct
/// * A call whose future is dropped may still be executed by its receiver.
/// * Futures end: within the time-out given, or within a bound of the implementation.
pub trait Peers: Send + Sync + 'static {
    /// Adopts the nodes of a newer topology: connects to new nodes and to new addresses, and
    /// disconnects from removed ones. Called by one task at a time.
    fn update(&self, nodes: &[NodeInfo]);

    /// Sends a ping, and returns the answer. Never waits behind bulk data.
    fn ping(&self, to: &PeerAddress, ping: Ping, within: Duration) -> BoxFuture<'static, Result<Ping, PeerError>>;

    /// Asks a node for its report.
    fn report(&self, to: &PeerAddress, within: Duration) -> BoxFuture<'static, Result<NodeReport, PeerError>>;

    /// This node stops asking for reports; their connections may close.
    fn stop_reports(&self) {}

    /// Sends an order. The receiver works on it for at most `within`.
    fn execute(&self, to: &PeerAddress, order: Order, within: Duration) -> BoxFuture<'static, Result<(), PeerError>>;

    /// Proposes a topology command at a node.
    fn propose(&self, to: &PeerAddress, command: Command) -> BoxFuture<'static, Result<Proposed, PeerError>>;

    /// Waits at a node for a topology newer than `revision`; `None` if the node has none within
    /// [`WATCH_WAIT`]. Any node of the cluster may answer.
    fn watch_topology(
        &self,
        to: &PeerAddress,
        revision: u64,
    ) -> BoxFuture<'static, Result<Option<Topology>, PeerError>>;

    /// Resolves the nodes that an operator named in the configuration: their peer addresses may be
    /// newer than those in the topology known here.
    fn configured(&self) -> BoxFuture<'static, Vec<PeerAddress>> {
        Box::pin(async { Vec::new() })
    }
}

/// The peer addresses of a node's own bootstrap or map.
pub(crate) fn known_nodes<'a>(
    map: Option<&'a Topology>,
    bootstrap: Option<&'a Bootstrap>,
) -> (&'a [NodeInfo], &'a [quorate_types::topology::Placement]) {
    match (map, bootstrap) {
        (Some(map), _) => (&map.nodes, &map.topology_replicas),
        (None, Some(bootstrap)) => (&bootstrap.nodes, &bootstrap.topology_replicas),
        (None, None) => (&[], &[]),
    }
}
