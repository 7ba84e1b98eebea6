//! The one place where a node's background tasks start.

use std::sync::Arc;
use std::time::Duration;

use quorate_control::reporters::UNRESPONSIVE_AFTER;
use quorate_control::{Plane, agent, reconciler, throttle, watch};
use quorate_types::clock::SystemClock;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::info;

use crate::error::NodeError;
use crate::host::Process;
use crate::member::Member;
use crate::node::Node;
use crate::peer::GrpcPeers;
use crate::store::{self, Opened};
use crate::{announce, telemetry};

/// How often the free space of the disk is measured.
const DISK_MEASURE: Duration = Duration::from_secs(1);

/// Enters the cluster that the data directory names: opens the stored replicas and starts the
/// control loops. Nothing happens if the directory names no cluster, or if the node has entered.
pub(crate) async fn enter_cluster(node: &Arc<Node>) -> Result<(), NodeError> {
    let _entering = node.entering().await;
    let Some(identity) = node.data.identity()? else { return Ok(()) };
    if node.member().is_some() {
        return Ok(());
    }
    let Opened { store, transport, export_rate } = store::open(&node.config, &node.data, identity).await?;
    let configured = node.config.join.clone();
    let peers = GrpcPeers::new(identity, transport.clone(), configured);
    let host = Process { life: node.life.clone(), disk: node.disk.clone(), data: node.data.clone() };
    let plane = Plane::new(Arc::new(store), Arc::new(peers), Arc::new(host), Arc::new(SystemClock));
    let member = Arc::new(Member { plane, transport, export_rate });
    info!(cluster = %identity.cluster, node = %identity.node, "node is in its cluster");
    node.enter(member.clone());
    start_loops(node, &member);
    Ok(())
}

fn start_loops(node: &Arc<Node>, member: &Arc<Member>) {
    let (life, plane) = (&node.life, &member.plane);
    let limiters = vec![member.transport.snapshot_rate(), member.export_rate.clone()];
    life.spawn(agent::run(plane.clone()));
    life.spawn(announce::run(node.clone(), member.clone()));
    life.spawn(watch::run(plane.clone()));
    life.spawn(throttle::run(plane.clone(), limiters));
    life.spawn(reconciler::run(plane.clone(), UNRESPONSIVE_AFTER));
}

/// Measures the free space of the disk until the node stops, and sums up histograms.
pub(crate) async fn measure_disk(node: Arc<Node>) {
    let mut tick = interval(DISK_MEASURE);
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
