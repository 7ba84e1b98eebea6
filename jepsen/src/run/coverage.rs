//! Whether a run reached what it was to test. One that did not is a failure of the harness, however well everything looked.

use super::options::Options;
use crate::nemesis::Fault;
use crate::report::faults::FaultCounts;
use crate::report::{Check, Outcome, Results};

/// Of the operations that each workload began under load, at least so many in a hundred must have succeeded: otherwise hardly
/// anything was tested. (What is read after healing always succeeds, and says nothing of that.)
const OK_PERCENT_MIN: u64 = 20;
/// The same where clients are pinned: what their node does not lead cannot succeed, so of five nodes a fifth is all.
const OK_PERCENT_MIN_PINNED: u64 = 5;

/// The check, of the results that are complete but for it. `named`: what was asked for, each name with the faults that it means.
/// With `excuse`, a name is left out of which this machine did not allow a single fault that was to be made: the caller accepts it.
/// What only was not possible when its turn came is missed.
pub(super) fn check(options: &Options, named: &[(String, Vec<Fault>)], excuse: bool, results: &Results) -> Check {
    let required = &options.required;
    let ok_percent_min = if options.pin { OK_PERCENT_MIN_PINNED } else { OK_PERCENT_MIN };
    let mut excused = Vec::new();
    let mut missing = Vec::new();
    let mut at_least = |what: &str, seen: u64, wanted: u64| {
        if seen < wanted {
            missing.push(format!("{seen} {what} instead of {wanted}"));
        }
    };
    let mut under_load = results.under_load.clone();
    for workload in &options.workload {
        // One that began nothing is not in the account.
        under_load.entry(workload.clone()).or_default();
    }
    for (workload, ended) in &under_load {
        let what = format!("successful operations of '{workload}' under load");
        at_least(&what, ended.ok, (ended.all() * ok_percent_min).div_ceil(100).max(1));
    }
    // `none` names no fault: nothing is to be installed.
    for (name, faults) in named.iter().filter(|(_, faults)| !faults.is_empty()) {
        let counts: Vec<_> = faults.iter().filter_map(|fault| results.faults.get(&fault.name())).collect();
        let sum = |count: fn(&FaultCounts) -> u64| counts.iter().map(|counts| count(counts)).sum::<u64>();
        let (installed, skipped) = (sum(|counts| counts.installed), sum(|counts| counts.skipped));
        // What a machine does not allow it never allows, though once nobody was there to say so.
        let unable = skipped > 0 && counts.iter().all(|counts| counts.skipped == 0 || counts.unable > 0);
        if excuse && installed == 0 && sum(|counts| counts.indeterminate) == 0 && unable {
            let why = counts.iter().find_map(|counts| counts.why_skipped.as_deref()).unwrap_or("skipped");
            excused.push(format!("{name} ({why})"));
            continue;
        }
        at_least(&format!("faults of '{name}' installed"), installed, required.require_faults);
        at_least(&format!("faults of '{name}' healed"), sum(|counts| counts.healed), installed);
    }
    // What the excused faults would have brought about is not missed either.
    if excused.is_empty() {
        at_least("elections", results.counts.elections, required.require_elections);
        at_least("snapshots installed", results.counts.snapshots, required.require_snapshots);
        let hit = results.faults.values().map(|counts| counts.leaders_hit).sum();
        at_least("faults that hit a leader", hit, required.require_leaders_hit);
    }
    if missing.is_empty() {
        let excuse =
            if excused.is_empty() { String::new() } else { format!("; not possible here: {}", excused.join(", ")) };
        return Check::pass("coverage", format!("everything that was required was reached{excuse}"));
    }
    Check::new("coverage", Outcome::HarnessFailure, missing.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::options::Required;
    use super::*;
    use crate::report::results::{Ended, Failover};
    use crate::run::Counts;

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
        let options = Options { required, workload: vec!["set".to_owned()], ..Options::default() };
        check(&options, &nemeses.iter().map(meant).collect::<Vec<_>>(), excuse, results).outcome
    }

    #[test]
    fn a_run_that_missed_what_it_was_for_fails() {
        assert_eq!(outcome(&["kill"], false, &results(1, 2)), Outcome::Pass, "one of those that begin so");
        assert_eq!(outcome(&["kill"], false, &results(0, 2)), Outcome::HarnessFailure, "never installed");
        assert_eq!(outcome(&["kill"], false, &results(1, 1)), Outcome::HarnessFailure, "no election");
        assert_eq!(outcome(&["kill", "pause-leaders"], false, &results(1, 2)), Outcome::HarnessFailure, "no pause");
        assert_eq!(
            outcome(&["none", "kill"], false, &results(1, 2)),
            Outcome::Pass,
            "of none there is none to install"
        );
    }

    /// Only what was skipped is excused, and only where the caller says so.
    #[test]
    fn what_this_machine_does_not_allow_may_be_excused() {
        let mut results = results(1, 0);
        assert_eq!(outcome(&["kill", "power-cut"], true, &results), Outcome::HarnessFailure, "nobody tried");
        results
            .faults
            .insert("power-cut-one".to_owned(), FaultCounts { skipped: 2, unable: 2, ..FaultCounts::default() });
        assert_eq!(outcome(&["kill", "power-cut"], true, &results), Outcome::Pass);
        assert_eq!(outcome(&["kill", "power-cut"], false, &results), Outcome::HarnessFailure);
    }

    /// A machine that lacks something else did not pause a leader, since nobody led each time; no pause was missed.
    #[test]
    fn a_fault_that_only_was_not_possible_then_was_excused() {
        let mut results = results(1, 2);
        results
            .faults
            .insert("pause-leaders".to_owned(), FaultCounts { skipped: 2, unable: 0, ..FaultCounts::default() });
        assert_eq!(outcome(&["kill", "pause-leaders"], true, &results), Outcome::HarnessFailure);
        results.faults.insert("fail-point".to_owned(), FaultCounts { skipped: 2, unable: 1, ..FaultCounts::default() });
        assert_eq!(outcome(&["kill", "fail-point"], true, &results), Outcome::Pass, "at first no node said so");
    }

    /// What began nothing is in no account: only those that had begun something were looked at.
    #[test]
    fn a_workload_that_began_nothing_was_not_missed() {
        let options = Options { workload: vec!["set".to_owned(), "counter".to_owned()], ..Options::default() };
        let said = check(&options, &[], false, &results(1, 2));
        assert_eq!(said.outcome, Outcome::HarnessFailure);
        assert!(said.detail.contains("0 successful operations of 'counter'"), "{}", said.detail);
    }

    #[test]
    fn a_fault_that_was_never_healed_fails() {
        let mut results = results(2, 2);
        results.faults.get_mut("kill-one").unwrap().healed = 1;
        assert_eq!(outcome(&["kill"], false, &results), Outcome::HarnessFailure);
    }

    #[test]
    fn a_run_in_which_hardly_anything_of_a_workload_succeeded_fails() {
        let mut hardly = results(1, 2);
        hardly.under_load.insert("counter".to_owned(), Ended { ok: 10, fail: 90, ..Ended::default() });
        assert_eq!(outcome(&["kill"], false, &hardly), Outcome::HarnessFailure);
        let nothing = Results { under_load: [].into(), ..results(1, 2) };
        assert_eq!(outcome(&["kill"], false, &nothing), Outcome::HarnessFailure);
    }
}
