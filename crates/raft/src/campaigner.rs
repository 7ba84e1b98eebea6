//! Starts the elections of all replicas of a node: one task checks all of them, instead of a timer
//! in every Raft core.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, MissedTickBehavior};

use crate::replicas::Replicas;

/// How often the replicas are checked for election time-outs.
const PERIOD: Duration = Duration::from_millis(30);

/// Starts elections that are due.
pub(crate) async fn run(replicas: Arc<Replicas>) {
    let mut turn = tokio::time::interval(PERIOD);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let now = Instant::now();
        let all = replicas.all();
        join_all(all.iter().filter(|replica| replica.is_campaign_due(now)).map(|replica| replica.campaign())).await;
    }
}
