//! The periodic measurements of a node.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::node::Node;
use crate::telemetry;

/// How often the free space of the disk is measured.
const DISK_MEASURE: Duration = Duration::from_secs(1);

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
