//! The router's network over gRPC.
//!
//! ```text
//!   Grpc ── connection ──► GrpcConnection ── opens when needed ──► link   one stream to one node
//!     │                                                          queue → frames → replies by id
//!     └─── topology ──► crate::admin
//! ```
//!
//! Wire types and tonic stay in this module and in `admin`. Read `connection` next, then `link`.

mod connection;
mod id_map;
mod link;
mod outbound;
mod stream;
pub(crate) mod transport;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use quorate_router::{Connection, Health, Network, Target, TopologyUnavailable};
use quorate_types::topology::Topology;

use self::connection::GrpcConnection;
use crate::admin::admin;

/// Reaches nodes over gRPC.
#[derive(Debug)]
pub(crate) struct Grpc {
    /// How long a connection may take, including its handshake.
    pub(crate) connect_timeout: Duration,
}

impl Network for Grpc {
    fn connection(&self, target: Target, health: Arc<Health>) -> Arc<dyn Connection> {
        Arc::new(GrpcConnection::new(target, health, self.connect_timeout))
    }

    fn topology<'a>(
        &'a self,
        endpoint: &'a str,
        within: Duration,
    ) -> BoxFuture<'a, Result<Topology, TopologyUnavailable>> {
        Box::pin(async move {
            let topology = async { admin(endpoint, within).await?.topology(within).await };
            topology.await.map_err(|error| TopologyUnavailable(error.reason))
        })
    }
}
