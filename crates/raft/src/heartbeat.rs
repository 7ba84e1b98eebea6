//! The heartbeats of all groups that are led here, sent together: they share frames, and the node wakes up once.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::MissedTickBehavior;

use crate::groups::Shared;

/// Beats until the groups stop.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut beat = tokio::time::interval(Duration::from_millis(shared.options.timing.heartbeat_ms));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let led = shared.all().into_iter().filter(|replica| replica.is_leader());
        join_all(led.map(|replica| replica.heartbeat())).await;
    }
}
