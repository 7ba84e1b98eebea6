//! Counters and histograms of requests, by kind of operation.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};
use quorate_control::Answer;

/// Counters and histograms by kind of operation, looked up once for each stream.
pub(crate) struct Metrics {
    /// Writes and sessions opened.
    pub(crate) write: KindMetrics,
    /// Linearizable reads.
    pub(crate) strong: KindMetrics,
    /// Local reads.
    pub(crate) eventual: KindMetrics,
}

/// The counters and the histogram of one kind.
pub(crate) struct KindMetrics {
    served: Counter,
    rejected: Counter,
    seconds: Histogram,
}

impl Metrics {
    /// Looks them up.
    pub(crate) fn new() -> Self {
        let kind = |kind: &'static str| KindMetrics {
            served: counter!("quorate_requests_total", "kind" => kind, "outcome" => "served"),
            rejected: counter!("quorate_requests_total", "kind" => kind, "outcome" => "rejected"),
            seconds: histogram!("quorate_request_batch_seconds", "kind" => kind),
        };
        Metrics { write: kind("write"), strong: kind("strong"), eventual: kind("eventual") }
    }
}

impl KindMetrics {
    /// Counts many answers with one addition each.
    pub(crate) fn count(&self, answers: &[Answer]) {
        let rejected = answers.iter().filter(|answer| answer.result.is_err()).count() as u64;
        let served = answers.len() as u64 - rejected;
        if served > 0 {
            self.served.increment(served);
        }
        if rejected > 0 {
            self.rejected.increment(rejected);
        }
    }

    /// Records the duration of a batch.
    pub(crate) fn took(&self, time: Duration) {
        self.seconds.record(time);
    }
}
