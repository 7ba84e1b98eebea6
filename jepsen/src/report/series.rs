//! Latency and rate over the time of a run, in bins.

use super::availability::quantile;
use crate::history::EventKind;
use crate::workload::Done;

/// Number of bins in a plot: about one per ten pixels.
const BINS: u64 = 120;

/// The operations that ended in one bin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bin {
    /// `ok` operations per second.
    pub ok: f64,
    /// `fail` operations per second.
    pub fail: f64,
    /// `info` operations per second.
    pub info: f64,
    /// Latency of the `ok` operations in milliseconds: median, 99th percentile, maximum. None
    /// without such operations.
    pub latency_ms: Option<[f64; 3]>,
}

/// Bins over the time of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Length of a bin in nanoseconds.
    pub bin_ns: u64,
    /// The bins from the beginning of the run on.
    pub bins: Vec<Bin>,
}

impl Series {
    /// Counts all operations that ended before `end`.
    pub fn of(operations: &[Done<'_>], end: u64) -> Self {
        let bin_ns = end.div_ceil(BINS).max(1);
        let count = usize::try_from(end.div_ceil(bin_ns)).unwrap_or(0);
        let mut latencies: Vec<Vec<u64>> = vec![Vec::new(); count];
        let mut bins = vec![Bin::default(); count];
        let one = 1e9 / bin_ns as f64;
        for done in operations {
            let Some(completion) = done.completion else { continue };
            let Ok(place) = usize::try_from(completion.time / bin_ns) else { continue };
            let Some(bin) = bins.get_mut(place) else { continue };
            match completion.kind {
                EventKind::Ok => {
                    bin.ok += one;
                    latencies[place].push(completion.time - done.invoke.time);
                }
                EventKind::Fail => bin.fail += one,
                EventKind::Info | EventKind::Invoke => bin.info += one,
            }
        }
        for (bin, latencies) in bins.iter_mut().zip(&mut latencies) {
            latencies.sort_unstable();
            let at = |part| quantile(latencies, part).map(|ns| ns as f64 / 1e6);
            bin.latency_ms = at(0.5).zip(at(0.99)).zip(at(1.0)).map(|((p50, p99), max)| [p50, p99, max]);
        }
        Series { bin_ns, bins }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::history::Event;
    use crate::workload::operations;

    #[test]
    fn operation_counts_in_the_bin_where_it_ends() {
        let event = |time: u64, process: u64, kind: &str| -> Event {
            let event = json!({"index": 0, "time": time, "process": process, "type": kind, "f": "read"});
            serde_json::from_value(event).unwrap()
        };
        let s = 1_000_000_000;
        let history = [
            event(0, 1, "invoke"),
            event(s / 2, 1, "ok"),
            event(s, 1, "invoke"),
            event(119 * s + 1, 1, "fail"),
            event(119 * s + 1, 2, "invoke"),
        ];
        let series = Series::of(&operations(&history), 120 * s);
        assert_eq!((series.bins.len(), series.bin_ns), (120, s));
        assert_eq!((series.bins[0].ok, series.bins[0].latency_ms), (1.0, Some([500.0; 3])));
        assert_eq!((series.bins[119].fail, series.bins[119].latency_ms), (1.0, None));
    }
}
