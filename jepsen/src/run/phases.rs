//! The phases of a run, one after the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use quorate_client::{Client, ClientBuilder};
use tokio_util::sync::CancellationToken;

use super::account::{Facts, account};
use super::clients::{Clients, Tally};
use super::finale::{self, Hashes};
use super::observed::{Counts, Observed};
use super::options::Options;
use super::recorder::{Recorder, Writer, nanos};
use super::shorteners::Shorteners;
use super::subject::Subject;
use super::{HISTORY, LOGS, NEMESIS, coverage, faults, verdict, votes};
use crate::report::faults::Faults;
use crate::report::{self, Check, Outcome, Results};
use crate::workload::{self, Http, Setting, Workload};

/// How long clients may take to connect to a cluster that serves.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// The load before the first fault, to see what the cluster does undisturbed.
const QUIET_BEFORE: Duration = Duration::from_secs(3);
/// The load after the last fault was healed, to see how it recovers.
const QUIET_AFTER: Duration = Duration::from_secs(5);
/// URLs that are handed to the project beside its root; the shortener takes them where nothing else is said.
const URLS: &str = "../shared/data/urls.txt";
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// The check that says that somebody ended the run.
const INTERRUPTED: &str = "interrupted";

/// What a run has collected when its cluster is gone.
struct Collected {
    load: (u64, u64),
    counts: Counts,
    shed: u64,
    checks: Vec<Check>,
    network: String,
}

/// Runs from beginning to end. With `excuse`, faults that this machine does not allow need not have been installed. When
/// `interrupt` is cancelled, the run heals everything, takes its cluster away, and keeps and checks its history; its verdict is then
/// at best *unknown*.
///
/// # Errors
///
/// The run could not be made at all: bad options, no cluster, a directory that cannot be written.
pub async fn run(options: &Options, excuse: bool, interrupt: &CancellationToken) -> anyhow::Result<(Results, PathBuf)> {
    options.check()?;
    faults::named(&options.nemesis)?;
    let seed = options.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let dir = directory(options, seed)?;
    let prefix = if options.endpoints.is_empty() { String::new() } else { format!("{:08x}-", rand::random::<u32>()) };
    let given = Some(PathBuf::from(URLS)).filter(|file| file.is_file());
    let setting =
        Setting { seed, keys: options.keys, prefix: &prefix, urls: options.urls.as_deref().or(given.as_deref()) };
    let workloads =
        options.workload.iter().map(|name| workload::by_name(name, &setting)).collect::<anyhow::Result<Vec<_>>>()?;

    progress(&format!("seed {seed}, results in {}", dir.display()));
    let subject = Subject::start(options, &dir.join(LOGS)).await?;
    let collected = collect(options, seed, &dir, &subject, &workloads, interrupt).await;
    // Whatever went wrong, nothing is left on the machine.
    let dismantled = subject.dismantle().await;
    let mut collected = collected?;
    if let Err(error) = dismantled {
        collected.checks.push(Check::new("dismantling", Outcome::HarnessFailure, format!("{error:#}")));
    }
    progress("checking");
    let results = judge(options, excuse, seed, &dir, workloads, collected).await?;
    Ok((results, dir))
}

/// The directory of the run, new or empty.
fn directory(options: &Options, seed: u64) -> anyhow::Result<PathBuf> {
    let dir = options.out.clone().unwrap_or_else(|| PathBuf::from(format!("jepsen-{seed}")));
    let dir = std::path::absolute(dir)?;
    std::fs::create_dir_all(dir.join(LOGS)).with_context(|| format!("making {}", dir.display()))?;
    let taken = [HISTORY, NEMESIS, report::RESULTS].iter().map(|name| dir.join(name)).find(|path| path.exists());
    ensure!(taken.is_none(), "{} holds an earlier run: choose another --out", dir.display());
    Ok(dir)
}

