//! `quorate-jepsen suite`: the runs of a table, one after the other.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::run::on_interrupt;
use quorate_jepsen::cluster::Abilities;
use quorate_jepsen::report::{Check, Outcome, Results};
use quorate_jepsen::run;
use quorate_jepsen::suite::{Entry, Suite};

/// Makes many runs, one after the other, and prints a table.
///
/// Exits with the worst code of its runs.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which table of runs
    suite: Suite,
    /// Where the runs' directories go: one that does not exist or is empty
    #[arg(long, value_name = "DIR", default_value = "jepsen-suite")]
    out: PathBuf,
    /// Plans operations and faults; by default another one each time
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Only the runs whose names contain this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Fail where this machine does not allow a fault that a run is for, instead of excusing it
    #[arg(long)]
    strict: bool,
    /// How often a run is made again, with another seed, that failed as a harness: it tested too little, or did not start. One with a
    /// violation or a doubt never is
    #[arg(long, value_name = "TIMES", default_value_t = 0)]
    again: u64,
}

/// What a seed is added for each time that a run is made again.
const SEED_STEP: u64 = 1_000_003;

/// What became of one of the runs.
struct Row {
    name: &'static str,
    outcome: Outcome,
    results: Option<Results>,
    took: Duration,
    said: String,
}

/// Makes the runs, prints a table, and gives the worst outcome's code.
///
/// # Errors
///
/// There is nothing to run.
pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let entries: Vec<&Entry> = arguments.suite.entries().iter().filter(|entry| matches(entry, arguments)).collect();
    anyhow::ensure!(!entries.is_empty(), "no run of the suite has such a name");
    let seed = arguments.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let interrupt = on_interrupt();
    let missing = Abilities::of_this_machine().missing();
    for missing in &missing {
        eprintln!("{missing}");
    }
    let excuse = !arguments.strict && !missing.is_empty();
    let mut rows = Vec::new();
    for (entry, seed) in entries.into_iter().zip(seed..) {
        for time in 0..=arguments.again {
            if interrupt.is_cancelled() {
                break;
            }
            let row = attempt(entry, arguments, seed, time, excuse, &interrupt).await;
            eprintln!("{}: {} {}", row.name, row.outcome.headline(), row.said);
            let repeats = is_repeated(row.outcome, row.results.as_ref().map_or(&[], |results| &results.checks));
            rows.push(row);
            if !repeats {
                break;
            }
        }
    }
    let worst = worst(&rows);
    let worst = if interrupt.is_cancelled() { worst.and(Outcome::Unknown) } else { worst };
    print!("{}", table(&rows, worst));
    Ok(worst.exit_code())
}

/// One run. The times after the first have directories of their own.
async fn attempt(
    entry: &Entry,
    arguments: &Arguments,
    seed: u64,
    time: u64,
    excuse: bool,
    interrupt: &CancellationToken,
) -> Row {
    let out = if time == 0 { arguments.out.clone() } else { arguments.out.join(format!("again-{time}")) };
    let name = entry.name;
    eprintln!("\n=== {name}: {}{}", entry.what, if time == 0 { "" } else { " (again)" });
    let started = Instant::now();
    let ran = run::run(&entry.options(&out, seed + time * SEED_STEP), excuse, interrupt).await;
    let took = started.elapsed();
    match ran {
        Ok((results, _)) => Row { name, outcome: results.outcome, said: said(&results), results: Some(results), took },
        Err(error) => Row { name, outcome: Outcome::HarnessFailure, said: format!("{error:#}"), results: None, took },
    }
}

/// Whether a run is made again: it failed as a harness, and no check of it found a violation or has a doubt.
fn is_repeated(outcome: Outcome, checks: &[Check]) -> bool {
    let failed_at_most = |check: &Check| matches!(check.outcome, Outcome::Pass | Outcome::HarnessFailure);
    outcome == Outcome::HarnessFailure && checks.iter().all(failed_at_most)
}

