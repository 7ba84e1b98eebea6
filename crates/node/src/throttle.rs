//! What snapshots may take while users wait: half as much every time the foreground is slower than its target, a little more
//! every time it is not. The target is what users had before replicas began to move, and half as much again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hdrhistogram::Histogram;
use quorate_types::report;
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use crate::member::Member;

/// What all snapshots that a node sends may take of the network and of the disks at both ends, in bytes per second, while
/// nobody waits; and, before that, what writing their files may take.
pub(crate) const RATE_MAX: u64 = 200 << 20;
/// After a pause so much time's worth of bytes passes at once.
pub(crate) const RATE_BURST: Duration = Duration::from_millis(100);
/// What they may take at least, so that they end.
const RATE_MIN: u64 = 8 << 20;
/// The foreground's target for its 99th percentile, where nobody knows yet what users had before; never more.
const TARGET_MAX: Duration = Duration::from_millis(50);
/// Never less: nobody feels less.
const TARGET_MIN: Duration = Duration::from_millis(5);
/// With fewer batches than this in a period nobody would notice what else goes on.
const USERS_MIN: u64 = 25;
/// How often the rate is set.
const PERIOD: Duration = Duration::from_millis(250);
/// Half of what is remembered of how users were served, in periods: fifteen seconds.
const MEMORY_PERIODS: u32 = 60;
/// With fewer batches nobody knows their 99th percentile.
const REMEMBERED_MIN: u64 = 1000;

/// How long batches of requests took, in microseconds.
struct Times(Histogram<u32>);

impl Default for Times {
    fn default() -> Self {
        Times(Histogram::new_with_bounds(1, 60_000_000, 2).expect("these bounds are in order"))
    }
}

impl Times {
    fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    fn p99(&self) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(0.99))
    }
}

/// How fast clients are served.
#[derive(Default)]
pub(crate) struct Foreground {
    /// Since the rate was last set.
    times: Mutex<Times>,
    rate: AtomicU64,
    has_users: AtomicBool,
}

impl Foreground {
    /// A batch of requests took so long.
    pub(crate) fn took(&self, time: Duration) {
        self.times.lock().expect("no panic happens under this lock").record(time);
    }

    fn take_times(&self) -> Times {
        std::mem::take(&mut self.times.lock().expect("no panic happens under this lock"))
    }

    /// How users are served: they wait where snapshots get less than they could have.
    pub(crate) fn state(&self) -> report::Foreground {
        if (1..RATE_MAX).contains(&self.rate.load(Ordering::Relaxed)) {
            report::Foreground::Waits
        } else if self.has_users.load(Ordering::Relaxed) {
            report::Foreground::Served
        } else {
            report::Foreground::Idle
        }
    }
}

/// How users were served in the last half minute in which no replica moved.
#[derive(Default)]
struct Before {
    older: Times,
    newer: Times,
    periods: u32,
}

impl Before {
    fn remember(&mut self, times: &Times) {
        self.newer.0 += &times.0;
        self.periods += 1;
        if self.periods == MEMORY_PERIODS {
            self.older = std::mem::take(&mut self.newer);
            self.periods = 0;
        }
    }

    /// What a batch's 99th percentile may be while replicas move.
    fn target(&self) -> Duration {
        let mut times = self.older.0.clone();
        times += &self.newer.0;
        if times.len() < REMEMBERED_MIN {
            return TARGET_MAX;
        }
        (Times(times).p99() * 3 / 2).clamp(TARGET_MIN, TARGET_MAX)
    }
}

/// Sets the rate again and again, for as long as the node runs.
pub(crate) async fn run(member: Arc<Member>) {
    let mut turn = interval(PERIOD);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rate = RATE_MAX;
    let mut before = Before::default();
    loop {
        turn.tick().await;
        let foreground = &member.foreground;
        let times = foreground.take_times();
        if member.feed.latest().is_some_and(|map| map.topology.moves.is_empty()) {
            before.remember(&times);
        }
        let target = before.target();
        let next = next_rate(rate, times.p99() > target);
        if (next == RATE_MAX) != (rate == RATE_MAX) {
            info!(throttled = next < RATE_MAX, p99 = ?times.p99(), ?target, "snapshots");
        }
        if next != rate {
            member.transport.set_snapshot_rate(next);
            member.storage.export_pace.set_rate(next);
        }
        metrics::gauge!("quorate_snapshot_rate_bytes_per_second").set(next as f64);
        rate = next;
        foreground.rate.store(rate, Ordering::Relaxed);
        foreground.has_users.store(times.0.len() >= USERS_MIN, Ordering::Relaxed);
    }
}

fn next_rate(rate: u64, users_wait: bool) -> u64 {
    if users_wait {
        return (rate / 2).max(RATE_MIN);
    }
    (rate + rate / 4).min(RATE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(count: usize, ms: u64) -> Times {
        let mut times = Times::default();
        (0..count).for_each(|_| times.record(Duration::from_millis(ms)));
        times
    }

    #[test]
    fn snapshots_give_way_to_users_and_come_back() {
        assert_eq!(next_rate(RATE_MAX, false), RATE_MAX);
        assert_eq!(next_rate(RATE_MAX, true), RATE_MAX / 2);
        let mut rate = RATE_MAX;
        for _ in 0..20 {
            rate = next_rate(rate, true);
        }
        assert_eq!(rate, RATE_MIN, "they end all the same");
        for _ in 0..20 {
            rate = next_rate(rate, false);
        }
        assert_eq!(rate, RATE_MAX);
    }

    #[test]
    fn users_wait_when_more_than_one_batch_in_a_hundred_is_slow() {
        let mut most = times(990, 1);
        most.0 += &times(10, 500).0;
        assert!(most.p99() < TARGET_MIN);
        most.0 += &times(1, 500).0;
        assert!(most.p99() > TARGET_MAX);
        assert_eq!(Times::default().p99(), Duration::ZERO, "nobody waits");
    }

    #[test]
    fn the_target_is_what_users_had_before() {
        let mut before = Before::default();
        assert_eq!(before.target(), TARGET_MAX, "nobody knows yet");
        before.remember(&times(1000, 20));
        let target = before.target();
        assert!((29..=31).contains(&target.as_millis()), "{target:?}");
        for (ms, target) in [(1, TARGET_MIN), (400, TARGET_MAX)] {
            // Half a minute of it: what was before that is forgotten.
            for _ in 0..2 * MEMORY_PERIODS {
                before.remember(&times(100, ms));
            }
            assert_eq!(before.target(), target, "before: {ms} ms");
        }
    }
}
