//! The servers of a node's three ports.

use std::sync::Arc;
use std::time::Duration;

use quorate_connections::{Connections, Limits};
use quorate_proto::admin::admin_server::AdminServer;
use quorate_proto::kv::kv_server::{KvServer, SERVICE_NAME as KV};
use quorate_proto::peer::peer_server::PeerServer;
use quorate_proto::{DESCRIPTORS, MESSAGE_BYTES_MAX};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{MissedTickBehavior, interval};
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::info;

use crate::error::NodeError;
use crate::listeners::Listeners;
use crate::node::Node;
use crate::peer::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use crate::service::{AdminService, KvService, PeerService};
use crate::{ops, readiness};

/// How often gRPC health follows readiness.
const HEALTH_TICK: Duration = Duration::from_millis(200);
/// A silent incoming connection is pinged this often.
const INCOMING_PING_INTERVAL: Duration = Duration::from_secs(10);
/// An incoming connection ends if a ping is not answered for this long.
const INCOMING_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The servers of a node's three ports.
pub(crate) struct Servers {
    /// Clients and operators' tools.
    pub(crate) client: JoinHandle<Result<(), tonic::transport::Error>>,
    /// Other nodes.
    pub(crate) peer: JoinHandle<Result<(), tonic::transport::Error>>,
    /// Metrics and health over HTTP.
    pub(crate) ops: JoinHandle<std::io::Result<()>>,
    /// The gRPC health of the client port.
    pub(crate) health: Health,
}

impl Servers {
    /// Starts to serve all ports.
    pub(crate) fn start(node: &Arc<Node>, listeners: Listeners, limits: Limits) -> Self {
        let connections = |listener| Connections::new(listener, limits);
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let health = Health { reporter };
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .expect("the descriptors were compiled together with this code");
        let kv = KvServer::new(KvService::new(node.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let admin = AdminServer::new(AdminService::new(node.clone())).max_encoding_message_size(MESSAGE_BYTES_MAX);
        let peer = PeerServer::new(PeerService::new(node.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);

        let client = server().add_service(kv).add_service(admin).add_service(health_service).add_service(reflection);
        let (draining, closed) = (node.life.clone(), node.life.clone());
        let incoming = connections(listeners.client).into_stream();
        let client = client.serve_with_incoming_shutdown(incoming, async move { draining.draining().await });
        let incoming = connections(listeners.peer).into_stream();
        let peer =
            server().add_service(peer).serve_with_incoming_shutdown(incoming, async move { closed.closed().await });
        node.life.spawn(health.clone().follow(node.clone()));
        Servers {
            client: tokio::spawn(client),
            peer: tokio::spawn(peer),
            ops: tokio::spawn(ops::serve(node.clone(), connections(listeners.ops))),
            health,
        }
    }

    /// Waits until a server ends; none does unless it fails.
    pub(crate) async fn failed(&mut self) -> NodeError {
        let ended = |what, result: Result<String, JoinError>| NodeError::Server {
            what,
            reason: result.unwrap_or_else(|e| e.to_string()),
        };
        tokio::select! {
            result = &mut self.client => ended("client", result.map(|result| format!("{result:?}"))),
            result = &mut self.peer => ended("peer", result.map(|result| format!("{result:?}"))),
            result = &mut self.ops => ended("ops", result.map(|result| format!("{result:?}"))),
        }
    }
}

fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(INCOMING_PING_INTERVAL))
        .http2_keepalive_timeout(Some(INCOMING_PING_TIMEOUT))
}

/// gRPC health: the node's readiness.
#[derive(Clone)]
pub(crate) struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Reports whether the node serves.
    pub(crate) async fn set(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", KV] {
            self.reporter.set_service_status(service, status).await;
        }
    }

    /// Follows the node's readiness until it stops.
    async fn follow(self, node: Arc<Node>) {
        let mut last = None;
        let mut tick = interval(HEALTH_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = node.life.stopping() => return,
            }
            let ready = readiness::check(&node).ready;
            if last != Some(ready) {
                self.set(ready).await;
                info!(ready, "readiness");
                last = Some(ready);
            }
        }
    }
}
