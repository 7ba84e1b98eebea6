//! The phases of a running node: serving, stopping, draining, closed.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// How long a closing node waits for requests after its replicas have stopped: only a client that
/// reads no replies delays one longer.
const REQUESTS_MAX: Duration = Duration::from_secs(2);

/// The phases of a running node, and the tasks that end with it. Phases only move forward.
pub(crate) struct Life {
    started: Instant,
    stopping: CancellationToken,
    draining: CancellationToken,
    closed: CancellationToken,
    tasks: TaskTracker,
    requests: TaskTracker,
}

impl Life {
    /// Begins now.
    pub(crate) fn begin() -> Self {
        Life {
            started: Instant::now(),
            stopping: CancellationToken::new(),
            draining: CancellationToken::new(),
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            requests: TaskTracker::new(),
        }
    }

    /// Runs a task until it ends or the node closes.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let closed = self.closed.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Runs a request on a task of its own. It must end by itself after the replicas have stopped.
    pub(crate) fn spawn_request<T: Send + 'static>(
        &self,
        request: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.requests.spawn(request)
    }

    /// Milliseconds since the node started.
    pub(crate) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Begins the shutdown: the node is no longer ready, but still serves.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }

    /// Whether the shutdown has begun.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Waits until the shutdown begins.
    pub(crate) async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Stops accepting new requests.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether new requests are refused.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until new requests are refused.
    pub(crate) async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Ends the streams of other nodes and the node's own tasks, and waits for the latter.
    pub(crate) async fn close(&self) {
        self.closed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Waits for the requests in progress, for at most 2 s. The replicas have stopped.
    pub(crate) async fn requests_ended(&self) {
        self.requests.close();
        if timeout(REQUESTS_MAX, self.requests.wait()).await.is_err() {
            warn!(requests = self.requests.len(), "requests are still in progress, their clients get no answer");
        }
    }

    /// Waits until the node has closed its streams to other nodes.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    /// Shows that a closing node waits for its requests, and not for one that never ends.
    #[tokio::test(start_paused = true)]
    async fn closing_node_waits_for_requests() {
        let life = Life::begin();
        let last = Duration::from_millis(300);
        life.spawn_request(sleep(last));
        let began = Instant::now();
        life.requests_ended().await;
        assert_eq!(began.elapsed(), last);
        life.spawn_request(std::future::pending::<()>());
        life.requests_ended().await;
        assert!(began.elapsed() >= last + REQUESTS_MAX);
    }
}