/// Everything that needs the cluster.
async fn collect(
    options: &Options,
    seed: u64,
    dir: &Path,
    subject: &Subject,
    workloads: &[Arc<dyn Workload>],
    interrupt: &CancellationToken,
) -> anyhow::Result<Collected> {
    let started = Instant::now();
    let (recorder, writer) = match options.no_history {
        true => (Recorder::none(started), None),
        false => Recorder::create(&dir.join(HISTORY), started).map(|(recorder, writer)| (recorder, Some(writer)))?,
    };
    let mut shorteners = start_shorteners(subject, workloads, dir).await?;
    let connections = connect(options, subject).await?;
    let for_load = if options.pin { pinned(options, subject).await? } else { connections.clone() };
    let clients = Arc::new(Clients {
        workloads: workloads.to_vec(),
        seed,
        recorder,
        load: for_load,
        connections,
        deadline: options.deadline(),
        shorteners: Mutex::new(Arc::clone(&shorteners.addresses)),
        http: Http::default(),
        processes: AtomicU64::new(0),
        tally: Tally::default(),
    });
    let stop_watching = CancellationToken::new();
    let watch = subject.clients().spawn(Observed::watch(subject.ops.clone(), Http::default(), stop_watching.clone()));

    // From here on nothing may keep what was recorded from being judged: what goes wrong is a check of its own.
    let (load, mut checks) = load(options, seed, dir, subject, &clients, started, interrupt).await;
    stop_watching.cancel();
    let counts = watch.await;
    checks.extend(failure("watching the nodes", counts.as_ref()));
    let shed = clients.tally.shed.load(Ordering::Relaxed);
    let mut wrong = shorteners.ended();
    let panicked = clients.tally.panicked.load(Ordering::Relaxed);
    if panicked > 0 {
        wrong.push(format!("{panicked} clients panicked; this process's error output says where"));
    }
    if interrupt.is_cancelled() {
        checks.push(Check::new(INTERRUPTED, Outcome::Unknown, "the run was not finished"));
    } else if !options.no_history {
        drop(shorteners);
        checks.extend(finish(subject, &clients, dir).await);
    }
    checks.push(processes(subject, dir, wrong));
    // Of a cluster that others started there are no logs here.
    checks.extend((!subject.logs.is_empty()).then(|| votes::check(&subject.logs)));
    drop(clients);
    checks.extend(failure("recording", finish_writing(writer).await.as_ref()));
    Ok(Collected { load, counts: counts.unwrap_or_default(), shed, checks, network: subject.network() })
}

/// The check that says that something went wrong with the harness itself.
fn failed(what: &str, error: &impl std::fmt::Display) -> Check {
    Check::new(what, Outcome::HarnessFailure, format!("{error:#}"))
}

/// The same, if it did.
fn failure<T, E: std::fmt::Display>(what: &str, result: Result<T, &E>) -> Option<Check> {
    result.err().map(|error| failed(what, error))
}

async fn start_shorteners(
    subject: &Subject,
    workloads: &[Arc<dyn Workload>],
    dir: &Path,
) -> anyhow::Result<Shorteners> {
    let count = workloads.iter().map(|workload| workload.shorteners()).max().unwrap_or(0);
    let log = shortener_log(dir);
    Shorteners::start(count, || subject.command(), &subject.endpoints, &log, subject.clients()).await
}

fn shortener_log(dir: &Path) -> PathBuf {
    dir.join(LOGS).join("shortener.log")
}

/// A client that knows every endpoint, and for each node one that knows only that.
async fn connect(options: &Options, subject: &Subject) -> anyhow::Result<Vec<Client>> {
    let all = std::iter::once(subject.endpoints.clone()).chain(subject.endpoints.iter().map(|one| vec![one.clone()]));
    connected(subject, all.map(|endpoints| Client::builder().endpoints(endpoints).deadline(options.deadline()))).await
}

/// For each node a client that talks to no other.
async fn pinned(options: &Options, subject: &Subject) -> anyhow::Result<Vec<Client>> {
    let one = |endpoint: &String| Client::builder().endpoints([endpoint]).deadline(options.deadline()).pinned();
    connected(subject, subject.endpoints.iter().map(one)).await
}

async fn connected(subject: &Subject, builders: impl Iterator<Item = ClientBuilder>) -> anyhow::Result<Vec<Client>> {
    let mut connections = Vec::new();
    for builder in builders {
        let client = async move { tokio::time::timeout(CONNECT_MAX, builder.connect()).await };
        connections.push(subject.clients().spawn(client).await?.context("connecting takes too long")??);
    }
    Ok(connections)
}

