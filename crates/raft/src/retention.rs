//! Bounds the logs: flushes the state of all groups together, then purges the entries that the
//! flush made superfluous. Also measures the sizes of the states.
//!
//! The order makes it safe: entries applied *before* the flush began are durable after it, and only
//! those are purged.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use quorate_machine::state::State;
use quorate_testpoints::{Bug, FailPoint, fail_point};
use tokio::time::MissedTickBehavior;

use crate::blocking;
use crate::config::Options;
use crate::error::Stopped;
use crate::opening::Opener;
use crate::replica::Replica;
use crate::replica::purge::Keep;
use crate::replicas::Replicas;
use crate::snapshot_slots::SnapshotsOut;
use crate::tasks::Tasks;

/// How often the logs are measured.
const PERIOD: Duration = Duration::from_secs(1);
/// The sizes of the states are measured every so many periods: moves are planned on them.
const STATES_EVERY: u64 = 5;

/// Purges the logs of a node's replicas.
pub(crate) struct Retention {
    options: Options,
    state: Arc<dyn State>,
    replicas: Arc<Replicas>,
    snapshots: Arc<SnapshotsOut>,
    tasks: Tasks,
    /// Held by the purge in progress.
    turn: tokio::sync::Mutex<()>,
}

impl Retention {
    pub(crate) fn new(opener: &Opener, replicas: Arc<Replicas>, tasks: Tasks) -> Self {
        Retention {
            options: opener.options.clone(),
            state: opener.state.clone(),
            replicas,
            snapshots: opener.snapshots.clone(),
            tasks,
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Measures the logs every second and purges those that are too long by a quarter.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut turn = tokio::time::interval(PERIOD);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for round in 0_u64.. {
            turn.tick().await;
            let replicas = self.replicas.all();
            if round.is_multiple_of(STATES_EVERY) {
                self.measure_states(replicas.clone()).await;
            }
            let keep = self.keep_bytes(replicas.len());
            let over: Vec<_> = replicas.into_iter().filter(|replica| replica.log_bytes() > keep + keep / 4).collect();
            if !over.is_empty()
                && let Err(reason) = self.compact(over, keep).await
            {
                tracing::debug!(%reason, "logs not purged");
            }
        }
    }

    /// Measures the sizes of the states, which may read indexes on disk.
    async fn measure_states(&self, replicas: Vec<Arc<Replica>>) {
        let state = self.state.clone();
        let measure = move || {
            for replica in replicas {
                replica.set_state_bytes(state.approximate_bytes(replica.id()));
            }
        };
        if let Err(ended) = blocking::elsewhere(measure).await {
            tracing::debug!(%ended, "states not measured");
        }
    }

    /// Bytes that each of `replicas` logs may keep: the bound of one group, or its share of the
    /// node's bound if that is less.
    fn keep_bytes(&self, replicas: usize) -> u64 {
        let share = self.options.log_retained_bytes_per_node / (replicas as u64).max(1);
        share.min(self.options.log_retained_bytes_per_group)
    }

    /// Purges as much of all logs as is safe. Returns the number of entries purged.
    pub(crate) async fn compact_all(&self) -> Result<u64, Stopped> {
        self.compact(self.replicas.all(), 0).await
    }

    async fn compact(&self, replicas: Vec<Arc<Replica>>, keep_bytes: u64) -> Result<u64, Stopped> {
        let _turn = self.turn.lock().await;
        if self.tasks.is_stopping() {
            return Err(Stopped);
        }
        let replicas: Vec<_> =
            replicas.into_iter().filter(|replica| !self.snapshots.is_sending(replica.group())).collect();
        let applied: Vec<_> = replicas.iter().map(|replica| replica.applied()).collect();
        self.flush().await?;
        fail_point(FailPoint::StateFlushed);
        let keep = Keep { bytes: keep_bytes, entries: self.options.log_retained_entries };
        let purges = replicas.iter().zip(applied).map(|(replica, flushed)| replica.purge(flushed, keep));
        let purged: u64 = join_all(purges).await.into_iter().sum();
        tracing::info!(purged, "logs purged");
        Ok(purged)
    }

    async fn flush(&self) -> Result<(), Stopped> {
        let state = self.state.clone();
        let flush = move || if Bug::PurgePastFlush.is_on() { Ok(()) } else { state.flush() };
        match blocking::elsewhere(flush).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                (self.options.on_fatal)(format!("flushing the state: {error}"));
                Err(Stopped)
            }
            Err(_ended) => Err(Stopped),
        }
    }
}
