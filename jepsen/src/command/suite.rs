//! `quorate-jepsen suite`: the runs of a table, one after the other.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::run::on_interrupt;
use quorate_jepsen::cluster::Abilities;
use quorate_jepsen::report::{Outcome, Results};
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
}

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
        if interrupt.is_cancelled() {
            break;
        }
        eprintln!("\n=== {}: {}", entry.name, entry.what);
        let started = Instant::now();
        let ran = run::run(&entry.options(&arguments.out, seed), excuse, &interrupt).await;
        let took = started.elapsed();
        let row = match ran {
            Ok((results, _)) => {
                Row { name: entry.name, outcome: results.outcome, said: said(&results), results: Some(results), took }
            }
            Err(error) => Row {
                name: entry.name,
                outcome: Outcome::HarnessFailure,
                said: format!("{error:#}"),
                results: None,
                took,
            },
        };
        eprintln!("{}: {} {}", row.name, row.outcome.headline(), row.said);
        rows.push(row);
    }
    let worst = rows.iter().fold(Outcome::Pass, |worst, row| worst.and(row.outcome));
    let worst = if interrupt.is_cancelled() { worst.and(Outcome::Unknown) } else { worst };
    print!("{}", table(&rows, worst));
    Ok(worst.exit_code())
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
