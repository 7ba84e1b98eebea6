//! `quorate-jepsen sim`: seeds, on simulated time.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use quorate_sim::{Defect, Options};

/// Runs the real replication code on simulated time, network and disks, under faults that each seed draws.
///
/// Prints a line for every violation and a summary. Exits with 0 if every seed held, 1 after a violation, 2 if some key could not be
/// decided, 3 if the trace could not be written.
#[derive(Debug, Args)]
pub(super) struct Sim {
    /// The seeds, from the first to before the last; a seed alone is run alone.
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    seeds: Range<u64>,
    /// Everything that happened, in the order of the seeds, goes to this file.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Threads; as many as there are processors if it is not said.
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// A defect that the runs must notice.
    #[arg(long, value_name = "NAME")]
    defect: Option<Defect>,
}

impl Sim {
    pub(super) fn run(self) -> ExitCode {
        let jobs = self.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let options = Options { defect: self.defect, ..Options::default() };
        match quorate_sim::command(self.seeds, jobs, &options, self.trace.as_deref(), &mut std::io::stdout()) {
            Ok(summary) if !summary.violated.is_empty() => ExitCode::from(1),
            Ok(summary) => ExitCode::from(if summary.totals.undecided > 0 { 2 } else { 0 }),
            Err(error) => {
                eprintln!("error: the runs or their trace could not be written: {error}");
                ExitCode::from(3)
            }
        }
    }
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("'{text}' is no seed: {error}"));
    let (start, end) = match text.split_once("..") {
        Some((start, end)) => (number(start)?, number(end)?),
        None => (number(text)?, number(text)?.saturating_add(1)),
    };
    if start < end { Ok(start..end) } else { Err(format!("{start}..{end} holds no seed; write A..B with A below B")) }
}

#[cfg(test)]
mod tests {
    use super::seeds;

    #[test]
    fn seeds_are_a_range_or_one() {
        assert_eq!(seeds("3..7"), Ok(3..7));
        assert_eq!(seeds("9"), Ok(9..10));
        assert!(seeds("7..3").is_err() && seeds("x").is_err() && seeds("1..").is_err());
    }
}
