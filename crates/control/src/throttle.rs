//! Throttles snapshot transfer by the foreground's latency. The rate is halved when the
//! foreground's 99th percentile exceeds its target, and grows by an eighth otherwise. The target is
//! 1.5 times the baseline, which is the 99th percentile measured while no replica moved.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use quorate_machine::rate_limiter::{RATE_MAX, RateLimiter};
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use crate::foreground::BatchTimes;
use crate::plane::Plane;

/// The lowest rate, so that snapshots end: the receiver bounds the time from the first byte written
/// to the last byte sent by half of it.
const RATE_MIN: u64 = 8 << 20;
/// The first rate of a snapshot while there are users, and the highest one while the baseline is
/// unknown.
const RATE_FIRST: u64 = 16 << 20;
/// The highest rate while there are users: compaction of the received data is felt later.
const RATE_USERS_MAX: u64 = 64 << 20;
/// The target while the baseline is unknown.
const TARGET_UNKNOWN: Duration = Duration::from_millis(50);
/// The lower bound of the target: users do not notice less.
const TARGET_MIN: Duration = Duration::from_millis(5);
/// The upper bound of the target.
const TARGET_MAX: Duration = Duration::from_millis(200);
/// After this many periods without users the node counts as idle: in a single period its disk may
/// have stalled.
const IDLE_PERIODS_MIN: u32 = 4;
/// How often the rate is set.
const PERIOD: Duration = Duration::from_millis(250);
/// The periods of the baseline: half a minute.
const BASELINE_PERIODS_MAX: usize = 120;
/// With fewer periods the baseline is unknown.
const BASELINE_PERIODS_MIN: usize = 20;
/// Replicas move in bursts: rebalancing counts as over after this many periods without a move.
const QUIET_PERIODS_MIN: u32 = 20;

/// The 99th percentiles of the last periods in which no replica moved.
///
/// One period has few batches, so its percentile is uncertain. The baseline is therefore the 75th
/// percentile over half a minute of periods, which a short outage does not shift.
#[derive(Default)]
struct Baseline {
    p99s: VecDeque<Duration>,
    quiet_periods: u32,
}

impl Baseline {
    /// Adds a period.
    fn add(&mut self, times: &BatchTimes, is_quiet: bool) {
        self.quiet_periods = if is_quiet { self.quiet_periods.saturating_add(1) } else { 0 };
        if self.quiet_periods < QUIET_PERIODS_MIN || !times.have_users() {
            return;
        }
        if self.p99s.len() == BASELINE_PERIODS_MAX {
            self.p99s.pop_front();
        }
        self.p99s.push_back(times.p99());
        assert!(self.p99s.len() <= BASELINE_PERIODS_MAX, "the baseline is bounded");
    }

    fn is_known(&self) -> bool {
        self.p99s.len() >= BASELINE_PERIODS_MIN
    }

    /// The highest 99th percentile that users should have while replicas move.
    fn target(&self) -> Duration {
        if !self.is_known() {
            return TARGET_UNKNOWN;
        }
        let mut p99s = Vec::from_iter(self.p99s.iter().copied());
        p99s.sort_unstable();
        (p99s[p99s.len() * 3 / 4] * 3 / 2).clamp(TARGET_MIN, TARGET_MAX)
    }
}

/// Sets the rate of these limiters in every period, until the node stops.
pub async fn run(plane: Plane, limiters: Vec<Arc<RateLimiter>>) {
    let mut turn = interval(PERIOD);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut throttle = Throttle::default();
    loop {
        turn.tick().await;
        let times = plane.foreground.take_times();
        let is_sending = plane.store.groups.are_sending_snapshots();
        let is_moving = plane.store.feed.latest().is_none_or(|map| !map.topology.moves.is_empty());
        let before = throttle.rate;
        let waits = throttle.period(&times, is_sending, is_moving);
        if throttle.rate != before {
            limiters.iter().for_each(|limiter| limiter.set_rate(throttle.rate));
        }
        metrics::gauge!("quorate_snapshot_rate_bytes_per_second").set(throttle.rate as f64);
        plane.foreground.set(throttle.has_users(), waits);
    }
}

/// The rate and its inputs.
///
/// # Invariants
/// * The rate is within [`RATE_MIN`] and [`RATE_MAX`].
struct Throttle {
    rate: u64,
    /// The last log line said that snapshots are throttled.
    throttled: bool,
    idle_periods: u32,
    baseline: Baseline,
}

impl Default for Throttle {
    fn default() -> Self {
        Throttle { rate: RATE_MAX, throttled: false, idle_periods: IDLE_PERIODS_MIN, baseline: Baseline::default() }
    }
}

impl Throttle {
    fn has_users(&self) -> bool {
        self.idle_periods < IDLE_PERIODS_MIN
    }

