//! The clients: they plan, begin, perform and record operations, in a closed loop (as fast as they are answered) or an open one
//! (at a rate, whatever the answers).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_client::Client;
use rand::RngExt as _;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::recorder::Recorder;
use crate::history::EventKind;
use crate::workload::{Access, Completion, Http, Op, Workload, rng};

/// Operations that an open loop may have under way. More would hide that the cluster does not keep up: they are counted as shed.
const IN_FLIGHT_MAX: usize = 1_000;
/// How long a client of a closed loop waits after a failure: one that cannot reach anybody must not spin.
const FAILURE_PAUSE: Duration = Duration::from_millis(20);
/// Longer than any operation may take: what has not ended then stays open in the history.
const LAST_OPERATION_MAX: Duration = Duration::from_secs(20);

/// How fast operations come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many clients, each with one operation at a time.
    Closed {
        /// Clients.
        concurrency: usize,
    },
    /// So many operations a second, at random intervals, whether earlier ones have ended or not.
    Open {
        /// Operations a second.
        rate: f64,
    },
}

/// Counted while the clients work.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Planned, which is also the number of the next operation.
    pub planned: AtomicU64,
    /// Ended as `ok`.
    pub ok: AtomicU64,
    /// Ended as `fail`.
    pub fail: AtomicU64,
    /// Ended as `info`.
    pub info: AtomicU64,
    /// Not begun, because too many were under way.
    pub shed: AtomicU64,
    /// Ended in a panic: of ours or of the client library.
    pub panicked: AtomicU64,
}

/// What clients need to do their work.
pub(super) struct Clients {
    /// The workloads; operations go to them in turn.
    pub workloads: Vec<Arc<dyn Workload>>,
    /// The run's seed.
    pub seed: u64,
    /// Where events go.
    pub recorder: Recorder,
    /// What the load goes through: each connected by way of another node, or pinned to it.
    pub load: Vec<Client>,
    /// What is read with when everything is healed. The first knows every endpoint, each of the others only one node's.
    pub connections: Vec<Client>,
    /// How long an operation may take.
    pub deadline: Duration,
    /// The shorteners' addresses; they are other ones at the end of the run.
    pub shorteners: Mutex<Arc<[String]>>,
    /// For HTTP.
    pub http: Http,
    /// The numbers of processes; one whose operation is in doubt is not used again.
    pub processes: AtomicU64,
    /// What happened so far.
    pub tally: Tally,
}

impl Clients {
    /// Works at that pace until it is told to stop, and then until what is under way has ended.
    pub(super) async fn work(self: &Arc<Self>, pace: Pace, stop: &CancellationToken) {
        match pace {
            Pace::Closed { concurrency } => self.closed(concurrency, stop).await,
            Pace::Open { rate } => self.open(rate, stop).await,
        }
    }

    async fn closed(self: &Arc<Self>, concurrency: usize, stop: &CancellationToken) {
        let mut clients = JoinSet::new();
        for _ in 0..concurrency {
            let (shared, stop) = (Arc::clone(self), stop.clone());
            clients.spawn(async move {
                let mut process = shared.new_process();
                while !stop.is_cancelled() {
                    let kind = shared.next(process).await;
                    if kind == EventKind::Info {
                        process = shared.new_process();
                    }
                    if kind != EventKind::Ok {
                        tokio::time::sleep(FAILURE_PAUSE).await;
                    }
                }
            });
        }
        stop.cancelled().await;
        self.drain(clients).await;
    }

    async fn open(self: &Arc<Self>, rate: f64, stop: &CancellationToken) {
        let idle: Arc<Mutex<Vec<u64>>> = Arc::default();
        let mut arrivals = rng(self.seed, "arrivals", 0);
        let mut operations = JoinSet::new();
        let mut next = Instant::now();
        while tokio::select! { () = stop.cancelled() => false, () = tokio::time::sleep_until(next) => true } {
            while let Some(ended) = operations.try_join_next() {
                self.note_end(&ended);
            }
            // Arrivals of a Poisson process: each gap is drawn from an exponential distribution.
            let uniform: f64 = arrivals.random_range(f64::MIN_POSITIVE..1.0);
            next += Duration::from_secs_f64(-uniform.ln() / rate);
            if operations.len() >= IN_FLIGHT_MAX {
                self.tally.shed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let free = idle.lock().expect("nothing panics while it holds this lock").pop();
            let process = free.unwrap_or_else(|| self.new_process());
            let (shared, idle) = (Arc::clone(self), Arc::clone(&idle));
            operations.spawn(async move {
                if shared.next(process).await != EventKind::Info {
                    idle.lock().expect("nothing panics while it holds this lock").push(process);
                }
            });
        }
        self.drain(operations).await;
    }

    fn note_end(&self, ended: &Result<(), JoinError>) {
        if ended.as_ref().is_err_and(JoinError::is_panic) {
            self.tally.panicked.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for what is under way; what does not end in time is given up, and stays open in the history.
    async fn drain(&self, mut tasks: JoinSet<()>) {
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                self.note_end(&ended);
            }
        };
        if tokio::time::timeout(LAST_OPERATION_MAX, all).await.is_err() {
            tasks.shutdown().await;
        }
    }

    /// A process number that nobody has.
    pub(super) fn new_process(&self) -> u64 {
        self.processes.fetch_add(1, Ordering::Relaxed)
    }

    /// How many operations each workload has planned so far.
    pub(super) fn planned_each(&self) -> u64 {
        self.tally.planned.load(Ordering::Relaxed).div_ceil(self.workloads.len() as u64)
    }

    /// The next operation of all, by a process.
    async fn next(&self, process: u64) -> EventKind {
        let turn = self.tally.planned.fetch_add(1, Ordering::Relaxed);
        let workloads = self.workloads.len() as u64;
        let place = usize::try_from(turn % workloads).expect("less than the number of workloads");
        let workload = &self.workloads[place];
        let n = turn / workloads;
        let op = workload.plan(n, &mut rng(self.seed, workload.name(), n));
        let completion = self.perform_by(&self.load, workload.as_ref(), process, &op).await;
        let count = match completion.kind {
            EventKind::Ok => &self.tally.ok,
            EventKind::Fail => &self.tally.fail,
            EventKind::Info | EventKind::Invoke => &self.tally.info,
        };
        count.fetch_add(1, Ordering::Relaxed);
        completion.kind
    }

    /// Performs one operation through one of the connections that are never pinned, and records both of its events.
    pub(super) async fn perform(&self, workload: &dyn Workload, process: u64, op: &Op) -> Completion {
        self.perform_by(&self.connections, workload, process, op).await
    }

    /// Processes take the connections in turn; each has its own for good.
    async fn perform_by(&self, by: &[Client], workload: &dyn Workload, process: u64, op: &Op) -> Completion {
        let place = usize::try_from(process).unwrap_or(0) % by.len();
        let access = Access {
            client: by[place].clone(),
            deadline: self.deadline,
            shorteners: Arc::clone(&self.shorteners.lock().expect("nothing panics while it holds this lock")),
            http: self.http.clone(),
            turn: process,
        };
        self.recorder.invoke(process, op).await;
        let completion = workload.perform(access, op.clone()).await;
        self.recorder.complete(process, op, &completion).await;
        workload.observe(op, &completion);
        completion
    }
}
