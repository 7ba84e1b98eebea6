//! Judges a run: checks its history, computes its numbers, and writes its report.

use std::path::Path;
use std::sync::Arc;

use super::account::Facts;
use super::collect::{Collected, INTERRUPTED};
use super::failure::{failed, failure};
use super::files::{HISTORY, NEMESIS};
use super::options::Options;
use super::{coverage, faults, verdict};
use crate::report::faults::Faults;
use crate::report::{self, Check, Outcome, Results};
use crate::workload::{self, Workload};

/// Checks the history, computes the numbers, and writes the report.
pub(super) async fn judge(
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
        let mut results = Facts { faults: &faults, counts, load, shed, command, seed, network }.account(&operations);
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
    use super::super::shorteners::Shorteners;
    use super::*;
    use crate::report::Counts;
    use crate::workload::Setting;

    /// The shorteners for the final reads did not start, and the run ended without a verdict on its
    /// history.
    #[tokio::test]
    async fn violation_is_reported_although_a_later_step_fails() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let made_up = r#"{"index":0,"time":0,"process":1,"type":"invoke","f":"read","key":"register/1"}
{"index":1,"time":1,"process":1,"type":"ok","f":"read","key":"register/1","value":"never written"}
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
