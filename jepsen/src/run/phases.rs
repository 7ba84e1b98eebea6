//! The phases of a run: prepare, collect, dismantle, judge.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use tokio_util::sync::CancellationToken;

use super::collect::Collector;
use super::failure::failure;
use super::faults;
use super::files::{HISTORY, LOGS, NEMESIS};
use super::judge::judge;
use super::options::Options;
use super::progress::progress;
use super::subject::Subject;
use crate::report::{self, Results};
use crate::workload::{self, Setting};

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
