//! The outside world of the router: a network that reaches nodes, and a connection to one of them.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use quorate_types::topology::Topology;
use quorate_types::{ClusterId, KvRequest, NodeId};
use tokio::time::Instant;

use crate::{Attempt, Health};

/// Reaches the nodes of a cluster. Implemented over gRPC and by the simulation.
pub trait Network: Send + Sync + 'static {
    /// Makes the connection to a node. Returns immediately: the connection is opened when the first
    /// request needs it, and again after it ended.
    ///
    /// To be correct, the connection reports every end to `health`, once, however many requests it
    /// carried, and before it ends their attempts: the callers then find the breaker up to date.
    fn connection(&self, target: Target, health: Arc<Health>) -> Arc<dyn Connection>;

    /// Asks the node with the client address `endpoint` for the cluster's topology.
    fn topology<'a>(
        &'a self,
        endpoint: &'a str,
        within: Duration,
    ) -> BoxFuture<'a, Result<Topology, TopologyUnavailable>>;
}

/// The connection to one node.
pub trait Connection: Send + Sync + 'static {
    /// Sends a request and waits for its reply until `until`.
    ///
    /// To be correct:
    /// * The node behind the connection is the target: requests reach no other node or cluster.
    /// * `NotSent` and `Busy` are returned only if the request never left and never will. In doubt
    ///   the attempt is `Lost`, `Malformed` or `Silent`.
    /// * `NoReplica` and `Retry` are never returned; they are the router's own.
    /// * The attempt ends at `until`, give or take a scheduling delay.
    /// * A dropped future frees its place. Its request may still be applied if it had left.
    fn attempt(&self, request: KvRequest, until: Instant) -> BoxFuture<'_, Attempt>;

    /// The number of requests that wait to be sent or have no reply yet.
    fn outstanding(&self) -> usize;
}

/// A node of a cluster and the address where it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The node's client address, `host:port`.
    pub address: String,
}

/// The reason why an endpoint did not return the topology.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TopologyUnavailable(pub String);
