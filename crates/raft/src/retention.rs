//! Keeps the logs short: flushes the state of all groups together, then purges what the flush made superfluous.
//!
//! The order is the safety: what is applied *before* the flush began is durable after it, and only that may be purged.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use quorate_testpoints::{Bug, fail_point};
use tokio::time::MissedTickBehavior;

use crate::blocking;
use crate::group::{AnyGroup, Keep};
use crate::groups::{Shared, Stopped};

/// How often the logs are measured.
const PERIOD: Duration = Duration::from_secs(1);

/// Measures and purges until the groups stop.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut turn = tokio::time::interval(PERIOD);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let groups = shared.all();
        let keep = keep_bytes(&shared, &groups);
        let fat = |group: &Arc<dyn AnyGroup>| group.status().log_bytes > keep + keep / 4;
        let over: Vec<_> = groups.into_iter().filter(fat).collect();
        if !over.is_empty()
            && let Err(reason) = compact(&shared, over, keep).await
        {
            tracing::debug!(%reason, "logs not purged");
        }
    }
}

/// What each group may keep, in bytes: its own bound, or its part of the node's where that is less.
fn keep_bytes(shared: &Shared, groups: &[Arc<dyn AnyGroup>]) -> u64 {
    let share = shared.options.log_retained_bytes_per_node / (groups.len() as u64).max(1);
    share.min(shared.options.log_retained_bytes_per_group)
}

/// Purges everything that may be purged.
pub(crate) async fn compact_all(shared: &Arc<Shared>) -> Result<u64, Stopped> {
    compact(shared, shared.all(), 0).await
}

async fn compact(shared: &Arc<Shared>, groups: Vec<Arc<dyn AnyGroup>>, keep: u64) -> Result<u64, Stopped> {
    let _turn = shared.compacting.lock().await;
    if shared.is_stopping() {
        return Err(Stopped);
    }
    let groups: Vec<_> = groups.into_iter().filter(|group| !shared.wire.is_sending(group.group())).collect();
    let applied: Vec<_> = groups.iter().map(|group| group.applied()).collect();
    let state = shared.state.clone();
    let flush = move || if Bug::PurgePastFlush.is_on() { Ok(()) } else { state.flush() };
    let flushed = blocking::elsewhere(flush).await;
    match flushed {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            (shared.options.on_fatal)(format!("flushing the state: {error}"));
            return Err(Stopped);
        }
        Err(_ended) => return Err(Stopped),
    }
    fail_point("state-flushed");
    let keep = Keep { bytes: keep, entries: shared.options.log_retained_entries };
    let purges = groups.into_iter().zip(applied).map(|(group, flushed)| group.purge(flushed, keep));
    let purged: u64 = join_all(purges).await.into_iter().sum();
    tracing::info!(purged, "logs purged");
    Ok(purged)
}
