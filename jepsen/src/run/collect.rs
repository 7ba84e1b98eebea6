//! The part of a run that needs the cluster: load, faults, and the steps after healing.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::clients::{Clients, Tally};
use super::failure::failure;
use super::files::HISTORY;
use super::observed::Observed;
use super::options::Options;
use super::recorder::{Recorder, Writer};
use super::subject::Subject;
use super::{finish, shorteners, votes};
use crate::report::{Check, Counts, Outcome};
use crate::workload::{Http, Workload};

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
}

async fn finish_writing(writer: Option<Writer>) -> anyhow::Result<()> {
    let Some(writer) = writer else { return Ok(()) };
    tokio::task::spawn_blocking(|| writer.finish()).await??;
    Ok(())
}
