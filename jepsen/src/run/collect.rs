//! The part of a run that needs the cluster: load, faults, and the steps after healing.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use quorate_client::{Client, ClientBuilder};
use tokio_util::sync::CancellationToken;

use super::clients::{Clients, Tally};
use super::failure::failure;
use super::files::{HISTORY, NEMESIS};
use super::observed::{Counts, Observed};
use super::options::Options;
use super::progress::{self, progress};
use super::recorder::{Recorder, Writer, nanos};
use super::subject::Subject;
use super::{faults, finish, shorteners, votes};
use crate::report::{Check, Outcome};
use crate::workload::{Http, Workload};

/// The time-out of a client's connection to a serving cluster.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// The load before the first fault, which shows the undisturbed cluster.
const QUIET_BEFORE: Duration = Duration::from_secs(3);
/// The load after the last fault, which shows the recovery.
const QUIET_AFTER: Duration = Duration::from_secs(5);
/// The pause between two progress messages.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// The name of the check of an interrupted run.
pub(super) const INTERRUPTED: &str = "interrupted";

/// The data that a run has collected when its cluster is gone.
pub(super) struct Collected {
    /// The begin and end of the load, in nanoseconds since the start.
    pub(super) load: (u64, u64),
    pub(super) counts: Counts,
    pub(super) shed: u64,
    pub(super) checks: Vec<Check>,
    pub(super) network: String,
}

/// A run and its cluster.
pub(super) struct Collector<'a> {
    pub(super) options: &'a Options,
    pub(super) seed: u64,
    pub(super) dir: &'a Path,
    pub(super) subject: &'a Subject,
    pub(super) workloads: &'a [Arc<dyn Workload>],
    pub(super) interrupt: &'a CancellationToken,
}

