//! The cost of an admin action: `--during "node drain 3 --yes"` runs the command after a third of
//! the window, and the report compares the load before the command and during it.
//!
//! Beside the load, probes write some keys every few milliseconds, even if earlier writes have not
//! ended. The longest gap of a probe is the longest time in which a shard acknowledged no write.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Args;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde::{Serialize, Serializer};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::report::{Report, Tally, Window};
use super::target::{ErrorKind, Target};
use crate::duration;
use crate::failure::{Exit, Failure};

/// The most writes of one probe in flight; at the limit the probe waits for one to end.
const PROBE_WRITES_MAX: usize = 128;

/// The cost of an admin action, as a JSON document.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Impact {
    /// The command.
    pub(super) command: String,
    /// The exit code; null if the command was still running when the load ended.
    pub(super) exit: Option<i32>,
    /// How long the command ran.
    pub(super) took_seconds: f64,
    pub(super) before: Phase,
    pub(super) during: Phase,
}

/// The load and the probes in one part of the window.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Phase {
    #[serde(flatten)]
    pub(super) report: Report,
    /// The longest time between two acknowledged writes of one probe.
    pub(super) longest_gap_ms: f64,
    /// The start of that gap, counted from the start of this part of the window.
    pub(super) longest_gap_at_seconds: f64,
}

/// The longest time without an acknowledged write of a probe.
#[derive(Clone, Copy)]
struct Gap {
    from: Instant,
    length: Duration,
}

impl Gap {
    fn or_longer(self, from: Instant, to: Instant) -> Gap {
        if to - from > self.length { Gap { from, length: to - from } } else { self }
    }
}

impl Phase {
    fn line(&self) -> String {
        let Report { throughput, p50_ms, p99_ms, max_ms, .. } = self.report;
        let (gap, at, errors) = (self.longest_gap_ms, self.longest_gap_at_seconds, self.report.errors_line());
        format!(
            "{throughput:.0} operations/s   p50 {p50_ms:.2}   p99 {p99_ms:.2}   max {max_ms:.2} ms   longest gap {gap:.0} ms ({at:.1} s in)   errors {errors}"
        )
    }
}

impl Impact {
    /// The comparison as text for a terminal.
    pub(super) fn screen(&self) -> String {
        let exit = self.exit.map_or_else(|| "still running".to_owned(), |code| format!("exit {code}"));
        format!(
            "\nquorate {}: {exit} after {:.1} s\nbefore  {}\nduring  {}\n",
            self.command,
            self.took_seconds,
            self.before.line(),
            self.during.line()
        )
    }
}

/// Sorts the measurements into those before the command and those during it.
#[derive(Clone)]
pub(super) struct Phases {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    start: Instant,
    begun: Option<Instant>,
    ended: Option<Instant>,
    before: Tally,
    during: Tally,
    gap_before: Gap,
    gap_during: Gap,
}

