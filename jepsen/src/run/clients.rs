//! The clients: they plan, perform and record operations, in a closed loop (the next operation
//! starts when the last one is answered) or an open loop (operations start at a rate, regardless of
//! answers).

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

/// The most operations of an open loop in flight. Further ones are counted as shed: queueing them
/// would hide that the cluster cannot keep up.
const IN_FLIGHT_MAX: usize = 1_000;
/// The pause of a closed loop's client after a failure, so that a client without a reachable node
/// does not spin.
const FAILURE_PAUSE: Duration = Duration::from_millis(20);
/// Longer than any operation may take. An operation that has not ended then stays open in the
/// history.
const LAST_OPERATION_MAX: Duration = Duration::from_secs(20);

/// The loop that generates operations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loop {
    /// A number of clients with one operation at a time each.
    Closed {
        /// The number of clients.
        concurrency: usize,
    },
    /// A number of operations per second at random intervals, regardless of earlier ones.
    Open {
        /// Operations per second.
        rate: f64,
    },
}

/// Counters of the clients' operations.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Planned; also the number of the next operation.
    pub planned: AtomicU64,
    /// Ended as `ok`.
    pub ok: AtomicU64,
    /// Ended as `fail`.
    pub fail: AtomicU64,
    /// Ended as `info`.
    pub info: AtomicU64,
    /// Not started, because too many were in flight.
    pub shed: AtomicU64,
    /// Ended in a panic of the harness or the client library.
    pub panicked: AtomicU64,
}

/// The shared state of all clients.
pub(super) struct Clients {
    /// The workloads; operations alternate between them.
    pub workloads: Vec<Arc<dyn Workload>>,
    /// The run's seed.
    pub seed: u64,
    /// The recorder of the history.
    pub recorder: Recorder,
    /// The connections for the load, each through another node, or pinned to it.
    pub load: Vec<Client>,
    /// The connections for the final reads. The first knows every endpoint, each of the others one
    /// node.
    pub connections: Vec<Client>,
    /// The deadline of an operation.
    pub deadline: Duration,
    /// The addresses of the shorteners, which are restarted for the final reads.
    pub shorteners: Mutex<Arc<[String]>>,
    /// The HTTP client.
    pub http: Http,
    /// The next process number. A process whose operation has an unknown outcome is not used again.
    pub processes: AtomicU64,
    /// The counters.
    pub tally: Tally,
}

impl Clients {
    /// Generates operations until `stop` is cancelled, and waits for those in flight.
    pub(super) async fn work(self: &Arc<Self>, pace: Loop, stop: &CancellationToken) {
        match pace {
            Loop::Closed { concurrency } => self.closed(concurrency, stop).await,
            Loop::Open { rate } => self.open(rate, stop).await,
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
            let free = idle.lock().expect("only a broken invariant poisons this lock").pop();
            let process = free.unwrap_or_else(|| self.new_process());
            let (shared, idle) = (Arc::clone(self), Arc::clone(&idle));
            operations.spawn(async move {
                if shared.next(process).await != EventKind::Info {
                    idle.lock().expect("only a broken invariant poisons this lock").push(process);
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

    /// Waits for the operations in flight. Those that do not end in time stay open in the history.
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

    /// A new process number.
    pub(super) fn new_process(&self) -> u64 {
        self.processes.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of operations that each workload has planned so far.
    pub(super) fn planned_each(&self) -> u64 {
        self.tally.planned.load(Ordering::Relaxed).div_ceil(self.workloads.len() as u64)
    }

    /// Plans and performs the next operation.
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

    /// Performs one operation through a connection that is not pinned, and records both of its
    /// events.
    pub(super) async fn perform(&self, workload: &dyn Workload, process: u64, op: &Op) -> Completion {
        self.perform_by(&self.connections, workload, process, op).await
    }

    /// Performs and records one operation. Each process always uses the same connection.
    async fn perform_by(&self, by: &[Client], workload: &dyn Workload, process: u64, op: &Op) -> Completion {
        let place = usize::try_from(process).unwrap_or(0) % by.len();
        let access = Access {
            client: by[place].clone(),
            deadline: self.deadline,
            shorteners: Arc::clone(&self.shorteners.lock().expect("only a broken invariant poisons this lock")),
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
