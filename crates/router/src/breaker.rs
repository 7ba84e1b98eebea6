//! A circuit breaker: a node that keeps failing gets no requests for a while.
//!
//! ```text
//!            FAILURES_MAX in a row within WINDOW
//!   closed ──────────────────────────────────────► open ◄────────┐
//!     ▲                                              │ its span   │ the probe fails:
//!     │                      the probe is answered   ▼ is over    │ open for twice as long
//!     └────────────────────────────────────────── half-open ──────┘
//! ```
//!
//! Pure: time is passed in. The breaker also spaces out reconnections: a connection is only opened
//! for a request, and an open breaker lets no request through.

use std::time::Duration;

use tokio::time::Instant;

/// This many failures in a row, the first within [`WINDOW`], open the breaker.
const FAILURES_MAX: u32 = 3;
/// The oldest age of the first failure in a row.
const WINDOW: Duration = Duration::from_secs(10);
/// How long the breaker is open at first. Doubled whenever the probe fails.
const OPEN_FIRST: Duration = Duration::from_millis(100);
/// The longest time that the breaker is open: a node that returns is noticed within this time.
const OPEN_LONGEST: Duration = Duration::from_secs(1);
/// A probe without a result for this long is forgotten, and the next request is the probe.
const PROBE_LONGEST: Duration = Duration::from_secs(1);

/// The state of one node's breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breaker {
    /// Every request passes.
    Closed {
        /// Failures in a row.
        failures: u32,
        /// The time of the first of them.
        since: Option<Instant>,
    },
    /// No request passes.
    Open {
        /// The end of the span.
        until: Instant,
        /// How long the breaker is open.
        span: Duration,
    },
    /// One request, the probe, has passed; its result decides.
    HalfOpen {
        /// The time at which the probe passed.
        probing_since: Instant,
        /// How long the breaker was open before the probe.
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

    /// Lets a request pass, or not. The first to pass after the breaker was open is the probe.
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        if !self.would_admit(now) {
            return false;
        }
        if let Breaker::Open { span, .. } | Breaker::HalfOpen { span, .. } = *self {
            *self = Breaker::HalfOpen { probing_since: now, span };
        }
        true
    }

    /// Records an answer of the node. Any answer counts, also a rejection.
    pub(crate) fn success(&mut self) {
        *self = Breaker::default();
    }

    /// Records a failure: the node was unreachable, its connection ended, or it was silent.
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
            // The request had passed before the breaker opened.
            open @ Breaker::Open { .. } => open,
        };
    }

    /// Whether there are no failures to remember, so that requests need not ask.
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
    fn breaker_opens_after_failures_in_a_row_and_then_admits_one_probe() {
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
    fn failed_probes_double_the_open_span_up_to_its_maximum() {
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
    fn success_or_a_long_gap_resets_the_failure_count() {
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
    fn a_probe_without_a_result_is_replaced() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert!(breaker.admit(now + OPEN_FIRST));
        assert!(!breaker.admit(now + OPEN_FIRST + PROBE_LONGEST - Duration::from_millis(1)));
        assert!(breaker.admit(now + OPEN_FIRST + PROBE_LONGEST));
    }
}
