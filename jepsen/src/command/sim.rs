//! `quorate-jepsen sim`: runs seeds on simulated time.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use quorate_sim::{BUGS, Options};
use quorate_testpoints::Bug;

/// Run the product's Raft groups, control plane and router on simulated time, network and disks,
/// with faults drawn from each seed.
///
/// Prints one line per violation and a summary. Exits with 0 if every seed held, 1 after a
/// violation, 2 if some key was undecided, 3 if the trace could not be written.
#[derive(Debug, Args)]
pub(super) struct Sim {
    /// Seeds A (inclusive) to B (exclusive), or one seed.
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    seeds: Range<u64>,
    /// Write a trace of all events, in seed order, to this file.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Number of threads; by default one per processor.
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// A seeded defect that the runs must notice. Needs a build with the feature `bugs`.
    #[arg(long, value_name = "NAME", value_parser = bug)]
    bug: Option<Bug>,
}

impl Sim {
    pub(super) fn run(self) -> ExitCode {
        let jobs = self.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let options = Options { bug: self.bug, ..Options::default() };
        match quorate_sim::command(self.seeds, jobs, &options, self.trace.as_deref(), &mut std::io::stdout()) {
            Ok(summary) if !summary.violated.is_empty() => ExitCode::from(1),
            Ok(summary) => ExitCode::from(if summary.totals.get(quorate_sim::Count::Undecided) > 0 { 2 } else { 0 }),
            Err(error) => {
                eprintln!("error: the runs or their trace could not be written: {error}");
                ExitCode::from(3)
            }
        }
    }
}

fn seeds(text: &str) -> anyhow::Result<Range<u64>> {
    let number = |text: &str| match text.parse::<u64>() {
        Ok(number) => Ok(number),
        Err(error) => Err(anyhow::anyhow!("'{text}' is not a seed: {error}")),
    };
    let (start, end) = match text.split_once("..") {
        Some((start, end)) => (number(start)?, number(end)?),
        None => (number(text)?, number(text)?.saturating_add(1)),
    };
    anyhow::ensure!(start < end, "{start}..{end} is empty; write A..B with A below B");
    Ok(start..end)
}

fn bug(name: &str) -> anyhow::Result<Bug> {
    let names = || BUGS.map(Bug::name).join(", ");
    let bug = BUGS.into_iter().find(|bug| bug.name() == name);
    let bug = bug.ok_or_else(|| anyhow::anyhow!("the simulation has no defect '{name}'; use one of {}", names()))?;
    let is_built = quorate_testpoints::ENABLED;
    anyhow::ensure!(is_built, "this binary has no seeded defects; build it with --features quorate-testpoints/bugs");
    Ok(bug)
}

#[cfg(test)]
mod tests {
    use super::seeds;

    #[test]
    fn seeds_are_a_range_or_a_number() {
        assert_eq!(seeds("3..7").unwrap(), 3..7);
        assert_eq!(seeds("9").unwrap(), 9..10);
        assert!(seeds("7..3").is_err() && seeds("x").is_err() && seeds("1..").is_err());
    }
}
