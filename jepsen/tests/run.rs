//! A small run without privileges: a cluster on loopback, two workloads, killed and paused
//! processes.

use quorate_jepsen::report::{Outcome, PAGE, RESULTS, Results};
use quorate_jepsen::run::{
    self, ClusterOptions, FaultOptions, HISTORY, LoadOptions, NEMESIS, NetworkChoice, Options, Required,
};
use tokio_util::sync::CancellationToken;

fn options(out: &std::path::Path) -> Options {
    Options {
        load: LoadOptions {
            workload: vec!["register".to_owned(), "append".to_owned()],
            time_limit: 12,
            rate: Some(150.0),
            ..LoadOptions::default()
        },
        faults: FaultOptions {
            nemesis: vec!["kill-one".to_owned(), "pause-leaders".to_owned()],
            interval: 3.0,
            ..FaultOptions::default()
        },
        cluster: ClusterOptions { nodes: 3, shards: 4, network: NetworkChoice::Loopback, ..ClusterOptions::default() },
        seed: Some(7),
        out: Some(out.to_owned()),
        required: Required { require_faults: 1, require_elections: 1, ..Required::default() },
        ..Options::default()
    }
}

/// The run passes, reaches its required coverage, and writes all its files. A directory with a run
/// is not used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_passes_while_nodes_are_killed_and_paused() -> anyhow::Result<()> {
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

/// An interrupted run checks its history, and its outcome is unknown.
#[tokio::test(flavor = "multi_thread")]
async fn interrupted_run_is_unknown() -> anyhow::Result<()> {
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
    let mut options = options(&out);
    options.load.time_limit = 600;
    let (results, ()) = tokio::join!(run::run(&options, false, &interrupt), watch);
    let results = results?.0;
    assert_eq!(results.outcome, Outcome::Unknown, "{:?}", results.checks);
    assert!(results.total.ok > 0, "{:?}", results.total);
    Ok(())
}

/// An unknown name is refused before a cluster is started, and the error lists the known names.
#[tokio::test]
async fn unknown_workload_or_fault_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let never = CancellationToken::new();
    let (mut workload, mut fault) = (options(&dir.path().join("a")), options(&dir.path().join("b")));
    workload.load.workload = vec!["bank".to_owned()];
    fault.faults.nemesis = vec!["earthquake".to_owned()];
    let refused =
        async |options: Options| format!("{:#}", run::run(&options, false, &never).await.map(drop).unwrap_err());
    assert!(refused(workload).await.contains("register"));
    assert!(refused(fault).await.contains("kill-one"));
}
