//! The closed loop: N clients, each with one operation at a time.

use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use rand::RngExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::during::Phases;
use super::report::{Report, Tally, Window};
use super::target::{ErrorKind, Target};
use super::workload::{Op, Workload};
use crate::failure::{Exit, Failure};

/// A client's pause after an error. It prevents a tight loop of requests to a store that refuses
/// immediately.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);
/// The number of writers in the preload.
const PRELOAD_CLIENTS: u64 = 128;
/// How long the preload retries one key.
const PRELOAD_PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two attempts to write one key.
const PRELOAD_PAUSE: Duration = Duration::from_millis(250);
/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// The key with this number.
fn key(number: u64) -> Bytes {
    Bytes::from(format!("bench/{number:010}"))
}

/// A random value, which cannot be compressed.
fn value(bytes: usize) -> Bytes {
    let mut value = vec![0; bytes];
    rand::rng().fill(&mut value[..]);
    value.into()
}

/// Writes every key once.
pub(super) async fn preload(target: &impl Target, workload: &Workload) -> Result<(), Failure> {
    let value = value(workload.value_bytes);
    let writers = (0..PRELOAD_CLIENTS.min(workload.keys)).map(|writer| {
        let (target, value) = (target.clone(), value.clone());
        let numbers = (writer..workload.keys).step_by(PRELOAD_CLIENTS as usize);
        let written = tokio::spawn(async move {
            for number in numbers {
                put_patiently(&target, writer as usize, key(number), &value).await?;
            }
            Ok(())
        });
        async move { written.await.expect("a writer does not panic") }
    });
    try_join_all(writers).await.map(drop).map_err(|kind: ErrorKind| {
        Failure::new(Exit::Unreachable, "cannot write the keys for the reads")
            .cause(format!("{kind} on every attempt for {} s", PRELOAD_PATIENCE.as_secs()))
            .hint("is the cluster up?  quorate status")
    })
}

async fn put_patiently(target: &impl Target, client: usize, key: Bytes, value: &Bytes) -> Result<(), ErrorKind> {
    let until = Instant::now() + PRELOAD_PATIENCE;
    loop {
        let written = target.put(client, key.clone(), value.clone()).await;
        if written.is_ok() || Instant::now() >= until {
            return written;
        }
        sleep(PRELOAD_PAUSE).await;
    }
}

/// Runs the load for the warm-up and the window, or until `stop`.
pub(super) async fn run<T: Target>(
    target: T,
    workload: &Workload,
    warm_up: Duration,
    phases: Option<&Phases>,
    stop: impl Future<Output = ()>,
) -> Report {
    let start = Instant::now() + warm_up;
    let window = Window { start, end: start + Duration::from_secs(workload.seconds) };
    let shared = Arc::new(Shared {
        workload: workload.clone(),
        window,
        phases: phases.cloned(),
        stop: CancellationToken::new(),
        done: AtomicU64::new(0),
    });
    let mut clients = JoinSet::new();
    for number in 0..workload.clients as usize {
        clients.spawn(client(number, target.clone(), shared.clone()));
    }
    let progress = tokio::spawn(progress(shared.clone()));
    tokio::select! {
        () = sleep_until(window.end) => {}
        () = stop => {}
    }
    let window = Window { start, end: window.end.min(Instant::now()).max(start) };
    shared.stop.cancel();
    progress.await.expect("showing progress does not panic");
    let mut total = Tally::default();
    while let Some(tally) = clients.join_next().await {
        total.add(&tally.expect("a client does not panic"));
    }
    total.report(window)
}

/// The state that all clients of a run share.
struct Shared {
    workload: Workload,
    window: Window,
    phases: Option<Phases>,
    stop: CancellationToken,
    /// Operations that succeeded so far, for the progress line.
    done: AtomicU64,
}