impl Phases {
    pub(super) fn new(start: Instant) -> Self {
        let (before, during) = (Tally::default(), Tally::default());
        let none = Gap { from: start, length: Duration::ZERO };
        let inner = Inner { start, begun: None, ended: None, before, during, gap_before: none, gap_during: none };
        Phases { inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("only a broken invariant poisons this lock")
    }

    /// Counts one operation of the load.
    pub(super) fn record(&self, begun: Instant, ended: Instant, result: Result<(), ErrorKind>) {
        let mut inner = self.lock();
        let far = begun + Duration::from_secs(86_400);
        let (start, at, end) = (inner.start, inner.begun.unwrap_or(far), inner.ended.unwrap_or(far));
        inner.before.record(&Window { start, end: at }, begun, ended, result);
        inner.during.record(&Window { start: at, end }, begun, ended, result);
    }

    /// Counts the gap of a probe between two acknowledged writes.
    fn silent(&self, from: Instant, to: Instant) {
        let mut inner = self.lock();
        if from < inner.start {
            return;
        }
        match (inner.begun, inner.ended) {
            (Some(begun), ended) if to > begun && ended.is_none_or(|ended| from < ended) => {
                inner.gap_during = inner.gap_during.or_longer(from, to);
            }
            (Some(_), _) => {}
            (None, _) => inner.gap_before = inner.gap_before.or_longer(from, to),
        }
    }

    fn begin(&self) -> Instant {
        *self.lock().begun.insert(Instant::now())
    }

    fn end(&self) {
        self.lock().ended = Some(Instant::now());
    }

    /// The impact of the command; none if it never began.
    pub(super) fn impact(&self, command: &str, exit: Option<i32>) -> Option<Impact> {
        let inner = self.lock();
        let begun = inner.begun?;
        let ended = inner.ended.unwrap_or_else(Instant::now);
        let phase = |tally: &Tally, window: Window, gap: Gap| Phase {
            longest_gap_ms: gap.length.as_secs_f64() * 1_000.0,
            // A gap that began before this part of the window counts from the start of the part.
            longest_gap_at_seconds: gap.from.saturating_duration_since(window.start).as_secs_f64(),
            report: tally.clone().report(window),
        };
        Some(Impact {
            command: command.to_owned(),
            exit,
            took_seconds: (ended - begun).as_secs_f64(),
            before: phase(&inner.before, Window { start: inner.start, end: begun }, inner.gap_before),
            during: phase(&inner.during, Window { start: begun, end: ended }, inner.gap_during),
        })
    }
}

/// The probes, which write beside the load.
#[derive(Args, Clone, Debug, Serialize)]
pub(crate) struct Probes {
    /// Number of keys that are written every few milliseconds beside the load, to find the longest
    /// time without an acknowledged write. Only with --during; --rate then includes these writes.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=1024))]
    pub(super) probes: u32,
    /// How often each of these keys is written.
    #[serde(rename = "probe_every_seconds", serialize_with = "seconds")]
    #[arg(id = "probe_every", long = "probe-every", value_name = "TIME", default_value = "5ms", value_parser = duration::parse)]
    pub(super) every: Duration,
}

fn seconds<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}

impl Probes {
    /// The part of a rate, in operations a second, that the probes leave to the clients.
    pub(super) fn leave(&self, rate: u32) -> Result<u32, Failure> {
        let writes = f64::from(self.probes) / self.every.as_secs_f64();
        let left = f64::from(rate) - writes;
        if left >= 1.0 {
            return Ok(left as u32);
        }
        Err(Failure::new(Exit::Usage, format!("{} probes write {writes:.0} times a second", self.probes))
            .cause(format!("--rate {rate} includes these writes and leaves nothing for the clients"))
            .hint("choose a higher --rate, fewer --probes, or a longer --probe-every"))
    }
}

/// Runs the probes until `stop` is cancelled.
pub(super) fn probe<T: Target>(target: &T, probes: &Probes, phases: &Phases, stop: &CancellationToken) -> JoinSet<()> {
    let mut running = JoinSet::new();
    let every = probes.every;
    for probe in 0..probes.probes {
        let (target, phases, stop) = (target.clone(), phases.clone(), stop.clone());
        running.spawn(async move {
            let mut beat = interval(every);
            beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let mut last = Instant::now();
            let mut writes = FuturesUnordered::new();
            loop {
                tokio::select! {
                    // A gap that has not ended counts up to now.
                    () = stop.cancelled() => return phases.silent(last, Instant::now()),
                    _ = beat.tick(), if writes.len() < PROBE_WRITES_MAX => {
                        let key = format!("bench/probe/{probe}").into();
                        writes.push(target.put(probe as usize, key, bytes::Bytes::from_static(b"probe")));
                    }
                    Some(written) = writes.next() => if written.is_ok() {
                        let now = Instant::now();
                        phases.silent(last, now);
                        last = now;
                    },
                }
            }
        });
    }
    running
}

/// Runs a command of this binary at time `at`. Returns its exit code.
pub(super) async fn run(command: &str, endpoints: &[String], at: Instant, phases: &Phases) -> Result<i32, Failure> {
    let failed =
        |error: std::io::Error| Failure::new(Exit::Other, format!("cannot run 'quorate {command}'")).cause(error);
    let binary = std::env::current_exe().map_err(failed)?;
    sleep_until(at).await;
    phases.begin();
    let mut child = Command::new(binary);
    child.args(command.split_whitespace()).env("QUORATE_ENDPOINTS", endpoints.join(",")).kill_on_drop(true);
    child.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let status = child.status().await.map_err(failed)?;
    phases.end();
    Ok(status.code().unwrap_or(-1))
}
