//! The load of a run and its faults, side by side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::clients::Clients;
use super::collect::Collector;
use super::failure::failure;
use super::faults;
use super::files::NEMESIS;
use super::progress::{self, progress};
use super::recorder::nanos;
use crate::report::Check;

/// The load before the first fault, which shows the undisturbed cluster.
const QUIET_BEFORE: Duration = Duration::from_secs(3);
/// The load after the last fault, which shows the recovery.
const QUIET_AFTER: Duration = Duration::from_secs(5);
/// The pause between two progress messages.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

impl Collector<'_> {
    /// Load, faults, healing, and load again. Returns the begin and end of the load, and a check
    /// for each failure.
    pub(super) async fn load(&self, clients: &Arc<Clients>, started: Instant) -> ((u64, u64), Vec<Check>) {
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
