//! The pace of snapshots: a rate limit shared by all snapshots of a node, one instance for writing
//! their files and one for sending them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The rate of all snapshots that a node sends, in bytes per second, while it has no users: for the
/// network, for the disks at both ends, and before that for writing the files.
pub const RATE_MAX: u64 = 200 << 20;
/// After a pause, this much time's worth of bytes passes without waiting.
pub const RATE_BURST: Duration = Duration::from_millis(100);
/// Files of snapshots are synced in pieces of this size while they are written or received. One
/// sync of a whole file would delay all other syncs of the disk.
pub const SYNC_BYTES: u64 = 4 << 20;

/// Limits bytes to a steady rate. Pure except for a lock: the caller passes the current time, and
/// sleeps.
///
/// # Invariants
/// * In any period `t`, at most `burst + rate × t` bytes pass (held by the test
///   `rate_holds_after_a_burst`).
#[derive(Debug)]
pub struct RateLimiter {
    bytes_per_second: AtomicU64,
    burst: Duration,
    /// The time at which all reservations so far are paid for at the current rate.
    paid_at: Mutex<Option<Instant>>,
}

impl RateLimiter {
    /// Creates a limiter of `bytes_per_second`. After a pause, the bytes of a `burst` period pass
    /// without waiting.
    pub fn new(bytes_per_second: u64, burst: Duration) -> Self {
        RateLimiter { bytes_per_second: AtomicU64::new(bytes_per_second.max(1)), burst, paid_at: Mutex::new(None) }
    }

    /// Changes the rate for later reservations.
    pub fn set_rate(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second.max(1), Ordering::Relaxed);
    }

    /// Reserves `bytes` and returns the time to wait before they may pass.
    pub fn reserve(&self, bytes: usize, now: Instant) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.load(Ordering::Relaxed) as f64);
        let mut paid_at = self.paid_at.lock().expect("only a broken invariant poisons this lock");
        let paid = paid_at.map_or(now, |at| at.max(now)) + cost;
        *paid_at = Some(paid);
        paid.saturating_duration_since(now).saturating_sub(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_holds_after_a_burst() {
        let rate_limiter = RateLimiter::new(1000, Duration::from_millis(500));
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(rate_limiter.reserve(500, at(0)), Duration::ZERO);
        assert_eq!(rate_limiter.reserve(100, at(0)), Duration::from_millis(100));
        assert_eq!(rate_limiter.reserve(100, at(100)), Duration::from_millis(100));
        assert_eq!(rate_limiter.reserve(100, at(5000)), Duration::ZERO, "a pause earns a burst, and no more");
        assert_eq!(rate_limiter.reserve(1400, at(5000)), Duration::from_millis(1000));
    }
}
