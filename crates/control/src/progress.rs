//! The reconciler's notice board: how far operations are, the reports that it plans on, and a bell
//! that starts the next round.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_topology::{Progress, Reports};
use quorate_types::operation::OperationId;
use tokio::sync::Notify;

/// Reports the progress of operations as of the last round on this node, and starts rounds early.
#[derive(Default)]
pub struct ReconcilerHandle {
    last: Mutex<Round>,
    kick: Notify,
}

/// The results of a round.
#[derive(Default)]
struct Round {
    progress: BTreeMap<OperationId, Progress>,
    reports: Arc<Reports>,
}

impl ReconcilerHandle {
    /// The progress of an operation as of the last round here; empty if this node does not
    /// reconcile.
    pub fn progress(&self, operation: OperationId) -> Progress {
        self.lock().progress.get(&operation).cloned().unwrap_or_default()
    }

    /// The reports of the nodes as of the last round here; empty if this node does not reconcile.
    pub fn reports(&self) -> Arc<Reports> {
        self.lock().reports.clone()
    }

    /// Starts the next round without waiting for the pause to end: an operator asked for something.
    pub fn kick(&self) {
        self.kick.notify_one();
    }

    /// Waits until [`kick`](Self::kick) is called.
    pub(crate) async fn kicked(&self) {
        self.kick.notified().await;
    }

    /// Replaces the progress of all operations, and the reports.
    pub(crate) fn publish(&self, progress: BTreeMap<OperationId, Progress>, reports: Reports) {
        *self.lock() = Round { progress, reports: Arc::new(reports) };
    }

    fn lock(&self) -> MutexGuard<'_, Round> {
        // The round is replaced as a whole, so a poisoned lock still guards a consistent one.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
