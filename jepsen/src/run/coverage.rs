//! The coverage of a run. A run that tested less than required is a failure of the harness, even if
//! every other check passed.

use super::options::Options;
use crate::nemesis::Fault;
use crate::report::faults::FaultCounts;
use crate::report::{Check, Outcome, Results};

/// The required percentage of successful operations of each workload under load: with fewer, hardly
/// anything was tested. Final reads do not count, since they succeed after healing.
const OK_PERCENT_MIN: u64 = 20;
/// The required percentage with pinned clients. Operations on shards that the client's node does
/// not lead fail, so at most a fifth succeeds with five nodes.
const OK_PERCENT_MIN_PINNED: u64 = 5;

/// Checks the coverage of results that are complete except for this check.
///
/// `named` has each requested name with its faults. With `excuse`, a name is excused if this
/// machine was unable to install any of its faults; a fault that was only skipped is missed.
pub(super) fn check(options: &Options, named: &[(String, Vec<Fault>)], excuse: bool, results: &Results) -> Check {
    let required = &options.required;
    let ok_percent_min = if options.load.pin { OK_PERCENT_MIN_PINNED } else { OK_PERCENT_MIN };
    let mut excused = Vec::new();
    let mut missing = Vec::new();
    let mut at_least = |what: &str, seen: u64, wanted: u64| {
        if seen < wanted {
            missing.push(format!("{seen} {what} instead of {wanted}"));
        }
    };
    let mut under_load = results.under_load.clone();
    for workload in &options.load.workload {
        // A workload without operations is absent from the results.
        under_load.entry(workload.clone()).or_default();
    }
    for (workload, ended) in &under_load {
        let what = format!("successful operations of '{workload}' under load");
        at_least(&what, ended.ok, (ended.all() * ok_percent_min).div_ceil(100).max(1));
    }
    // `none` stands for no fault, so there is nothing to install.
    for (name, faults) in named.iter().filter(|(_, faults)| !faults.is_empty()) {
        let counts: Vec<_> = faults.iter().filter_map(|fault| results.faults.get(&fault.name())).collect();
        let sum = |count: fn(&FaultCounts) -> u64| counts.iter().map(|counts| count(counts)).sum::<u64>();
        let (installed, skipped) = (sum(|counts| counts.installed), sum(|counts| counts.skipped));
        // One "unable" is enough: a machine that cannot do it once never can. It may be skipped at
        // first, when no node answers whether it has fail points.
        let unable = skipped > 0 && counts.iter().all(|counts| counts.skipped == 0 || counts.unable > 0);
        if excuse && installed == 0 && sum(|counts| counts.indeterminate) == 0 && unable {
            let why = counts.iter().find_map(|counts| counts.why_skipped.as_deref()).unwrap_or("skipped");
            excused.push(format!("{name} ({why})"));
            continue;
        }
        at_least(&format!("faults of '{name}' installed"), installed, required.require_faults);
        at_least(&format!("faults of '{name}' healed"), sum(|counts| counts.healed), installed);
    }
    // The effects of excused faults are excused too.
    if excused.is_empty() {
        at_least("elections", results.counts.elections, required.require_elections);
        at_least("snapshots installed", results.counts.snapshots, required.require_snapshots);
        let hit = results.faults.values().map(|counts| counts.leaders_hit).sum();
        at_least("faults that hit a leader", hit, required.require_leaders_hit);
    }
    if missing.is_empty() {
        let excuse =
            if excused.is_empty() { String::new() } else { format!("; not supported here: {}", excused.join(", ")) };
        return Check::pass("coverage", format!("the required coverage was reached{excuse}"));
    }
    Check::new("coverage", Outcome::HarnessFailure, missing.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::options::{LoadOptions, Required};
    use super::*;
    use crate::report::Counts;
    use crate::report::results::{Ended, Failover};

    fn results(installed: u64, elections: u64) -> Results {
        let kill = FaultCounts { installed, healed: installed, leaders_hit: installed, ..FaultCounts::default() };
        Results {
            outcome: Outcome::Pass,
            checks: vec![],
            operations: [].into(),
            total: Ended { ok: 100, ..Ended::default() },
            under_load: [("set".to_owned(), Ended { ok: 100, ..Ended::default() })].into(),
            shed: 0,
            ok_per_second: 1.0,
            latency_ms: None,
            faults: [("kill-one".to_owned(), kill)].into(),
            unavailable: [].into(),
            failover: Failover::default(),
            leader_changes: 0,
            counts: Counts { elections, snapshots: 0, answers: 1 },
            load: (0, 1),
            command: String::new(),
            seed: 0,
            network: String::new(),
        }
    }

    fn outcome(nemeses: &[&str], excuse: bool, results: &Results) -> Outcome {
        let required =
            Required { require_elections: 2, require_faults: 1, require_leaders_hit: 1, ..Required::default() };
        let meant = |name: &&str| ((*name).to_owned(), Fault::parse_list(name).unwrap());
        let load = LoadOptions { workload: vec!["set".to_owned()], ..LoadOptions::default() };
        let options = Options { required, load, ..Options::default() };
        check(&options, &nemeses.iter().map(meant).collect::<Vec<_>>(), excuse, results).outcome
    }

    #[test]
    fn run_that_misses_its_coverage_fails() {
        assert_eq!(outcome(&["kill"], false, &results(1, 2)), Outcome::Pass, "one of the kills");
        assert_eq!(outcome(&["kill"], false, &results(0, 2)), Outcome::HarnessFailure, "never installed");
        assert_eq!(outcome(&["kill"], false, &results(1, 1)), Outcome::HarnessFailure, "no election");
        assert_eq!(outcome(&["kill", "pause-leaders"], false, &results(1, 2)), Outcome::HarnessFailure, "no pause");
        assert_eq!(outcome(&["none", "kill"], false, &results(1, 2)), Outcome::Pass, "`none` requires nothing");
    }

    /// Only unable faults are excused, and only on request.
    #[test]
    fn faults_unable_on_this_machine_can_be_excused() {
        let mut results = results(1, 0);
        assert_eq!(outcome(&["kill", "power-cut"], true, &results), Outcome::HarnessFailure, "no attempt");
        results
            .faults
            .insert("power-cut-one".to_owned(), FaultCounts { skipped: 2, unable: 2, ..FaultCounts::default() });
        assert_eq!(outcome(&["kill", "power-cut"], true, &results), Outcome::Pass);
        assert_eq!(outcome(&["kill", "power-cut"], false, &results), Outcome::HarnessFailure);
    }

    /// A pause was skipped each time because no leader was known; the missing pause was once
    /// excused.
    #[test]
    fn skipped_fault_is_not_excused() {
        let mut results = results(1, 2);
        results
            .faults
            .insert("pause-leaders".to_owned(), FaultCounts { skipped: 2, unable: 0, ..FaultCounts::default() });
        assert_eq!(outcome(&["kill", "pause-leaders"], true, &results), Outcome::HarnessFailure);
        results.faults.insert("fail-point".to_owned(), FaultCounts { skipped: 2, unable: 1, ..FaultCounts::default() });
        assert_eq!(outcome(&["kill", "fail-point"], true, &results), Outcome::Pass, "skipped once, then unable");
    }

    /// A workload without operations is in no count; only workloads with operations were once
    /// checked.
    #[test]
    fn workload_without_operations_is_missed() {
        let workload = vec!["set".to_owned(), "counter".to_owned()];
        let options = Options { load: LoadOptions { workload, ..LoadOptions::default() }, ..Options::default() };
        let said = check(&options, &[], false, &results(1, 2));
        assert_eq!(said.outcome, Outcome::HarnessFailure);
        assert!(said.detail.contains("0 successful operations of 'counter'"), "{}", said.detail);
    }

    #[test]
    fn fault_without_healing_fails() {
        let mut results = results(2, 2);
        results.faults.get_mut("kill-one").unwrap().healed = 1;
        assert_eq!(outcome(&["kill"], false, &results), Outcome::HarnessFailure);
    }

    #[test]
    fn workload_with_few_successes_fails() {
        let mut hardly = results(1, 2);
        hardly.under_load.insert("counter".to_owned(), Ended { ok: 10, fail: 90, ..Ended::default() });
        assert_eq!(outcome(&["kill"], false, &hardly), Outcome::HarnessFailure);
        let nothing = Results { under_load: [].into(), ..results(1, 2) };
        assert_eq!(outcome(&["kill"], false, &nothing), Outcome::HarnessFailure);
    }
}
