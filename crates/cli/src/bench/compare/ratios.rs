//! Ratios of measurements, their spread over the rounds, and the verdict. Pure functions.

use serde::Serialize;

use super::plan::Measurement;
use crate::output;

/// The new build's throughput must be at least this many times the old one's.
const THROUGHPUT_MIN: f64 = 0.97;
/// The new build's p99 must be at most this many times the old one's.
const P99_MAX: f64 = 1.10;

/// The ratios of one load in one round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    new: Ratios,
    again: Ratios,
}

/// Throughput and p99 of one cluster divided by the old one's.
#[derive(Clone, Copy, Debug)]
struct Ratios {
    throughput: f64,
    p99: f64,
}

impl Pair {
    /// The ratios of three measurements, in the order old, old again, new.
    pub(super) fn new(measured: &[Measurement]) -> Self {
        let [old, again, new] = measured else { panic!("a comparison has three clusters, not {}", measured.len()) };
        let to_old =
            |of: &Measurement| Ratios { throughput: of.throughput / old.throughput, p99: of.p99_ms / old.p99_ms };
        Pair { new: to_old(new), again: to_old(again) }
    }
}

/// A ratio over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// The spread of `ratios`, which has at least one.
    fn new(mut ratios: Vec<f64>) -> Self {
        assert!(!ratios.is_empty(), "a spread is of at least one ratio");
        ratios.sort_by(f64::total_cmp);
        let middle = ratios.len() / 2;
        let median = if ratios.len() % 2 == 1 { ratios[middle] } else { (ratios[middle - 1] + ratios[middle]) / 2.0 };
        Spread { median, min: ratios[0], max: ratios[ratios.len() - 1] }
    }

    fn text(&self) -> String {
        format!("{:.2}  ({:.2} to {:.2})", self.median, self.min, self.max)
    }
}

/// The spread of new ÷ old, beside that of old ÷ old.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Beside {
    new_to_old: Spread,
    old_to_old: Spread,
}

impl Beside {
    fn new(pairs: &[Pair], figure: impl Fn(&Ratios) -> f64) -> Self {
        Beside {
            new_to_old: Spread::new(pairs.iter().map(|pair| figure(&pair.new)).collect()),
            old_to_old: Spread::new(pairs.iter().map(|pair| figure(&pair.again)).collect()),
        }
    }
}

/// One load's comparison over all rounds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Comparison {
    load: String,
    throughput: Beside,
    p99: Beside,
    /// True if throughput is at least 0.97 and p99 at most 1.10 times the old one's, or if they are
    /// inside the spread of old ÷ old.
    within_limits: bool,
}

impl Comparison {
    /// Compares the rounds in which the load was measured. None if there is no such round.
    pub(super) fn new(load: String, pairs: Vec<Pair>) -> Option<Self> {
        if pairs.is_empty() {
            return None;
        }
        let throughput = Beside::new(&pairs, |ratios| ratios.throughput);
        let p99 = Beside::new(&pairs, |ratios| ratios.p99);
        let fast = throughput.new_to_old.median >= THROUGHPUT_MIN.min(throughput.old_to_old.min);
        let steady = p99.new_to_old.median <= P99_MAX.max(p99.old_to_old.max);
        Some(Comparison { load, throughput, p99, within_limits: fast && steady })
    }
}

/// The comparison as text for a terminal.
pub(super) fn table(loads: &[Comparison], rounds: u32) -> String {
    let header = ["LOAD", "THROUGHPUT NEW ÷ OLD", "OLD ÷ OLD", "P99 NEW ÷ OLD", "OLD ÷ OLD", "WITHIN LIMITS"];
    let rows = loads.iter().map(|Comparison { load, throughput, p99, within_limits }| {
        [
            load.clone(),
            throughput.new_to_old.text(),
            throughput.old_to_old.text(),
            p99.new_to_old.text(),
            p99.old_to_old.text(),
            if *within_limits { "yes" } else { "no" }.to_owned(),
        ]
    });
    let table = output::table(header, rows);
    format!(
        "{table}\nMedian (smallest to largest) of {rounds} rounds. Within limits: throughput at least {THROUGHPUT_MIN:.2} and p99 at \
         most {P99_MAX:.2}\ntimes the old one's, or inside the spread of old ÷ old.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(throughput: f64, p99_ms: f64) -> Measurement {
        Measurement { throughput, p99_ms }
    }

    fn comparison(rounds: &[[(f64, f64); 3]]) -> Comparison {
        let pairs = rounds.iter().map(|round| Pair::new(&round.map(|(throughput, p99)| measured(throughput, p99))));
        Comparison::new("put, 1 client".to_owned(), pairs.collect()).unwrap()
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine is twice as fast in the second round, which does not change the ratios.
        let same =
            comparison(&[[(100.0, 2.0), (110.0, 2.0), (120.0, 1.0)], [(200.0, 1.0), (220.0, 1.0), (240.0, 0.5)]]);
        assert_eq!(same.throughput.new_to_old, Spread { median: 1.2, min: 1.2, max: 1.2 });
        assert_eq!(same.throughput.old_to_old, Spread { median: 1.1, min: 1.1, max: 1.1 });
        assert_eq!(same.p99.new_to_old.median, 0.5);
        assert!(same.within_limits);
    }

    #[test]
    fn a_slower_build_is_out_of_limits_unless_the_old_one_spreads_as_far() {
        let steady = [(100.0, 2.0), (100.0, 2.0), (90.0, 2.0)];
        assert!(!comparison(&[steady; 3]).within_limits);
        let unsteady = [(100.0, 2.0), (88.0, 2.0), (90.0, 2.0)];
        assert!(comparison(&[steady, unsteady, steady]).within_limits);
        let late = [(100.0, 2.0), (100.0, 2.0), (100.0, 2.3)];
        assert!(!comparison(&[late]).within_limits);
    }

    #[test]
    fn a_median_of_an_even_count_is_between_the_middle_ones() {
        assert_eq!(Spread::new(vec![4.0, 1.0, 3.0, 2.0]).median, 2.5);
        assert!(Comparison::new("none".to_owned(), Vec::new()).is_none());
    }
}
