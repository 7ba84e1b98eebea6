//! A node that is in a cluster: its control plane and its connections to other nodes.

use std::sync::Arc;

use quorate_control::{Plane, Proposer, Store};
use quorate_machine::rate_limiter::RateLimiter;
use quorate_machine::state::StateError;

use crate::databases::{Databases, close};
use crate::life::Life;
use crate::peer::PeerTransport;

/// A node that is in a cluster.
pub(crate) struct ClusterNode {
    /// The parts that the control loops share.
    pub(crate) plane: Plane,
    /// The connections to other nodes.
    pub(crate) transport: Arc<PeerTransport>,
    /// How fast the files of snapshots are written.
    pub(crate) export_rate: Arc<RateLimiter>,
}

impl ClusterNode {
    /// The node's storage and replicas.
    pub(crate) fn store(&self) -> &Store {
        &self.plane.store
    }

    /// Proposes topology commands in this node's name.
    pub(crate) fn proposer(&self) -> Proposer<'_> {
        Proposer::of_node(&self.plane)
    }

    /// Stops the replicas, waits for requests in progress, makes everything durable and closes the
    /// databases.
    pub(crate) async fn close(self: Arc<Self>, life: &Life) -> Result<(), StateError> {
        self.store().stop().await;
        self.transport.shutdown().await;
        life.requests_ended().await;
        let databases = Databases { log: self.store().log.clone(), state: self.store().state.clone() };
        drop(self);
        close(databases).await
    }
}