async fn client<T: Target>(number: usize, target: T, shared: Arc<Shared>) -> Tally {
    let Workload { op, read, value_bytes, keys, rate, clients, .. } = shared.workload;
    let pause = rate.map(|rate| Duration::from_secs_f64(f64::from(clients) / f64::from(rate)));
    let value = value(value_bytes);
    let mut tally = Tally::default();
    while !shared.stop.is_cancelled() {
        let key = key(rand::random_range(0..keys));
        let writes = match op {
            Op::Put => true,
            Op::Get => false,
            Op::Mixed => rand::random(),
        };
        let begun = Instant::now();
        let result = match writes {
            true => target.put(number, key, value.clone()).await,
            false => target.get(number, key, read).await,
        };
        let ended = Instant::now();
        tally.record(&shared.window, begun, ended, result);
        if let Some(phases) = &shared.phases {
            phases.record(begun, ended, result);
        }
        match result {
            Ok(()) => {
                shared.done.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => sleep(PAUSE_AFTER_ERROR).await,
        }
        if let Some(pause) = pause {
            // Jitter: without it the clients would send in step.
            sleep_until(begun + pause.mul_f64(rand::random_range(0.5..1.5))).await;
        }
    }
    tally
}

/// Shows the rate of each second, if stderr is a terminal.
async fn progress(shared: Arc<Shared>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let mut before = 0;
    while shared.stop.run_until_cancelled(sleep(PROGRESS_EVERY)).await.is_some() {
        let done = shared.done.load(Ordering::Relaxed);
        let phase = if Instant::now() < shared.window.start { "warm-up" } else { "measuring" };
        tell_part!("\r{phase}: {} operations/s        ", done - before);
        let _ = std::io::stderr().flush();
        before = done;
    }
    tell_part!("\r{:40}\r", "");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;

    use quorate_types::ReadLevel;

    use super::super::target::ABSENT;
    use super::*;

    /// A store in memory that takes 10 ms for each operation. With `failing`, every put fails.
    #[derive(Clone, Default)]
    struct Fake {
        keys: Arc<Mutex<HashSet<Bytes>>>,
        failing: Option<ErrorKind>,
    }

    impl Target for Fake {
        async fn put(&self, _client: usize, key: Bytes, _value: Bytes) -> Result<(), ErrorKind> {
            sleep(Duration::from_millis(10)).await;
            self.keys.lock().unwrap().insert(key);
            self.failing.map_or(Ok(()), Err)
        }

        async fn get(&self, _client: usize, key: Bytes, _level: ReadLevel) -> Result<(), ErrorKind> {
            sleep(Duration::from_millis(10)).await;
            self.keys.lock().unwrap().get(&key).map(drop).ok_or(ABSENT)
        }
    }

    fn workload(op: Op) -> Workload {
        Workload { op, read: ReadLevel::Strong, clients: 4, value_bytes: 16, keys: 300, rate: None, seconds: 2 }
    }

    const WARM_UP: Duration = Duration::from_millis(500);

    /// Four clients with 10 ms an operation make 400 operations a second, each of 10 ms. The clock
    /// is paused, so that the test does not wait.
    #[tokio::test(start_paused = true)]
    async fn measured_throughput_and_latency_match_a_known_store() {
        let report = run(Fake::default(), &workload(Op::Put), WARM_UP, None, std::future::pending()).await;
        assert!((396.0..=408.0).contains(&report.throughput), "{report:?}");
        assert!((9.9..=12.0).contains(&report.p50_ms) && report.max_ms < 13.0, "{report:?}");
        assert!((1.99..=2.01).contains(&report.measured_seconds), "{report:?}");
        assert!(report.errors.is_empty());
    }

    /// Every key is written before the first get.
    #[tokio::test(start_paused = true)]
    async fn gets_find_the_preloaded_keys() {
        let fake = Fake::default();
        preload(&fake, &workload(Op::Get)).await.unwrap();
        assert_eq!(fake.keys.lock().unwrap().len(), 300);
        let report = run(fake, &workload(Op::Get), WARM_UP, None, std::future::pending()).await;
        assert!(report.errors.is_empty() && report.throughput > 390.0, "{report:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_counted_by_kind_and_do_not_spin() {
        let failing = Fake { failing: Some("unknown"), ..Fake::default() };
        let report = run(failing.clone(), &workload(Op::Put), WARM_UP, None, std::future::pending()).await;
        assert!(report.nothing_succeeded());
        let count = report.errors["unknown"];
        assert!((350..=410).contains(&count), "10 ms for the operation, 10 ms of pause: {count}");
        let failure = preload(&failing, &workload(Op::Get)).await.unwrap_err();
        assert!(failure.to_string().contains("unknown on every attempt for 10 s"), "{failure}");
    }

    /// After Ctrl-C in the window, the rate is that of the elapsed part: here one second.
    #[tokio::test(start_paused = true)]
    async fn early_end_reports_the_elapsed_window() {
        let stop = sleep(WARM_UP + Duration::from_secs(1));
        let report = run(Fake::default(), &workload(Op::Put), WARM_UP, None, stop).await;
        assert!((0.99..=1.01).contains(&report.measured_seconds), "{report:?}");
        assert!((390.0..=420.0).contains(&report.throughput), "{report:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn end_in_the_warm_up_measures_nothing() {
        let report = run(Fake::default(), &workload(Op::Put), WARM_UP, None, sleep(Duration::from_millis(20))).await;
        assert_eq!((report.throughput, report.operations), (0.0, 0));
    }

    /// A rate of 100 limits four clients that could do 400 operations a second.
    #[tokio::test(start_paused = true)]
    async fn rate_limits_the_clients() {
        let held = Workload { rate: Some(100), ..workload(Op::Put) };
        let report = run(Fake::default(), &held, WARM_UP, None, std::future::pending()).await;
        assert!((85.0..=115.0).contains(&report.throughput), "{report:?}");
    }
}
