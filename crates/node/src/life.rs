//! The phases of a running node: serving, stopping, draining, closed.

use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The phases of a running node, and the tasks that end with it. Phases only move forward.
pub(crate) struct Life {
    started: Instant,
    stopping: CancellationToken,
    draining: CancellationToken,
    closed: CancellationToken,
    tasks: TaskTracker,
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

    /// Waits until the node has closed its streams to other nodes.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}
