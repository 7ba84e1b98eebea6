//! Tests of the simulation: runs are reproducible byte for byte, the product passes, and defects
//! are noticed.

use quorate_sim::{Count, Options, command, run};
use quorate_testpoints::Bug;

/// The number of seeds in every test run.
const SEEDS: u64 = 24;
/// The number of threads that run them.
const JOBS: usize = 2;
/// The number of seeds within which every defect is noticed.
const NOTICED_WITHIN: u64 = 12;

/// Two runs of a seed have every message and every fault at the same instant, with the same bytes.
/// Different seeds give different runs.
#[test]
fn the_same_seed_gives_the_same_run() {
    let options = Options { keep_trace: true, ..Options::default() };
    let mut digests = Vec::new();
    for seed in [2, 7, 1_000] {
        let (first, second) = (run(seed, &options), run(seed, &options));
        for (number, (a, b)) in first.trace.iter().zip(&second.trace).enumerate() {
            assert_eq!(a, b, "seed {seed}: the runs part at line {number}");
        }
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
        assert_eq!((first.digest, first.totals), (second.digest, second.totals), "seed {seed}");
        digests.push(first.digest);
    }
    digests.dedup();
    assert_eq!(digests.len(), 3, "different seeds are different runs");
}

/// Runs with faults of every kind have no violation.
#[test]
fn a_few_dozen_seeds_hold() {
    let mut report = Vec::new();
    let summary = command(0..SEEDS, JOBS, &Options::default(), None, &mut report).expect("a vector can be written to");
    let report = String::from_utf8(report).expect("the report is text");
    println!("{report}");
    assert!(summary.violated.is_empty(), "{report}");
    let totals = summary.totals;
    assert_eq!((summary.seeds, totals.get(Count::Undecided)), (SEEDS, 0));
    for (what, count) in [
        ("answers", totals.get(Count::Answered)),
        ("unknown outcomes", totals.get(Count::Unknown)),
        ("crashes", totals.get(Count::Crashes)),
        ("network faults", totals.get(Count::NetworkFaults)),
        ("slow disks", totals.get(Count::SlowDisks)),
        ("clock jumps", totals.get(Count::ClockJumps)),
        ("lost entries", totals.get(Count::LostEntries)),
        ("doubtful replicas", totals.get(Count::Doubtful)),
        ("leaders", totals.get(Count::Leaders)),
        ("snapshots", totals.get(Count::Snapshots)),
        ("refused snapshots", totals.get(Count::SnapshotsRefused)),
        ("purges", totals.get(Count::Purges)),
        ("transfers", totals.get(Count::Transfers)),
        ("pings", totals.get(Count::Pings)),
        ("refused removals of living nodes", totals.get(Count::RefusedRemovals)),
        ("removals of dead nodes", totals.get(Count::DeadRemoved)),
        ("moves", totals.get(Count::Moves)),
    ] {
        assert!(count > 0, "no {what} in {SEEDS} seeds: they show nothing\n{report}");
    }
}

/// Shows that a violation with `words` is the first one of a run with the defect.
fn is_noticed(bug: Bug, words: &str) {
    let is_built = quorate_testpoints::ENABLED;
    assert!(is_built, "the simulation's tests are built with the feature 'bugs'");
    let options = Options { bug: Some(bug), ..Options::default() };
    let noticed = (0..NOTICED_WITHIN).map(|seed| run(seed, &options)).find(|outcome| !outcome.violations.is_empty());
    let outcome = noticed.unwrap_or_else(|| panic!("{bug} is not noticed within {NOTICED_WITHIN} seeds"));
    println!("{bug}: seed {}: {}", outcome.seed, outcome.violations[0]);
    assert!(outcome.violations[0].contains(words), "{bug} is noticed by something else: {}", outcome.violations[0]);
}

#[test]
fn acknowledging_before_the_sync_is_noticed() {
    is_noticed(Bug::AckBeforeSync, "says that it has");
}

#[test]
fn a_vote_that_is_not_synced_is_noticed() {
    is_noticed(Bug::VoteNotSynced, "grants");
}

#[test]
fn a_strong_read_without_a_quorum_is_noticed() {
    is_noticed(Bug::ReadUnconfirmed, "is not linearizable");
}

#[test]
fn retries_that_no_session_recognises_are_noticed() {
    is_noticed(Bug::SessionTableOff, "is not linearizable");
}

#[test]
fn a_purge_past_the_flush_is_noticed() {
    is_noticed(Bug::PurgePastFlush, "is durably purged up to");
}

#[test]
fn installing_a_snapshot_without_verification_is_noticed() {
    is_noticed(Bug::SnapshotUnverified, "is corrupt");
}

#[test]
fn a_wiped_node_under_its_old_identity_is_noticed() {
    is_noticed(Bug::WipedKeepsIdentity, "was destroyed, and votes");
}

#[test]
fn the_router_retrying_with_a_new_stamp_is_noticed() {
    is_noticed(Bug::RetryWithNewStamp, "is not linearizable");
}

#[test]
fn the_router_reporting_an_unknown_outcome_as_failed_is_noticed() {
    is_noticed(Bug::UnknownReportedAsFailed, "is not linearizable");
}

#[test]
fn the_router_using_a_stamp_twice_is_noticed() {
    is_noticed(Bug::StampUsedTwice, "is not linearizable");
}

#[test]
fn the_agent_destroying_a_replica_before_its_successor_votes_is_noticed() {
    is_noticed(Bug::DestroyBeforeSuccessorVotes, "was destroyed, and votes");
}

#[test]
fn the_reconciler_finishing_a_move_before_the_commit_is_noticed() {
    is_noticed(Bug::FinishMoveBeforeCommit, "was destroyed, and votes");
}

#[test]
fn the_agent_starting_a_group_again_with_a_joining_replica_is_noticed() {
    is_noticed(Bug::JoiningReplicaStartsGroup, "applied elsewhere");
}

#[test]
fn a_doubtful_replica_that_takes_part_is_noticed() {
    is_noticed(Bug::DoubtfulTakesPart, "is doubtful, and says");
}

#[test]
fn removing_a_living_node_as_dead_is_noticed() {
    is_noticed(Bug::RemoveDeadIgnoresPings, "is removed as dead, although the other nodes receive its pings");
}
