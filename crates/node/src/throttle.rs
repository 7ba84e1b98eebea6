//! What snapshots may take while users wait: half as much every time the foreground is slower than its target, a little more
//! every time it is not. The target is what users had before replicas began to move, and half as much again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
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
/// What they may take at least, so that they end: half of it from the first byte written to the last one sent.
const RATE_MIN: u64 = 8 << 20;
/// What snapshots begin with where there are users; and the most that they take where nobody knows what users had before.
const RATE_FIRST: u64 = 16 << 20;
/// The most that they take where users are there and do not wait: what was written has to be compacted, and is felt later.
const RATE_USERS_MAX: u64 = 64 << 20;
/// The foreground's target for its 99th percentile where nobody knows what users had before.
const TARGET_UNKNOWN: Duration = Duration::from_millis(50);
/// Whatever users had before, the target is no less: nobody feels less…
const TARGET_MIN: Duration = Duration::from_millis(5);
/// …and no more.
const TARGET_MAX: Duration = Duration::from_millis(200);
/// With fewer batches than this in a period nobody would notice what else goes on.
const USERS_MIN: u64 = 25;
/// After so many periods with fewer nobody is there: in one of them a disk may have stood still.
const ABSENT_MIN: u32 = 4;
/// How often the rate is set.
const PERIOD: Duration = Duration::from_millis(250);
/// Periods that are remembered: half a minute.
const REMEMBERED_MAX: usize = 120;
/// With fewer of them nobody knows what users had before.
const REMEMBERED_MIN: usize = 20;
/// What moves, moves with pauses: after so many periods in which nothing did, it is over.
const QUIET_MIN: u32 = 20;

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

    fn have_users(&self) -> bool {
        self.0.len() >= USERS_MIN
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
    waits: AtomicBool,
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

    /// How users are served: they wait where snapshots go on and it takes longer than it may.
    pub(crate) fn state(&self) -> report::Foreground {
        if self.waits.load(Ordering::Relaxed) {
            report::Foreground::Waits
        } else if self.has_users.load(Ordering::Relaxed) {
            report::Foreground::Served
        } else {
            report::Foreground::Idle
        }
    }
}

/// How users were served in the last half minute in which no replica moved: the 99th percentile of each period. Compared with that of
/// one period, which as few batches make as uncertain; and an outage is a few periods of many.
#[derive(Default)]
struct Before {
    p99s: VecDeque<Duration>,
    quiet: u32,
}

impl Before {
    /// A period is over.
    fn passes(&mut self, times: &Times, is_quiet: bool) {
        self.quiet = if is_quiet { self.quiet.saturating_add(1) } else { 0 };
        if self.quiet < QUIET_MIN || !times.have_users() {
            return;
        }
        if self.p99s.len() == REMEMBERED_MAX {
            self.p99s.pop_front();
        }
        self.p99s.push_back(times.p99());
    }

    fn is_known(&self) -> bool {
        self.p99s.len() >= REMEMBERED_MIN
    }

    /// What the 99th percentile may be while replicas move: what it was in three periods of four, and half as much again.
    fn target(&self) -> Duration {
        if !self.is_known() {
            return TARGET_UNKNOWN;
        }
        let mut p99s = Vec::from_iter(self.p99s.iter().copied());
        p99s.sort_unstable();
        (p99s[p99s.len() * 3 / 4] * 3 / 2).clamp(TARGET_MIN, TARGET_MAX)
    }
}

/// Sets the rate again and again, for as long as the node runs.
pub(crate) async fn run(member: Arc<Member>) {
    let mut turn = interval(PERIOD);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rate = RATE_MAX;
    let mut throttled = false;
    let mut absent = ABSENT_MIN;
    let mut before = Before::default();
    loop {
        turn.tick().await;
        let foreground = &member.foreground;
        let times = foreground.take_times();
        absent = if times.have_users() { 0 } else { absent.saturating_add(1) };
        let (has_users, p99) = (absent < ABSENT_MIN, times.p99());
        let is_busy = member.groups.are_sending_snapshots();
        let moves = member.feed.latest().is_none_or(|map| !map.topology.moves.is_empty());
        before.passes(&times, !is_busy && !moves);
        let target = before.target();
        let most = match (has_users, before.is_known()) {
            (false, _) => RATE_MAX,
            (true, true) => RATE_USERS_MAX,
            (true, false) => RATE_FIRST,
        };
        let next = if is_busy { next_rate(rate, most, p99 > target) } else { first_rate(has_users) };
        // Not at each turn of a rate that swings about what users bear.
        let throttles = is_busy && (next < RATE_FIRST || throttled && next < most);
        if throttles != throttled {
            info!(throttled = throttles, rate = next, ?p99, ?target, "snapshots");
            throttled = throttles;
        }
        if next != rate {
            member.transport.snapshot_rate().set_rate(next);
            member.storage.export_rate.set_rate(next);
        }
        metrics::gauge!("quorate_snapshot_rate_bytes_per_second").set(next as f64);
        rate = next;
        foreground.waits.store(is_busy && p99 > target, Ordering::Relaxed);
        foreground.has_users.store(has_users, Ordering::Relaxed);
    }
}

/// What the next snapshot begins with.
fn first_rate(has_users: bool) -> u64 {
    if has_users { RATE_FIRST } else { RATE_MAX }
}

/// Grows slowly: users are to feel what is too much while it is a little too much.
fn next_rate(rate: u64, most: u64, users_wait: bool) -> u64 {
    if users_wait {
        return (rate / 2).clamp(RATE_MIN, most);
    }
    (rate + rate / 8).min(most)
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
        assert_eq!(next_rate(RATE_MAX, RATE_MAX, false), RATE_MAX);
        assert_eq!(next_rate(RATE_MAX, RATE_MAX, true), RATE_MAX / 2);
        assert_eq!(next_rate(RATE_MAX, RATE_USERS_MAX, false), RATE_USERS_MAX, "users came");
        let mut rate = RATE_MAX;
        for _ in 0..20 {
            rate = next_rate(rate, RATE_MAX, true);
        }
        assert_eq!(rate, RATE_MIN, "they end all the same");
        for _ in 0..40 {
            rate = next_rate(rate, RATE_MAX, false);
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
    fn the_target_is_what_users_had_before_anything_moved() {
        let mut before = Before::default();
        let pass = |before: &mut Before, periods: usize, ms: u64, is_quiet: bool| {
            (0..periods).for_each(|_| before.passes(&times(100, ms), is_quiet));
            before.target()
        };
        assert_eq!(before.target(), TARGET_UNKNOWN);
        let target = pass(&mut before, 50, 20, true);
        assert!((29..=31).contains(&target.as_millis()), "{target:?}");
        assert_eq!(pass(&mut before, 1000, 100, false), target, "while replicas move");
        assert_eq!(pass(&mut before, 10, 100, true), target, "between two moves");
        assert_eq!(pass(&mut before, 15, 2000, true), target, "an outage");
        before.passes(&times(1, 100), true);
        assert_eq!(before.target(), target, "nobody is there");
        // Half a minute of it: what was before that is forgotten.
        assert_eq!(pass(&mut before, REMEMBERED_MAX, 1, true), TARGET_MIN);
        assert_eq!(pass(&mut before, REMEMBERED_MAX, 400, true), TARGET_MAX);
    }
}
