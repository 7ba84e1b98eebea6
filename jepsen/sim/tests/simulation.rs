//! Tests of the simulation: runs are reproducible byte for byte, the product passes, and defects
//! are noticed.

use quorate_sim::{Count, Defect, Options, command, run};

/// The number of seeds in every test run.
const SEEDS: u64 = 24;
/// The number of threads that run them.
const JOBS: usize = 2;
/// The number of seeds within which most defects are noticed.
const NOTICED_WITHIN: u64 = 12;
/// The number of seeds within which a defect is noticed that needs a rare interleaving: a client
/// that is cut off together with a deposed leader, or a lost reply beside a deadline.
const NOTICED_RARELY: u64 = 80;

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
        ("leaders", totals.get(Count::Leaders)),
        ("snapshots", totals.get(Count::Snapshots)),
        ("purges", totals.get(Count::Purges)),
        ("transfers", totals.get(Count::Transfers)),
        ("moves", totals.get(Count::Moves)),
    ] {
        assert!(count > 0, "no {what} in {SEEDS} seeds: they show nothing\n{report}");
    }
}

fn is_noticed(defect: Defect) {
    is_noticed_within(NOTICED_WITHIN, defect);
}

fn is_noticed_within(seeds: u64, defect: Defect) {
    let options = Options { defect: Some(defect), ..Options::default() };
    let noticed = (0..seeds).map(|seed| run(seed, &options)).find(|outcome| !outcome.violations.is_empty());
    let outcome = noticed.unwrap_or_else(|| panic!("{defect} is not noticed within {seeds} seeds"));
    println!("{defect}: seed {}: {}", outcome.seed, outcome.violations[0]);
}

#[test]
fn acknowledging_before_the_sync_is_noticed() {
    is_noticed(Defect::AcknowledgeBeforeSync);
}

#[test]
fn a_vote_that_is_not_synced_is_noticed() {
    is_noticed(Defect::VoteNotSynced);
}

#[test]
fn a_strong_read_without_a_quorum_is_noticed() {
    is_noticed_within(NOTICED_RARELY, Defect::StrongReadWithoutQuorum);
}

#[test]
fn retries_that_no_session_recognises_are_noticed() {
    is_noticed(Defect::SessionsOff);
}

#[test]
fn a_purge_past_the_flush_is_noticed() {
    is_noticed(Defect::PurgePastFlush);
}

#[test]
fn a_wiped_node_under_its_old_identity_is_noticed() {
    is_noticed(Defect::WipedNodeKeepsIdentity);
}

#[test]
fn the_router_retrying_with_a_new_stamp_is_noticed() {
    is_noticed(Defect::RetryWithNewStamp);
}

#[test]
fn the_router_reporting_an_unknown_outcome_as_failed_is_noticed() {
    is_noticed_within(NOTICED_RARELY, Defect::UnknownReportedAsFailed);
}

#[test]
fn the_router_using_a_stamp_twice_is_noticed() {
    is_noticed_within(NOTICED_RARELY, Defect::StampUsedTwice);
}
