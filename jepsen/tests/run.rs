//! A whole run, small and without privileges: a cluster on loopback, two workloads, processes that die and stop.

use quorate_jepsen::report::{Outcome, PAGE, RESULTS, Results};
use quorate_jepsen::run::{self, HISTORY, NEMESIS, NetworkChoice, Options, Required};
use tokio_util::sync::CancellationToken;

fn options(out: &std::path::Path) -> Options {
    Options {
        workload: vec!["register".to_owned(), "append".to_owned()],
        nemesis: vec!["kill-one".to_owned(), "pause-leaders".to_owned()],
        nodes: 3,
        shards: 4,
        time_limit: 12,
        rate: Some(150.0),
        interval: 3.0,
        seed: Some(7),
        out: Some(out.to_owned()),
        network: NetworkChoice::Loopback,
        required: Required { require_faults: 1, require_elections: 1, ..Required::default() },
        ..Options::default()
    }
}

/// The run passes, having reached what it had to, and leaves everything that it promises to leave; a directory that holds a run
/// is not used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_its_promises_while_nodes_die_and_stop() -> anyhow::Result<()> {
    if let Err(error) = quorate_jepsen::cluster::binary() {
        println!("skipped: {error}");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("run");
    let (results, at) = run::run(&options(&out), false, &CancellationToken::new()).await?;
    let wrong: Vec<_> = results.checks.iter().filter(|check| check.outcome != Outcome::Pass).collect();
    anyhow::ensure!(results.outcome == Outcome::Pass, "{wrong:#?}");
    assert!(results.total.ok > 500, "{:?}", results.total);
    assert!(results.leader_changes > 0 && results.failover.count > 0, "{results:?}");
    let kept: Results = serde_json::from_str(&std::fs::read_to_string(at.join(RESULTS))?)?;
    assert_eq!(kept.outcome, Outcome::Pass);
    for file in [HISTORY, NEMESIS, PAGE, "logs/n1.log"] {
        assert!(std::fs::metadata(at.join(file))?.len() > 0, "{file}");
    }
    let again = run::run(&options(&out), false, &CancellationToken::new()).await;
    assert!(again.is_err_and(|error| error.to_string().contains("earlier run")));
    Ok(())
}

/// Whoever ends a run by hand gets its history, checked, and no verdict on what it did not come to.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_interrupted_said_that_the_harness_failed() -> anyhow::Result<()> {
    if let Err(error) = quorate_jepsen::cluster::binary() {
        println!("skipped: {error}");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("run");
    let (interrupt, history) = (CancellationToken::new(), out.join(HISTORY));
    let watch = async {
        while std::fs::metadata(&history).map_or(0, |file| file.len()) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        interrupt.cancel();
    };
    let options = Options { time_limit: 600, ..options(&out) };
    let (results, ()) = tokio::join!(run::run(&options, false, &interrupt), watch);
    let results = results?.0;
    assert_eq!(results.outcome, Outcome::Unknown, "{:?}", results.checks);
    assert!(results.total.ok > 0, "{:?}", results.total);
    Ok(())
}

/// What cannot be meant is refused before anything is started, and says what there is.
#[tokio::test]
async fn an_unknown_workload_or_fault_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let never = CancellationToken::new();
    let workload = Options { workload: vec!["bank".to_owned()], ..options(&dir.path().join("a")) };
    let fault = Options { nemesis: vec!["earthquake".to_owned()], ..options(&dir.path().join("b")) };
    let refused =
        async |options: Options| format!("{:#}", run::run(&options, false, &never).await.map(drop).unwrap_err());
    assert!(refused(workload).await.contains("register"));
    assert!(refused(fault).await.contains("kill-one"));
}
