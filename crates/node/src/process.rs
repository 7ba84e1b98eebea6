//! A node from start to stop.
//!
//! ```text
//!   ports → data directory → servers (alive, not ready) → storage and replicas → ready
//!   stop: not ready → transfer leaderships → refuse new requests → stop replicas → flush → close
//! ```

use std::sync::Arc;
use std::time::Duration;

use quorate_connections::Limits;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::config::NodeConfig;
use crate::data_dir::DataDir;
use crate::error::NodeError;
use crate::listeners::Listeners;
use crate::node::Node;
use crate::release::only_handle;
use crate::servers::Servers;
use crate::{join, open_files, tasks, telemetry, upkeep};

/// How long a new connection may take to send its first bytes.
const BEGINNING_MAX: Duration = Duration::from_secs(10);
/// How long a connection may be silent: longer than the answer to a ping may take.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// How long a stopping node waits for the transfer of its leaderships.
const TRANSFER_ALL_MAX: Duration = Duration::from_secs(3);
/// How long it waits for clients' requests in flight.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long it waits for servers that were told to end.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Runs a node until `shutdown` is ready; then transfers its leaderships, finishes requests in
/// flight, makes everything durable and returns. Call it inside a tokio runtime of several threads.
///
/// An error names the next step, and gives the process's exit code. A failed disk or a broken
/// invariant ends the process with code 74 without returning.
pub async fn run(config: NodeConfig, shutdown: impl Future<Output = ()>) -> Result<(), NodeError> {
    config.check()?;
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
    node.life.spawn(upkeep::measure_disk(node.clone()));
    let result = match tasks::enter_cluster(node).await {
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

/// Joins a cluster if this node is in none and knows of one. Returns only if this node is in a
/// cluster and was told to join another one.
async fn follow_join_list(node: &Arc<Node>) -> NodeError {
    let identity = node.cluster_node().map(|member| member.store().identity);
    info!(in_cluster = identity.is_some(), "node serves");
    match identity {
        Some(identity) => {
            if let Some(error) = join::other_cluster(node, identity).await {
                return error.into();
            }
        }
        None if !node.config.join.is_empty() => node.life.spawn(join::run(node.clone())),
        None => {}
    }
    std::future::pending().await
}

/// Graceful shutdown: transfer leaderships, drain clients, stop replicas, flush.
async fn stop(node: &Arc<Node>, servers: Servers) -> Result<(), NodeError> {
    let Servers { client, peer, ops, health } = servers;
    node.life.stop();
    health.set(false).await;
    if let Some(member) = node.cluster_node() {
        let still_led = member.store().groups.transfer_leaderships(TRANSFER_ALL_MAX).await;
        info!(still_led, "leaderships transferred");
    }
    node.life.drain();
    end(client, DRAIN_MAX, "requests are still in flight, their clients get no answer").await;
    node.life.close().await;
    end(peer, CLOSE_MAX, "connections of other nodes are still open").await;
    end(ops, CLOSE_MAX, "connections of operators are still open").await;
    let closed = match node.leave() {
        Some(member) => member.close(&node.life).await.map_err(|e| NodeError::Disk(e.to_string())),
        None => Ok(()),
    };
    only_handle(node, "node").await;
    only_handle(&node.data, "data directory").await;
    closed
}

/// Waits for a server that was told to end, and aborts it after a while.
async fn end<T>(mut server: JoinHandle<T>, within: Duration, otherwise: &str) {
    if !server.is_finished() && timeout(within, &mut server).await.is_err() {
        warn!("{otherwise}");
        server.abort();
    }
}
