//! Measures how fast clients are served, so that snapshots can give way to them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use quorate_types::report;

/// With fewer batches than this in a period, the node counts as idle in that period.
const USERS_MIN: u64 = 25;

/// The durations of request batches, in microseconds.
pub(crate) struct BatchTimes(Histogram<u32>);

impl Default for BatchTimes {
    fn default() -> Self {
        BatchTimes(Histogram::new_with_bounds(1, 60_000_000, 2).expect("these bounds are in order"))
    }
}

impl BatchTimes {
    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Whether there were enough batches to speak of users.
    pub(crate) fn have_users(&self) -> bool {
        self.0.len() >= USERS_MIN
    }

    /// The 99th percentile; zero if there was no batch.
    pub(crate) fn p99(&self) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(0.99))
    }

    #[cfg(test)]
    pub(crate) fn add(&mut self, other: &BatchTimes) {
        self.0 += &other.0;
    }
}

/// How fast clients are served on this node.
#[derive(Default)]
pub struct Foreground {
    /// Batches since the throttle last took them.
    times: Mutex<BatchTimes>,
    waits: AtomicBool,
    has_users: AtomicBool,
}

impl Foreground {
    /// Records the duration of one batch of requests.
    pub fn took(&self, time: Duration) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).record(time);
    }

    /// Takes the batches recorded since the last call.
    pub(crate) fn take_times(&self) -> BatchTimes {
        std::mem::take(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets the result of [`state`](Self::state).
    pub(crate) fn set(&self, has_users: bool, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
        self.has_users.store(has_users, Ordering::Relaxed);
    }

    /// The service level of the last period. Clients wait if a snapshot is being sent and their
    /// 99th percentile is above its target.
    pub fn state(&self) -> report::Foreground {
        if self.waits.load(Ordering::Relaxed) {
            report::Foreground::Waits
        } else if self.has_users.load(Ordering::Relaxed) {
            report::Foreground::Served
        } else {
            report::Foreground::Idle
        }
    }
}
