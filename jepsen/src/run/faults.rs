//! The faults of a run: the harness's nemesis, started with what the run was asked for, and what it has to say at the end.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::options::Options;
use crate::cluster::Cluster;
use crate::nemesis::{Fault, Journal, Nemesis, Schedule};
use crate::report::{Check, Outcome};

/// A fault lasts between these parts of the interval, and the pause after it too: together about one interval.
const HOLD: (f64, f64) = (0.4, 0.8);
const GAP: (f64, f64) = (0.2, 0.6);

/// The faults that a list of names means, each name with what it stands for.
///
/// # Errors
///
/// A name that no fault has, with those that there are.
pub(super) fn named(names: &[String]) -> anyhow::Result<Vec<(String, Vec<Fault>)>> {
    let parse =
        |name: &String| Fault::parse_list(name).map(|faults| (name.clone(), faults)).map_err(anyhow::Error::msg);
    names.iter().map(parse).collect()
}

/// Breaks the cluster until it is told to stop, then mends it and waits until it is well. The checks say what went wrong: with
/// the faults, or with a node that did what no fault explains.
pub(super) async fn run(
    cluster: &Arc<Cluster>,
    options: &Options,
    seed: u64,
    started: Instant,
    path: &Path,
    stop: &CancellationToken,
    interrupt: &CancellationToken,
) -> anyhow::Result<Vec<Check>> {
    let mut faults: Vec<Fault> = named(&options.nemesis)?.into_iter().flat_map(|(_, faults)| faults).collect();
    faults.sort_unstable();
    faults.dedup();
    let part = |(from, until): (f64, f64)| {
        Duration::from_secs_f64(options.interval * from)..Duration::from_secs_f64(options.interval * until)
    };
    let schedule = Schedule { faults, gap: part(GAP), hold: part(HOLD), seed, overlap: options.overlap };
    let nemesis = Arc::new(Nemesis::new(Arc::clone(cluster), Arc::new(Journal::create(path, started)?)));
    let summary = schedule.run(Arc::clone(&nemesis), stop.clone()).await;
    let mut checks = Vec::new();
    if !summary.not_healed.is_empty() {
        checks.push(Check::new("healing", Outcome::HarnessFailure, summary.not_healed.join("; ")));
    }
    if let Some(settled) = interrupt.run_until_cancelled(nemesis.settle()).await {
        checks.push(match settled {
            Ok(()) => Check::pass("recovery", "after the last fault every shard got all its replicas back"),
            Err(error) => Check::new("recovery", Outcome::Violation, format!("{error:#}")),
        });
    }
    let findings = nemesis.findings();
    if !findings.is_empty() {
        let said: Vec<String> = findings
            .iter()
            .map(|finding| format!("node {}: {}\n{}", finding.node, finding.what, finding.log))
            .collect();
        checks.push(Check::new("what no fault explains", Outcome::Violation, said.join("\n")));
    }
    Ok(checks)
}