/// Load, faults, healing, and load again. Gives when the load began and ended, and what went wrong with the faults.
async fn load(
    options: &Options,
    seed: u64,
    dir: &Path,
    subject: &Subject,
    clients: &Arc<Clients>,
    started: Instant,
    interrupt: &CancellationToken,
) -> ((u64, u64), Vec<Check>) {
    let stop = CancellationToken::new();
    let began = nanos(started.elapsed());
    let (working, pace, stopping) = (Arc::clone(clients), options.pace(), stop.clone());
    let work = subject.clients().spawn(async move { working.work(pace, &stopping).await });

    let stop_faults = CancellationToken::new();
    let nemesis = async {
        let Some(cluster) = subject.cluster.as_ref().filter(|_| !options.nemesis.is_empty()) else { return Ok(vec![]) };
        tokio::select! { () = tokio::time::sleep(QUIET_BEFORE) => {} () = stop_faults.cancelled() => {} }
        faults::run(cluster, options, seed, started, &dir.join(NEMESIS), &stop_faults, interrupt).await
    };
    let clock = async {
        let ends = tokio::time::Instant::now() + Duration::from_secs(options.time_limit);
        loop {
            let next = ends.min(tokio::time::Instant::now() + PROGRESS_EVERY);
            tokio::select! { () = tokio::time::sleep_until(next) => {} () = interrupt.cancelled() => {} }
            tell(&clients.tally, started);
            if next == ends || interrupt.is_cancelled() {
                break stop_faults.cancel();
            }
        }
        if interrupt.is_cancelled() {
            progress("interrupted: healing");
        }
    };
    let (broke, ()) = tokio::join!(nemesis, clock);
    if !options.nemesis.is_empty() {
        tokio::select! { () = tokio::time::sleep(QUIET_AFTER) => {} () = interrupt.cancelled() => {} }
    }
    stop.cancel();
    let ended = nanos(started.elapsed());
    let worked = work.await;
    let failed = [failure("nemesis", broke.as_ref()), failure("the clients", worked.as_ref())];
    let checks = failed.into_iter().flatten().chain(broke.into_iter().flatten());
    ((began, ended), checks.collect())
}

/// What must be true when everything is healed. A step that fails does not keep the others from being made.
async fn finish(subject: &Subject, clients: &Arc<Clients>, dir: &Path) -> Vec<Check> {
    const AVAILABILITY: &str = "availability after healing";
    progress("waiting until every shard serves");
    let client = clients.connections[0].clone();
    let serving = subject.clients().spawn(async move { finale::serving(&client, finale::SERVING_MAX).await }).await;
    let available = match serving {
        Ok(Ok(())) => Check::pass(AVAILABILITY, "every shard takes writes"),
        Ok(Err(error)) => return vec![Check::new(AVAILABILITY, Outcome::Violation, format!("{error:#}"))],
        Err(error) => return vec![failed(AVAILABILITY, &error)],
    };
    progress("final reads");
    let reads = final_reads(subject, clients, dir).await.unwrap_or_else(|error| failed("final reads", &error));
    progress("convergence and state hashes");
    let converged = convergence(subject, clients).await.unwrap_or_else(|error| failed("convergence", &error));
    vec![available, reads, converged, hashes(subject).await]
}

async fn final_reads(subject: &Subject, clients: &Arc<Clients>, dir: &Path) -> anyhow::Result<Check> {
    // Fresh processes remember nothing: what they answer is what the cluster holds.
    let fresh = start_shorteners(subject, &clients.workloads, dir).await?;
    *clients.shorteners.lock().expect("nothing panics while it holds this lock") = Arc::clone(&fresh.addresses);
    let reading = Arc::clone(clients);
    let reads = subject.clients().spawn(async move { finale::final_reads(&reading).await }).await?;
    Ok(match reads.unread.first() {
        None => Check::pass("final reads", format!("{} keys", reads.read)),
        Some(first) => {
            let detail = format!(
                "{} of {} keys cannot be read, such as {first}",
                reads.unread.len(),
                reads.read + reads.unread.len()
            );
            Check::new("final reads", Outcome::Violation, detail)
        }
    })
}

