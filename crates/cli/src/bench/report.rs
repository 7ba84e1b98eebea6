//! The result of a measurement: counts and latencies of one time window.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

use super::target::ErrorKind;

/// The largest recorded latency, in microseconds: longer than any deadline in use.
const LATENCY_US_MAX: u64 = 600_000_000;
/// Significant digits of a recorded latency.
const DIGITS: u8 = 3;

/// The measured time: from the end of the warm-up to the end of the load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) start: Instant,
    pub(super) end: Instant,
}

/// The counts and latencies of one client, or of all clients together.
///
/// * Throughput counts successes that *ended* inside the window.
/// * Latencies and errors count operations that *began* inside it, however late they ended. An
///   operation that hangs at the end of the window is thus counted.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    latencies_us: Histogram<u32>,
    ended_inside: u64,
    errors: BTreeMap<ErrorKind, u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let latencies_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS).expect("the bounds are constants");
        Tally { latencies_us, ended_inside: 0, errors: BTreeMap::new() }
    }
}

/// The result of one window, as a JSON document.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Operations per second that succeeded.
    pub(super) throughput: f64,
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
    /// Failed operations, by kind.
    pub(super) errors: BTreeMap<ErrorKind, u64>,
    /// Operations that succeeded.
    pub(super) operations: u64,
    pub(super) measured_seconds: f64,
}

impl Tally {
    /// Counts one operation.
    pub(super) fn record(&mut self, window: &Window, begun: Instant, ended: Instant, result: Result<(), ErrorKind>) {
        let began_inside = (window.start..window.end).contains(&begun);
        match result {
            Ok(()) => {
                if (window.start..window.end).contains(&ended) {
                    self.ended_inside += 1;
                }
                if began_inside {
                    let us = u64::try_from((ended - begun).as_micros()).unwrap_or(u64::MAX);
                    self.latencies_us.saturating_record(us.max(1));
                }
            }
            Err(kind) if began_inside => *self.errors.entry(kind).or_default() += 1,
            Err(_) => {}
        }
    }

    /// Adds the tally of another client.
    pub(super) fn add(&mut self, other: &Tally) {
        self.latencies_us.add(&other.latencies_us).expect("all histograms have the same bounds");
        self.ended_inside += other.ended_inside;
        for (kind, count) in &other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
    }

    /// The report over `ran`, the part of the window in which the load ran.
    pub(super) fn report(self, ran: Window) -> Report {
        let seconds = (ran.end - ran.start).as_secs_f64();
        let quantile_ms = |quantile| ms(self.latencies_us.value_at_quantile(quantile));
        Report {
            throughput: if seconds > 0.0 { round(self.ended_inside as f64 / seconds) } else { 0.0 },
            p50_ms: quantile_ms(0.50),
            p90_ms: quantile_ms(0.90),
            p99_ms: quantile_ms(0.99),
            p999_ms: quantile_ms(0.999),
            max_ms: ms(self.latencies_us.max()),
            errors: self.errors,
            operations: self.ended_inside,
            measured_seconds: round(seconds),
        }
    }
}

fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}

/// Rounds to three decimals: more would suggest a false precision.
fn round(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

impl Report {
    /// True if operations ended, all of them with errors.
    pub(super) fn nothing_succeeded(&self) -> bool {
        self.operations == 0 && !self.errors.is_empty()
    }

    /// True if no operation ended, so that nothing was measured.
    pub(super) fn nothing_ended(&self) -> bool {
        self.operations == 0 && self.errors.is_empty()
    }

    /// The errors in one line.
    pub(super) fn errors_line(&self) -> String {
        if self.errors.is_empty() {
            return "none".to_owned();
        }
        let counts: Vec<String> = self.errors.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        counts.join(", ")
    }

    /// The report as text for a terminal.
    pub(super) fn screen(&self) -> String {
        let Report { throughput, p50_ms, p90_ms, p99_ms, p999_ms, max_ms, operations, measured_seconds, .. } = self;
        format!(
            "throughput  {throughput:.0} operations/s   ({operations} in {measured_seconds:.1} s)\n\
             latency     p50 {p50_ms:.2}   p90 {p90_ms:.2}   p99 {p99_ms:.2}   p99.9 {p999_ms:.2}   max {max_ms:.2} ms\n\
             errors      {}\n",
            self.errors_line()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_the_window_counts() {
        let start = Instant::now() + Duration::from_secs(10);
        let window = Window { start, end: start + Duration::from_secs(2) };
        let at = |ms: i64| match u64::try_from(ms) {
            Ok(ms) => start + Duration::from_millis(ms),
            Err(_) => start - Duration::from_millis(ms.unsigned_abs()),
        };
        let mut tally = Tally::default();
        tally.record(&window, at(-30), at(-10), Ok(())); // in the warm-up
        tally.record(&window, at(-10), at(10), Ok(())); // ends inside: throughput
        tally.record(&window, at(10), at(14), Ok(())); // both
        tally.record(&window, at(1_990), at(2_490), Ok(())); // begins inside: latency
        tally.record(&window, at(1_990), at(7_000), Err("unknown"));
        tally.record(&window, at(2_000), at(2_001), Err("unknown")); // after the end
        let mut total = Tally::default();
        total.add(&tally);
        let report = total.report(window);
        assert_eq!((report.operations, report.throughput), (2, 1.0));
        assert!((499.0..=501.0).contains(&report.max_ms), "{report:?}");
        assert_eq!(report.errors, BTreeMap::from([("unknown", 1)]));
    }

    #[test]
    fn json_has_the_fields_that_scripts_read() {
        let start = Instant::now();
        let report = Tally::default().report(Window { start, end: start + Duration::from_secs(1) });
        let json = serde_json::to_value(&report).unwrap();
        for field in ["throughput", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms", "operations", "measured_seconds"]
        {
            assert!(json[field].is_number(), "{field}");
        }
        assert!(json["errors"].is_object());
    }

    #[test]
    fn the_screen_names_every_kind_of_error() {
        let start = Instant::now();
        let mut tally = Tally::default();
        let window = Window { start, end: start + Duration::from_secs(1) };
        tally.record(&window, start, start, Err("unknown"));
        tally.record(&window, start, start, Err("overloaded"));
        let report = tally.report(window);
        assert!(report.screen().ends_with("errors      1 overloaded, 1 unknown\n"), "{}", report.screen());
        assert!(report.nothing_succeeded());
    }
}
