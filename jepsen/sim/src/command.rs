//! Runs many seeds on several threads: the command `quorate-jepsen sim`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::counts::{Count, Totals};
use crate::run::{Options, Outcome, run};

/// The results of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// Seeds with violations, and the violations.
    pub violated: BTreeMap<u64, Vec<String>>,
    /// The counts of all seeds together.
    pub totals: Totals,
    /// The sum of the simulated times.
    pub simulated: Duration,
    /// The wall-clock duration of all runs together.
    pub took: Duration,
}

impl Summary {
    /// Seeds per minute.
    pub fn seeds_per_minute(&self) -> f64 {
        self.seeds as f64 * 60.0 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.simulated += outcome.simulated;
        self.totals.add(&outcome.totals);
        if !outcome.violations.is_empty() {
            self.violated.insert(outcome.seed, outcome.violations.clone());
        }
    }
}

/// Runs the seeds on `jobs` threads. Writes a line for every violation and a summary to `out`. With
/// `trace`, writes the trace of each seed to that file, in the order of the seeds. Fails if `out`
/// or the file cannot be written.
pub fn command(
    seeds: Range<u64>,
    jobs: usize,
    options: &Options,
    trace: Option<&Path>,
    out: &mut dyn Write,
) -> io::Result<Summary> {
    let began = Instant::now();
    let mut file = trace.map(std::fs::File::create).transpose()?;
    let options = Options { keep_trace: options.keep_trace || trace.is_some(), ..options.clone() };
    let next = AtomicU64::new(seeds.start);
    let mut summary = Summary::default();
    let mut waiting: BTreeMap<u64, Outcome> = BTreeMap::new();
    let mut written = seeds.start;
    std::thread::scope(|scope| {
        let (done, outcomes) = mpsc::channel();
        for _ in 0..jobs.max(1) {
            let (done, next, options, end) = (done.clone(), &next, &options, seeds.end);
            scope.spawn(move || {
                loop {
                    let Some(seed) = take(next, end) else { return };
                    if done.send(run(seed, options)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        for outcome in outcomes {
            summary.add(&outcome);
            for violation in &outcome.violations {
                writeln!(out, "seed {}: {violation}", outcome.seed)?;
            }
            if let Some(file) = &mut file {
                waiting.insert(outcome.seed, outcome);
                while let Some(outcome) = waiting.remove(&written) {
                    writeln!(file, "seed {}: {}", outcome.seed, outcome.scenario)?;
                    outcome.trace.iter().try_for_each(|line| writeln!(file, "{line}"))?;
                    written += 1;
                }
            }
        }
        io::Result::Ok(())
    })?;
    summary.took = began.elapsed();
    summary.write(out)?;
    Ok(summary)
}

/// The next seed, if there is one before `end`.
fn take(next: &AtomicU64, end: u64) -> Option<u64> {
    next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seed| (seed < end).then(|| seed + 1)).ok()
}

impl Summary {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let verdict = match (self.violated.is_empty(), self.totals.get(Count::Undecided)) {
            (false, _) => "invalid",
            (true, 0) => "valid",
            (true, _) => "unknown",
        };
        writeln!(
            out,
            "{verdict}: {} seeds, {} with violations; {:.0} s simulated in {:.1} s, {:.0} seeds a minute",
            self.seeds,
            self.violated.len(),
            self.simulated.as_secs_f64(),
            self.took.as_secs_f64(),
            self.seeds_per_minute(),
        )?;
        let fields: Vec<String> = Count::ALL.iter().map(|kind| format!("{kind} {}", self.totals.get(*kind))).collect();
        writeln!(out, "{}", fields.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: the counter wrapped to 0 after the largest seed, and all seeds ran.
    #[test]
    fn seeds_end_after_the_last_one() {
        let next = AtomicU64::new(u64::MAX - 1);
        assert_eq!(std::array::from_fn(|_| take(&next, u64::MAX)), [Some(u64::MAX - 1), None, None]);
    }
}
