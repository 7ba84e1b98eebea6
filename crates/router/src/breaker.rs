//! A circuit breaker: a node that keeps failing is left alone for a while.
//!
//! ```text
//!            FAILURES_MAX in a row within WINDOW
//!   closed ──────────────────────────────────────► open ◄────────┐
//!     ▲                                              │ its time   │ the probe fails:
//!     │                      the probe is answered   ▼ is over    │ open for twice as long
//!     └────────────────────────────────────────── half-open ──────┘
//! ```
//!
//! Pure: time is handed in. It is also what spaces out reconnections: a link is only opened for a request, and an open breaker
//! lets none through.

use std::time::Duration;

use tokio::time::Instant;

/// This many failures in a row open the breaker…
const FAILURES_MAX: u32 = 3;
/// …if the first of them is not older than this.
const WINDOW: Duration = Duration::from_secs(10);
/// How long the breaker is open at first; doubled whenever the probe fails.
const OPEN_FIRST: Duration = Duration::from_millis(100);
/// The longest that it is open: a node that comes back is noticed within this time.
const OPEN_LONGEST: Duration = Duration::from_secs(1);
/// A probe that has not ended by then is forgotten, and the next request is the probe.
const PROBE_LONGEST: Duration = Duration::from_secs(1);

/// The state of one node's breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breaker {
    /// Requests pass.
    Closed {
        /// Failures in a row.
        failures: u32,
        /// When the first of them was.
        since: Option<Instant>,
    },
    /// No request passes.
    Open {
        /// Until then.
        until: Instant,
        /// For how long it was opened.
        span: Duration,
    },
    /// One request has passed and shows whether the node is well.
    HalfOpen {
        /// When it passed.
        probing_since: Instant,
        /// For how long the breaker was open before.
        span: Duration,
    },
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker::Closed { failures: 0, since: None }
    }
}

impl Breaker {
    /// Whether a request would pass.
    pub(crate) fn would_admit(&self, now: Instant) -> bool {
        match *self {
            Breaker::Closed { .. } => true,
            Breaker::Open { until, .. } => now >= until,
            Breaker::HalfOpen { probing_since, .. } => now >= probing_since + PROBE_LONGEST,
        }
    }

    /// Lets a request pass, or not. The one that passes when the breaker was open is the probe.
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        if !self.would_admit(now) {
            return false;
        }
        if let Breaker::Open { span, .. } | Breaker::HalfOpen { span, .. } = *self {
            *self = Breaker::HalfOpen { probing_since: now, span };
        }
        true
    }

    /// The node answered: whatever it said, it is well.
    pub(crate) fn success(&mut self) {
        *self = Breaker::default();
    }

    /// The node could not be reached, broke off or kept silent.
    pub(crate) fn failure(&mut self, now: Instant) {
        *self = match *self {
            Breaker::Closed { failures, since } => {
                let since = since.filter(|&since| now < since + WINDOW);
                let failures = if since.is_some() { failures + 1 } else { 1 };
                match failures {
                    FAILURES_MAX.. => Breaker::Open { until: now + OPEN_FIRST, span: OPEN_FIRST },
                    _ => Breaker::Closed { failures, since: since.or(Some(now)) },
                }
            }
            Breaker::HalfOpen { span, .. } => {
                let span = (span * 2).min(OPEN_LONGEST);
                Breaker::Open { until: now + span, span }
            }
            // Of a request that passed before it opened: nothing new.
            open @ Breaker::Open { .. } => open,
        };
    }

    /// Whether there is nothing to remember, so that requests need not ask.
    pub(crate) fn is_pristine(&self) -> bool {
        matches!(self, Breaker::Closed { failures: 0, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES_MAX {
            assert!(breaker.admit(now));
            breaker.failure(now);
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_probe_through_when_its_time_is_over() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert!(!breaker.admit(now));
        assert!(!breaker.admit(now + OPEN_FIRST - Duration::from_millis(1)));
        let later = now + OPEN_FIRST;
        assert!(breaker.admit(later), "the probe");
        assert!(!breaker.admit(later), "only one");
        breaker.success();
        assert!(breaker.admit(later));
        assert!(breaker.is_pristine());
    }

    #[test]
    fn a_failed_probe_opens_it_for_twice_as_long_up_to_a_longest() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for span_ms in [100, 200, 400, 800, 1000, 1000] {
            let span = Duration::from_millis(span_ms);
            assert!(!breaker.would_admit(now + span - Duration::from_millis(1)), "{span_ms}");
            now += span;
            assert!(breaker.admit(now), "{span_ms}");
            breaker.failure(now);
        }
    }

    #[test]
    fn a_success_or_a_long_while_between_failures_starts_the_count_anew() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            breaker.failure(now);
            breaker.failure(now);
            breaker.success();
        }
        breaker.failure(now);
        breaker.failure(now);
        breaker.failure(now + WINDOW);
        assert!(breaker.admit(now + WINDOW), "the first two are too long ago");
    }

    #[test]
    fn a_probe_that_never_ends_does_not_close_the_node_off_for_ever() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert!(breaker.admit(now + OPEN_FIRST));
        assert!(!breaker.admit(now + OPEN_FIRST + PROBE_LONGEST - Duration::from_millis(1)));
        assert!(breaker.admit(now + OPEN_FIRST + PROBE_LONGEST));
    }
}