async fn convergence(subject: &Subject, clients: &Arc<Clients>) -> anyhow::Result<Check> {
    let converging = Arc::clone(clients);
    let apart = subject.clients().spawn(async move { finale::converge(&converging).await }).await?;
    Ok(match apart.first() {
        None => Check::pass("convergence", "eventual reads give what strong ones give"),
        Some(first) => {
            Check::new("convergence", Outcome::Violation, format!("{} keys stay apart, such as {first}", apart.len()))
        }
    })
}

async fn hashes(subject: &Subject) -> Check {
    let binary = match subject.binary() {
        Ok(binary) => binary.to_owned(),
        Err(error) => return Check::new("state hashes", Outcome::Unknown, error.to_string()),
    };
    match finale::hashes(|| subject.command(), &subject.endpoints).await {
        Ok(Hashes::Equal(shards)) => Check::pass("state hashes", format!("all replicas of {shards} shards are equal")),
        Ok(Hashes::Differ(what)) => Check::new("state hashes", Outcome::Violation, what),
        Ok(Hashes::Unknown(why)) => Check::new("state hashes", Outcome::Unknown, why),
        Err(error) => Check::new("state hashes", Outcome::HarnessFailure, format!("{}: {error:#}", binary.display())),
    }
}

/// No node, shortener or client may have panicked, or ended by itself. (Faults that are meant to end one start it again.)
fn processes(subject: &Subject, dir: &Path, mut wrong: Vec<String>) -> Check {
    wrong.extend(subject.died());
    for log in subject.logs.iter().chain([&shortener_log(dir)]) {
        let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
        let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
        wrong.extend(finale::panics(&text).into_iter().map(|line| format!("{name}: {line}")));
    }
    match wrong.is_empty() {
        true => Check::pass("processes", format!("no panic in {} logs, and every node lives", subject.logs.len())),
        false => Check::new("processes", Outcome::Violation, wrong.join("; ")),
    }
}

async fn finish_writing(writer: Option<Writer>) -> anyhow::Result<()> {
    let Some(writer) = writer else { return Ok(()) };
    tokio::task::spawn_blocking(|| writer.finish()).await??;
    Ok(())
}

/// Checks, counts, and writes the report.
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
    let named = faults::named(&options.nemesis)?;
    let (options, dir, command) = (options.clone(), dir.to_owned(), options.command(seed));
    // The search keeps all cores busy for a while.
    let judged = tokio::task::spawn_blocking(move || {
        let operations = workload::operations(&events);
        let mut results = account(&operations, Facts { faults: &faults, counts, load, shed, command, seed, network });
        results.checks = match options.no_history {
            true => vec![Check::new("history", Outcome::Unknown, "none was kept, so nothing was checked")],
            false => verdict::check(&workloads, &events),
        };
        results.checks.extend(checks);
        // One that was interrupted did not reach what it was for, and does not claim to have.
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

fn tell(tally: &Tally, started: Instant) {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (ok, fail, info) = (count(&tally.ok), count(&tally.fail), count(&tally.info));
    progress(&format!("{:>3} s  {ok} ok, {fail} fail, {info} info", started.elapsed().as_secs()));
}

/// Progress goes to standard error: what a run says is on standard output.
fn progress(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shorteners that are started at the end did not start, and the run ended without a verdict on what it had seen.
    #[tokio::test]
    async fn a_violation_was_lost_because_the_shortener_did_not_start() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let made_up = r#"{"index":0,"time":0,"process":1,"type":"invoke","f":"read","key":"register/1"}
{"index":1,"time":1,"process":1,"type":"ok","f":"read","key":"register/1","value":"nobody wrote this"}
{"index":2,"ti"#;
        std::fs::write(dir.path().join(HISTORY), made_up)?;
        let log = dir.path().join("shortener.log");
        let nothing = || Ok(tokio::process::Command::new(dir.path().join("quorate")));
        let started = Shorteners::start(1, nothing, &[], &log, &tokio::runtime::Handle::current()).await;
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
