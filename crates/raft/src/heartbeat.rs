//! Sends the heartbeats of all groups led here together: they share frames, and the node wakes up
//! once.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::MissedTickBehavior;

use crate::replicas::Replicas;

/// Sends heartbeats every `period`.
pub(crate) async fn run(replicas: Arc<Replicas>, period: Duration) {
    let mut beat = tokio::time::interval(period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let led: Vec<_> = replicas.all().into_iter().filter(|replica| replica.is_leader()).collect();
        join_all(led.iter().map(|replica| replica.heartbeat())).await;
    }
}
