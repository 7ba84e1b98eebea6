//! The phases of a run: prepare, collect, dismantle, judge.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use tokio_util::sync::CancellationToken;

use super::account::{Facts, account};
use super::collect::{Collected, Collector, INTERRUPTED};
use super::failure::{failed, failure};
use super::files::{HISTORY, LOGS, NEMESIS};
use super::options::Options;
use super::progress::progress;
use super::subject::Subject;
use super::{coverage, faults, verdict};
use crate::report::faults::Faults;
use crate::report::{self, Check, Outcome, Results};
use crate::workload::{self, Setting, Workload};

/// The default file of URLs for the shortener.
const URLS: &str = "../shared/data/urls.txt";

/// Makes a run from beginning to end. With `excuse`, faults that this machine does not support may
/// be missing. When `interrupt` is cancelled, the run heals all faults, dismantles its cluster, and
/// checks its history; its outcome is then at best *unknown*.
///
/// # Errors
///
/// The run was not possible: bad options, no cluster, or a directory that cannot be written.
pub async fn run(options: &Options, excuse: bool, interrupt: &CancellationToken) -> anyhow::Result<(Results, PathBuf)> {
    options.check()?;
    faults::named(&options.faults.nemesis)?;
    let seed = options.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let dir = directory(options, seed)?;
    let fresh_cluster = options.cluster.endpoints.is_empty();
    let prefix = if fresh_cluster { String::new() } else { format!("{:08x}-", rand::random::<u32>()) };
    let given = Some(PathBuf::from(URLS)).filter(|file| file.is_file());
    let urls = options.load.urls.as_deref().or(given.as_deref());
    let setting = Setting { seed, keys: options.load.keys, prefix: &prefix, urls };
    let names = options.load.workload.iter();
    let workloads = names.map(|name| workload::by_name(name, &setting)).collect::<anyhow::Result<Vec<_>>>()?;

    progress(&format!("seed {seed}, results in {}", dir.display()));
    let subject = Subject::start(options, &dir.join(LOGS)).await?;
    let collector = Collector { options, seed, dir: &dir, subject: &subject, workloads: &workloads, interrupt };
    let collected = collector.collect().await;
    // Also after an error, so that nothing stays on the machine.
    let dismantled = subject.dismantle().await;
    let mut collected = collected?;
    collected.checks.extend(failure("dismantling", dismantled.as_ref()));
    progress("checking");
    let results = judge(options, excuse, seed, &dir, workloads, collected).await?;
    Ok((results, dir))
}

/// The directory of the run: a new or an empty one.
fn directory(options: &Options, seed: u64) -> anyhow::Result<PathBuf> {
    let dir = options.out.clone().unwrap_or_else(|| PathBuf::from(format!("jepsen-{seed}")));
    let dir = std::path::absolute(dir)?;
    std::fs::create_dir_all(dir.join(LOGS)).with_context(|| format!("creating {}", dir.display()))?;
    let taken = [HISTORY, NEMESIS, report::RESULTS].iter().map(|name| dir.join(name)).find(|path| path.exists());
    ensure!(taken.is_none(), "{} contains an earlier run: choose another --out", dir.display());
    Ok(dir)
}

/// Checks the history, computes the numbers, and writes the report.
async fn judge(
    options: &Options,
    excuse: bool,
    seed: u64,
    dir: &Path,
    workloads: Vec<Arc<dyn Workload>>,
    collected: Collected,
) -> anyhow::Result<Results> {
    let Collected { load, counts, shed, mut checks, network } = collected;
    let faults = Faults::read(&dir.join(NEMESIS));
    checks.extend(failure("the record of the faults", faults.as_ref()));
    let faults = faults.unwrap_or_default();
    let (events, unread) = if options.no_history { (Vec::new(), None) } else { verdict::read(&dir.join(HISTORY)) };
    checks.extend(unread.map(|error| failed("the history", &error)));
    let named = faults::named(&options.faults.nemesis)?;
    let (options, dir, command) = (options.clone(), dir.to_owned(), options.command(seed));
    // On a blocking thread: the search keeps all cores busy for a while.
    let judged = tokio::task::spawn_blocking(move || {
        let operations = workload::operations(&events);
        let mut results = account(&operations, Facts { faults: &faults, counts, load, shed, command, seed, network });
        results.checks = match options.no_history {
            true => vec![Check::new("history", Outcome::Unknown, "no history was recorded, so nothing was checked")],
            false => verdict::check(&workloads, &events),
        };
        results.checks.extend(checks);
        // An interrupted run makes no claim about its coverage.
        if !results.checks.iter().any(|check| check.name == INTERRUPTED) {
            results.checks.push(coverage::check(&options, &named, excuse, &results));
        }
        results.outcome = results.checks.iter().fold(Outcome::Pass, |outcome, check| outcome.and(check.outcome));
        let end = events.last().map_or(load.1, |event| event.time).max(load.1);
        report::write(&dir, &results, &operations, &faults.windows, end)?;
        Ok(results)
    });
    judged.await?
}

#[cfg(test)]
mod tests {
    use super::super::observed::Counts;
    use super::super::shorteners::Shorteners;
    use super::*;

    /// The shorteners for the final reads did not start, and the run ended without a verdict on its
    /// history.
    #[tokio::test]
    async fn violation_is_reported_although_a_later_step_fails() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let made_up = r#"{"index":0,"time":0,"process":1,"type":"invoke","f":"read","key":"register/1"}
{"index":1,"time":1,"process":1,"type":"ok","f":"read","key":"register/1","value":"nobody wrote this"}
{"index":2,"ti"#;
        std::fs::write(dir.path().join(HISTORY), made_up)?;
        let log = dir.path().join("shortener.log");
        let missing = || Ok(tokio::process::Command::new(dir.path().join("quorate")));
        let started = Shorteners::start(1, missing, &[], &log, &tokio::runtime::Handle::current()).await;
        let checks = failure("final reads", started.as_ref()).into_iter().collect();
        let collected = Collected { load: (0, 2), counts: Counts::default(), shed: 0, checks, network: String::new() };
        let setting = Setting { seed: 1, keys: 1, prefix: "", urls: None };
        let workloads = vec![workload::by_name("register", &setting)?];
        let results = judge(&Options::default(), false, 1, dir.path(), workloads, collected).await?;
        assert_eq!(results.outcome, Outcome::Violation, "{:?}", results.checks);
        for (name, outcome) in [
            ("register: linearizable per key", Outcome::Violation),
            ("final reads", Outcome::HarnessFailure),
            ("the history", Outcome::HarnessFailure),
        ] {
            assert!(results.checks.iter().any(|check| check.name == name && check.outcome == outcome), "{name}");
        }
        assert!(dir.path().join(report::RESULTS).is_file() && dir.path().join(report::PAGE).is_file());
        Ok(())
    }
}
