//! The reconciler's notice board: how far operations are, and a bell that starts the next round.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_topology::Progress;
use quorate_types::operation::OperationId;
use tokio::sync::Notify;

/// Reports the progress of operations as of the last round on this node, and starts rounds early.
#[derive(Default)]
pub struct ReconcilerHandle {
    progress: Mutex<BTreeMap<OperationId, Progress>>,
    kick: Notify,
}

impl ReconcilerHandle {
    /// The progress of an operation as of the last round here; empty if this node does not
    /// reconcile.
    pub fn progress(&self, operation: OperationId) -> Progress {
        self.lock().get(&operation).cloned().unwrap_or_default()
    }

    /// Starts the next round without waiting for the pause to end: an operator asked for something.
    pub fn kick(&self) {
        self.kick.notify_one();
    }

    /// Waits until [`kick`](Self::kick) is called.
    pub(crate) async fn kicked(&self) {
        self.kick.notified().await;
    }

    /// Replaces the progress of all operations.
    pub(crate) fn publish(&self, progress: BTreeMap<OperationId, Progress>) {
        *self.lock() = progress;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OperationId, Progress>> {
        // The map is replaced as a whole, so a poisoned lock still guards a consistent one.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