    /// Sets the rate after a period; true if users wait for snapshots.
    fn period(&mut self, times: &BatchTimes, is_sending: bool, is_moving: bool) -> bool {
        self.idle_periods = if times.have_users() { 0 } else { self.idle_periods.saturating_add(1) };
        self.baseline.add(times, !is_sending && !is_moving);
        let (p99, target) = (times.p99(), self.baseline.target());
        let most = match (self.has_users(), self.baseline.is_known()) {
            (false, _) => RATE_MAX,
            (true, true) => RATE_USERS_MAX,
            (true, false) => RATE_FIRST,
        };
        let waits = is_sending && p99 > target;
        self.rate = if is_sending { next_rate(self.rate, most, waits) } else { first_rate(self.has_users()) };
        assert!((RATE_MIN..=RATE_MAX).contains(&self.rate), "the rate is within its bounds");
        // The rate swings around the target; a line for every swing would be noise.
        let throttles = is_sending && (self.rate < RATE_FIRST || self.throttled && self.rate < most);
        if throttles != self.throttled {
            info!(throttled = throttles, rate = self.rate, ?p99, ?target, "snapshots");
            self.throttled = throttles;
        }
        waits
    }
}

/// The first rate of the next snapshot.
fn first_rate(has_users: bool) -> u64 {
    if has_users { RATE_FIRST } else { RATE_MAX }
}

/// The rate of the next period. It grows slowly, so that it is cut while it is only a little too
/// high.
fn next_rate(rate: u64, most: u64, users_wait: bool) -> u64 {
    if users_wait {
        return (rate / 2).clamp(RATE_MIN, most);
    }
    (rate + rate / 8).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(count: usize, ms: u64) -> BatchTimes {
        let mut times = BatchTimes::default();
        (0..count).for_each(|_| times.record(Duration::from_millis(ms)));
        times
    }

    #[test]
    fn snapshots_give_way_to_users_and_come_back() {
        assert_eq!(next_rate(RATE_MAX, RATE_MAX, false), RATE_MAX);
        assert_eq!(next_rate(RATE_MAX, RATE_MAX, true), RATE_MAX / 2);
        assert_eq!(next_rate(RATE_MAX, RATE_USERS_MAX, false), RATE_USERS_MAX, "users came");
        let mut rate = RATE_MAX;
        for _ in 0..20 {
            rate = next_rate(rate, RATE_MAX, true);
        }
        assert_eq!(rate, RATE_MIN, "snapshots end even so");
        for _ in 0..40 {
            rate = next_rate(rate, RATE_MAX, false);
        }
        assert_eq!(rate, RATE_MAX);
    }

    #[test]
    fn users_wait_when_more_than_one_batch_in_a_hundred_is_slow() {
        let mut most = times(990, 1);
        most.add(&times(10, 500));
        assert!(most.p99() < TARGET_MIN);
        most.add(&times(1, 500));
        assert!(most.p99() > TARGET_MAX);
        assert_eq!(BatchTimes::default().p99(), Duration::ZERO, "there are no users to wait");
    }

    #[test]
    fn the_target_follows_the_baseline_before_anything_moved() {
        let mut baseline = Baseline::default();
        let pass = |baseline: &mut Baseline, periods: usize, ms: u64, is_quiet: bool| {
            (0..periods).for_each(|_| baseline.add(&times(100, ms), is_quiet));
            baseline.target()
        };
        assert_eq!(baseline.target(), TARGET_UNKNOWN);
        let target = pass(&mut baseline, 50, 20, true);
        assert!((29..=31).contains(&target.as_millis()), "{target:?}");
        assert_eq!(pass(&mut baseline, 1000, 100, false), target, "while replicas move");
        assert_eq!(pass(&mut baseline, 10, 100, true), target, "between two moves");
        assert_eq!(pass(&mut baseline, 15, 2000, true), target, "an outage");
        baseline.add(&times(1, 100), true);
        assert_eq!(baseline.target(), target, "without users");
        // Half a minute later, earlier periods are forgotten.
        assert_eq!(pass(&mut baseline, BASELINE_PERIODS_MAX, 1, true), TARGET_MIN);
        assert_eq!(pass(&mut baseline, BASELINE_PERIODS_MAX, 400, true), TARGET_MAX);
    }

    #[test]
    fn the_first_rate_depends_on_users() {
        let mut throttle = Throttle::default();
        throttle.period(&times(0, 1), false, false);
        assert_eq!(throttle.rate, RATE_MAX);
        throttle.period(&times(100, 1), false, false);
        assert_eq!(throttle.rate, RATE_FIRST);
        assert!(throttle.period(&times(100, 500), true, true), "users wait");
        assert_eq!(throttle.rate, RATE_MIN);
    }
}
