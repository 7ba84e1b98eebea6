//! The faults of a run: the schedule that its options ask for, and the checks of its end.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::options::FaultOptions;
use crate::cluster::Cluster;
use crate::nemesis::{Fault, Journal, Nemesis, Schedule};
use crate::report::{Check, Outcome};

/// The shortest and longest duration of a fault, and of the pause after it, as parts of the
/// interval: together about one interval.
const HOLD: (f64, f64) = (0.4, 0.8);
const GAP: (f64, f64) = (0.2, 0.6);

/// The faults that each name stands for.
///
/// # Errors
///
/// A name is unknown. The message lists the known names.
pub(super) fn named(names: &[String]) -> anyhow::Result<Vec<(String, Vec<Fault>)>> {
    names.iter().map(|name| Ok((name.clone(), Fault::parse_list(name)?))).collect()
}

/// Installs and heals faults until `stop` is cancelled, then waits until the cluster is healthy.
/// The checks report failed healing, a failed recovery, and behaviour of nodes that no fault
/// explains.
pub(super) async fn run(
    cluster: &Arc<Cluster>,
    options: &FaultOptions,
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
        checks.push(Check::new("unexplained behaviour", Outcome::Violation, said.join("\n")));
    }
    Ok(checks)
}
