//! A node from start to stop.
//!
//! ```text
//!   ports → data directory → servers (alive, not ready) → storage and replicas → ready
//!   stop: not ready → hand leaderships over → no new requests → replicas stop → flush → close
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_connections::{Connections, Limits};
use quorate_proto::admin::admin_server::AdminServer;
use quorate_proto::kv::kv_server::{KvServer, SERVICE_NAME as KV};
use quorate_proto::peer::peer_server::PeerServer;
use quorate_proto::{DESCRIPTORS, MESSAGE_BYTES_MAX};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use crate::config::NodeConfig;
use crate::data_dir::DataDir;
use crate::error::NodeError;
use crate::listeners::Listeners;
use crate::node::Node;
use crate::peer::{CONNECTION_WINDOW_BYTES, PeerService, STREAM_WINDOW_BYTES};
use crate::service::{AdminService, KvService};
use crate::{join, open_files, ops, readiness, telemetry};

/// How often the free space of the disk is looked at.
const DISK_LOOK: Duration = Duration::from_secs(1);
/// How often gRPC health takes over what readiness says.
const HEALTH_TICK: Duration = Duration::from_millis(200);
/// A silent client is asked for a sign of life this often, …
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// … and its connection ends after so long without one.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long whoever connects may take to begin.
const BEGINNING_MAX: Duration = Duration::from_secs(10);
/// How long a connection may be silent: longer than a sign of life may be owed.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// How long a stopping node waits for others to take its leaderships over.
const TRANSFER_ALL_MAX: Duration = Duration::from_secs(3);
/// How long it waits for clients' requests in flight.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long it waits for what ends by itself once it was told to.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// How often it looks whether that has happened.
const CLOSE_POLL: Duration = Duration::from_millis(5);

/// Runs a node until `shutdown` is ready; then hands its leaderships over, finishes what is in flight, makes everything
/// durable and returns. Call it inside a tokio runtime of several threads.
///
/// An error says what to do next, and gives the process's exit code. A failed disk or a broken invariant ends the process
/// with code 74 on the spot.
pub async fn run(config: NodeConfig, shutdown: impl Future<Output = ()>) -> Result<(), NodeError> {
    config.check().map_err(NodeError::Config)?;
    let (listeners, addresses) = Listeners::bind(&config).await?;
    let data = DataDir::open(&config.data_dir)?;
    telemetry::install();
    info!(
        data_dir = %data.path().display(), client = addresses.client, peer = addresses.peer, ops = addresses.ops,
        version = crate::VERSION, "node starts"
    );
    let node = Node::new(config, addresses, data);
    let limits = Limits { at_a_time: open_files::claim(), beginning: BEGINNING_MAX, silence: SILENCE_MAX };
    let servers = Servers::start(&node, listeners, limits);
    let result = serve(&node, servers, shutdown).await;
    info!("node stopped");
    result
}

async fn serve(node: &Arc<Node>, mut servers: Servers, shutdown: impl Future<Output = ()>) -> Result<(), NodeError> {
    node.spawn(look_at_disk(node.clone()));
    let result = match node.enter_cluster().await {
        Ok(()) => tokio::select! {
            () = shutdown => Ok(()),
            error = servers.failed() => Err(error),
            error = follow_join_list(node) => Err(error),
        },
        Err(error) => Err(error),
    };
    let stopped = stop(node, servers).await;
    result.and(stopped)
}

/// A node without a cluster joins one if it is told of one; a node of a cluster must not be told of another.
async fn follow_join_list(node: &Arc<Node>) -> NodeError {
    let identity = node.member().map(|member| member.identity);
    info!(in_cluster = identity.is_some(), "node serves");
    match identity {
        Some(identity) => {
            if let Some(error) = join::other_cluster(node, identity).await {
                return error.into();
            }
        }
        None if !node.config.join.is_empty() => node.spawn(join::run(node.clone())),
        None => {}
    }
    std::future::pending().await
}

/// Stops in the order in which nobody is hurt.
async fn stop(node: &Arc<Node>, servers: Servers) -> Result<(), NodeError> {
    let Servers { client, peer, ops, health } = servers;
    node.stop();
    health.set(false).await;
    if let Some(member) = node.member() {
        let kept = member.groups.transfer_leaderships(TRANSFER_ALL_MAX).await;
        info!(kept, "leaderships handed over");
    }
    node.drain();
    end(client, DRAIN_MAX, "requests are still in flight, their clients get no answer").await;
    node.close().await;
    end(peer, CLOSE_MAX, "connections of other nodes are still open").await;
    end(ops, CLOSE_MAX, "connections of operators are still open").await;
    let closed = match node.leave_cluster() {
        Some(member) => member.close().await.map_err(|e| NodeError::Disk(e.to_string())),
        None => Ok(()),
    };
    only_handle(node, "node").await;
    closed
}

/// Waits for a server that was told to end; ends it the hard way after a while.
async fn end<T>(mut server: JoinHandle<T>, within: Duration, otherwise: &str) {
    if !server.is_finished() && timeout(within, &mut server).await.is_err() {
        warn!("{otherwise}");
        server.abort();
    }
}

/// Waits until nothing else holds on to what is about to be let go of, so that a successor finds it free.
pub(crate) async fn only_handle<T: ?Sized>(handle: &Arc<T>, what: &str) {
    let deadline = Instant::now() + CLOSE_MAX;
    while Arc::strong_count(handle) > 1 {
        if Instant::now() > deadline {
            warn!(what, "still in use while the node stops");
            return;
        }
        tokio::time::sleep(CLOSE_POLL).await;
    }
}

/// The servers of the three ports.
struct Servers {
    client: JoinHandle<Result<(), tonic::transport::Error>>,
    peer: JoinHandle<Result<(), tonic::transport::Error>>,
    ops: JoinHandle<std::io::Result<()>>,
    health: Health,
}

impl Servers {
    fn start(node: &Arc<Node>, listeners: Listeners, limits: Limits) -> Self {
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
        let (draining, closed) = (node.clone(), node.clone());
        let incoming = connections(listeners.client).into_stream();
        let client = client.serve_with_incoming_shutdown(incoming, async move { draining.draining().await });
        let incoming = connections(listeners.peer).into_stream();
        let peer =
            server().add_service(peer).serve_with_incoming_shutdown(incoming, async move { closed.closed().await });
        node.spawn(health.clone().follow(node.clone()));
        Servers {
            client: tokio::spawn(client),
            peer: tokio::spawn(peer),
            ops: tokio::spawn(ops::serve(node.clone(), connections(listeners.ops))),
            health,
        }
    }

    /// Waits until one of them ends, which none does by itself.
    async fn failed(&mut self) -> NodeError {
        let ended = |what, result: Result<String, tokio::task::JoinError>| NodeError::Server {
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
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
}

/// gRPC health, which says what readiness says.
#[derive(Clone)]
struct Health {
    reporter: HealthReporter,
}

impl Health {
    async fn set(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", KV] {
            self.reporter.set_service_status(service, status).await;
        }
    }

    async fn follow(self, node: Arc<Node>) {
        let mut last = None;
        let mut tick = interval(HEALTH_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = node.stopping() => return,
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

async fn look_at_disk(node: Arc<Node>) {
    let mut tick = interval(DISK_LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_upkeep = Instant::now();
    loop {
        tick.tick().await;
        node.disk.look(node.data.path());
        if last_upkeep.elapsed() >= telemetry::UPKEEP {
            telemetry::upkeep();
            last_upkeep = Instant::now();
        }
    }
}