/// The worst of the runs; of those that were made again the last counts. (A violation or a doubt is always the last.)
fn worst(rows: &[Row]) -> Outcome {
    let ends = |(place, row): &(usize, &Row)| rows.get(place + 1).is_none_or(|next| next.name != row.name);
    rows.iter().enumerate().filter(ends).fold(Outcome::Pass, |worst, (_, row)| worst.and(row.outcome))
}

fn matches(entry: &Entry, arguments: &Arguments) -> bool {
    arguments.only.as_ref().is_none_or(|text| entry.name.contains(text.as_str()))
}

/// Every check of a run that did not pass.
fn said(results: &Results) -> String {
    let wrong = results.checks.iter().filter(|check| check.outcome != Outcome::Pass);
    wrong.map(|check| format!("{}: {}", check.name, check.detail)).collect::<Vec<_>>().join("\n  ")
}

fn table(rows: &[Row], worst: Outcome) -> String {
    let mut text = format!(
        "{}\n{:<22} {:<16} {:>5} {:>8} {:>6} {:>6} {:>7} {:>6} {:>9} {:>9} {:>9} {:>12}\n",
        worst.headline(),
        "RUN",
        "VERDICT",
        "S",
        "OK",
        "FAIL",
        "INFO",
        "FAULTS",
        "ELECT",
        "SNAPSHOTS",
        "P50 MS",
        "P99 MS",
        "FAILOVER P99",
    );
    for row in rows {
        text += &format!("{:<22} {:<16} {:>5}", row.name, row.outcome.headline(), row.took.as_secs());
        if let Some(results) = &row.results {
            let faults: u64 = results.faults.values().map(|counts| counts.installed).sum();
            let [p50, p99] = results.latency_ms.unwrap_or_default();
            let Results { total, counts, failover, .. } = results;
            text += &format!(
                " {:>8} {:>6} {:>6} {:>7} {:>6} {:>9} {:>9.1} {:>9.1} {:>12}",
                total.ok, total.fail, total.info, faults, counts.elections, counts.snapshots, p50, p99, failover.p99_ms
            );
        }
        text.push('\n');
        if row.outcome != Outcome::Pass {
            text += &format!("  {}\n", row.said);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str, outcome: Outcome) -> Row {
        Row { name, outcome, results: None, took: Duration::ZERO, said: String::new() }
    }

    /// The harness's failure outweighs a doubt, and hid it: the run was made again, and the doubt was gone.
    #[test]
    fn a_doubt_was_lost_beside_a_failure_of_the_harness() {
        use Outcome::{HarnessFailure, Pass, Unknown, Violation};
        let repeated = |outcomes: &[Outcome]| {
            let checks: Vec<Check> = outcomes.iter().map(|outcome| Check::new("a check", *outcome, "")).collect();
            is_repeated(outcomes.iter().fold(Pass, |all, one| all.and(*one)), &checks)
        };
        assert!(repeated(&[Pass, HarnessFailure]));
        assert!(!repeated(&[Unknown, HarnessFailure]));
        assert!(!repeated(&[Violation, HarnessFailure]));
        assert!(!repeated(&[Pass]));
        assert!(is_repeated(HarnessFailure, &[]), "it did not start");
    }

    /// What was made again counts by its last time, and nothing hides a violation.
    #[test]
    fn the_last_time_counts() {
        use Outcome::{HarnessFailure, Pass, Unknown, Violation};
        assert_eq!(worst(&[row("a", HarnessFailure), row("a", Pass), row("b", Pass)]), Pass);
        assert_eq!(worst(&[row("a", HarnessFailure), row("a", Unknown), row("b", Pass)]), Unknown);
        assert_eq!(worst(&[row("a", HarnessFailure), row("b", Pass), row("b", Pass)]), HarnessFailure);
        assert_eq!(worst(&[row("a", HarnessFailure), row("a", Violation), row("b", Pass)]), Violation);
    }
}
