//! What snapshots may take while users wait: half as much every time the foreground is slower than its target, a little more
//! every time it is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_types::report;
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use crate::member::Member;

/// What all snapshots that a node sends may take of the network and of the disks at both ends, in bytes per second, while
/// nobody waits.
pub(crate) const RATE_MAX: u64 = 200 << 20;
/// What they may take at least, so that they end.
const RATE_MIN: u64 = 8 << 20;
/// A batch of requests that takes longer than this is slow: the foreground's target for its 99th percentile.
const TARGET: Duration = Duration::from_millis(50);
/// One in so many may be slow.
const SLOW_ONE_IN: u64 = 100;
/// With fewer batches than this in a period nobody would notice what else goes on.
const USERS_MIN: u64 = 25;
/// How often the rate is set.
const PERIOD: Duration = Duration::from_millis(250);

/// How fast clients were served since the rate was last set.
#[derive(Default)]
pub(crate) struct Foreground {
    served: AtomicU64,
    slow: AtomicU64,
    rate: AtomicU64,
    has_users: AtomicBool,
}

impl Foreground {
    /// A batch of requests took so long.
    pub(crate) fn took(&self, time: Duration) {
        self.served.fetch_add(1, Ordering::Relaxed);
        if time > TARGET {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
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

/// Sets the rate again and again, for as long as the node runs.
pub(crate) async fn run(member: Arc<Member>) {
    let mut turn = interval(PERIOD);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rate = RATE_MAX;
    loop {
        turn.tick().await;
        let foreground = &member.foreground;
        let (served, slow) = (foreground.served.swap(0, Ordering::Relaxed), foreground.slow.swap(0, Ordering::Relaxed));
        let next = next_rate(rate, served, slow);
        if (next == RATE_MAX) != (rate == RATE_MAX) {
            info!(throttled = next < RATE_MAX, "snapshots");
        }
        if next != rate {
            member.transport.set_snapshot_rate(next);
            metrics::gauge!("quorate_snapshot_rate_bytes_per_second").set(next as f64);
        }
        rate = next;
        foreground.rate.store(rate, Ordering::Relaxed);
        foreground.has_users.store(served >= USERS_MIN, Ordering::Relaxed);
    }
}

fn next_rate(rate: u64, served: u64, slow: u64) -> u64 {
    if slow * SLOW_ONE_IN > served {
        return (rate / 2).max(RATE_MIN);
    }
    (rate + rate / 4).min(RATE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_give_way_to_users_and_come_back() {
        assert_eq!(next_rate(RATE_MAX, 0, 0), RATE_MAX, "nobody waits");
        assert_eq!(next_rate(RATE_MAX, 1000, 10), RATE_MAX, "one in a hundred may be slow");
        assert_eq!(next_rate(RATE_MAX, 1000, 11), RATE_MAX / 2);
        let mut rate = RATE_MAX;
        for _ in 0..20 {
            rate = next_rate(rate, 10, 10);
        }
        assert_eq!(rate, RATE_MIN, "they end all the same");
        for _ in 0..20 {
            rate = next_rate(rate, 1000, 0);
        }
        assert_eq!(rate, RATE_MAX);
    }
}