impl Collector<'_> {
    /// Everything that needs the cluster.
    pub(super) async fn collect(&self) -> anyhow::Result<Collected> {
        let Collector { options, seed, dir, subject, workloads, interrupt } = *self;
        let started = Instant::now();
        let (recorder, writer) = match options.no_history {
            true => (Recorder::none(started), None),
            false => {
                Recorder::create(&dir.join(HISTORY), started).map(|(recorder, writer)| (recorder, Some(writer)))?
            }
        };
        let mut running = shorteners::for_workloads(subject, workloads, dir).await?;
        let connections = self.connect().await?;
        let for_load = if options.load.pin { self.connect_pinned().await? } else { connections.clone() };
        let clients = Arc::new(Clients {
            workloads: workloads.to_vec(),
            seed,
            recorder,
            load: for_load,
            connections,
            deadline: options.load.deadline(),
            shorteners: Mutex::new(Arc::clone(&running.addresses)),
            http: Http::default(),
            processes: AtomicU64::new(0),
            tally: Tally::default(),
        });
        let stop_watching = CancellationToken::new();
        let watch =
            subject.clients().spawn(Observed::watch(subject.ops.clone(), Http::default(), stop_watching.clone()));

        // From here on an error becomes a check of its own, so that the recorded history is judged
        // in any case.
        let (load, mut checks) = self.load(&clients, started).await;
        stop_watching.cancel();
        let counts = watch.await;
        checks.extend(failure("watching the nodes", counts.as_ref()));
        let shed = clients.tally.shed.load(Ordering::Relaxed);
        let mut wrong = running.ended();
        let panicked = clients.tally.panicked.load(Ordering::Relaxed);
        if panicked > 0 {
            wrong.push(format!("{panicked} clients panicked; see the standard error of this process"));
        }
        if interrupt.is_cancelled() {
            checks.push(Check::new(INTERRUPTED, Outcome::Unknown, "the run was interrupted before its end"));
        } else if !options.no_history {
            drop(running);
            checks.extend(finish::finish(subject, &clients, dir).await);
        }
        checks.push(finish::processes(subject, dir, wrong));
        // There are no logs of a cluster that was already running.
        checks.extend((!subject.logs.is_empty()).then(|| votes::check(&subject.logs)));
        drop(clients);
        checks.extend(failure("recording", finish_writing(writer).await.as_ref()));
        Ok(Collected { load, counts: counts.unwrap_or_default(), shed, checks, network: subject.network() })
    }

    /// A client that knows every endpoint, and for each node a client that knows only its endpoint.
    async fn connect(&self) -> anyhow::Result<Vec<Client>> {
        let endpoints = &self.subject.endpoints;
        let all = std::iter::once(endpoints.clone()).chain(endpoints.iter().map(|one| vec![one.clone()]));
        let deadline = self.options.load.deadline();
        self.connected(all.map(|endpoints| Client::builder().endpoints(endpoints).deadline(deadline))).await
    }

    /// For each node a client that sends requests to no other node.
    async fn connect_pinned(&self) -> anyhow::Result<Vec<Client>> {
        let deadline = self.options.load.deadline();
        let one = |endpoint: &String| Client::builder().endpoints([endpoint]).deadline(deadline).pinned();
        self.connected(self.subject.endpoints.iter().map(one)).await
    }

    async fn connected(&self, builders: impl Iterator<Item = ClientBuilder>) -> anyhow::Result<Vec<Client>> {
        let mut connections = Vec::new();
        for builder in builders {
            let client = async move { tokio::time::timeout(CONNECT_MAX, builder.connect()).await };
            connections.push(self.subject.clients().spawn(client).await?.context("connecting timed out")??);
        }
        Ok(connections)
    }

    /// Load, faults, healing, and load again. Returns the begin and end of the load, and a check
    /// for each failure.
    async fn load(&self, clients: &Arc<Clients>, started: Instant) -> ((u64, u64), Vec<Check>) {
        let Collector { options, seed, dir, subject, interrupt, .. } = *self;
        let stop = CancellationToken::new();
        let began = nanos(started.elapsed());
        let (working, pace, stopping) = (Arc::clone(clients), options.load.pace(), stop.clone());
        let work = subject.clients().spawn(async move { working.work(pace, &stopping).await });

        let has_faults = !options.faults.nemesis.is_empty();
        let stop_faults = CancellationToken::new();
        let nemesis = async {
            let Some(cluster) = subject.cluster.as_ref().filter(|_| has_faults) else { return Ok(vec![]) };
            tokio::select! { () = tokio::time::sleep(QUIET_BEFORE) => {} () = stop_faults.cancelled() => {} }
            faults::run(cluster, &options.faults, seed, started, &dir.join(NEMESIS), &stop_faults, interrupt).await
        };
        let clock = async {
            let ends = tokio::time::Instant::now() + Duration::from_secs(options.load.time_limit);
            loop {
                let next = ends.min(tokio::time::Instant::now() + PROGRESS_EVERY);
                tokio::select! { () = tokio::time::sleep_until(next) => {} () = interrupt.cancelled() => {} }
                progress::operations(&clients.tally, started.elapsed());
                if next == ends || interrupt.is_cancelled() {
                    break stop_faults.cancel();
                }
            }
            if interrupt.is_cancelled() {
                progress("interrupted: healing");
            }
        };
        let (injected, ()) = tokio::join!(nemesis, clock);
        if has_faults {
            tokio::select! { () = tokio::time::sleep(QUIET_AFTER) => {} () = interrupt.cancelled() => {} }
        }
        stop.cancel();
        let ended = nanos(started.elapsed());
        let worked = work.await;
        let failed = [failure("nemesis", injected.as_ref()), failure("the clients", worked.as_ref())];
        let checks = failed.into_iter().flatten().chain(injected.into_iter().flatten());
        ((began, ended), checks.collect())
    }
}

async fn finish_writing(writer: Option<Writer>) -> anyhow::Result<()> {
    let Some(writer) = writer else { return Ok(()) };
    tokio::task::spawn_blocking(|| writer.finish()).await??;
    Ok(())
}
