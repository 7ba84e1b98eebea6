//! Enters the cluster, and starts the control loops.

use std::sync::Arc;

use quorate_control::reporters::UNRESPONSIVE_AFTER;
use quorate_control::{Plane, loops};
use quorate_types::clock::SystemClock;
use tracing::info;

use crate::announce;
use crate::cluster_node::ClusterNode;
use crate::error::NodeError;
use crate::host::Process;
use crate::node::Node;
use crate::peer::GrpcPeers;
use crate::store::{self, Opened};

/// Enters the cluster that the data directory names: opens the stored replicas and starts the
/// control loops. Nothing happens if the directory names no cluster, or if the node has entered.
pub(crate) async fn enter_cluster(node: &Arc<Node>) -> Result<(), NodeError> {
    let _entering = node.entering().await;
    let Some(identity) = node.data.identity()? else { return Ok(()) };
    if node.cluster_node().is_some() {
        return Ok(());
    }
    let room = node.disk.room(node.data.path().to_owned());
    let Opened { store, transport, export_rate } = store::open(&node.config, &node.data, room, identity).await?;
    let configured = node.config.join.clone();
    let peers = GrpcPeers::new(identity, transport.clone(), configured);
    let host = Process { life: node.life.clone(), disk: node.disk.clone(), data: node.data.clone() };
    let plane = Plane::new(Arc::new(store), Arc::new(peers), Arc::new(host), Arc::new(SystemClock));
    let member = Arc::new(ClusterNode { plane, transport, export_rate });
    info!(cluster = %identity.cluster, node = %identity.node, "node is in its cluster");
    node.enter(member.clone());
    start_loops(node, &member);
    Ok(())
}

fn start_loops(node: &Arc<Node>, member: &Arc<ClusterNode>) {
    let (life, plane) = (&node.life, &member.plane);
    let limiters = vec![member.transport.snapshot_rate(), member.export_rate.clone()];
    life.spawn(announce::run(node.clone(), member.clone()));
    for control in loops(plane, limiters, UNRESPONSIVE_AFTER) {
        life.spawn(control);
    }
}
