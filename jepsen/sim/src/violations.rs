//! The violations of a run.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

/// A promise of the product that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Violation(pub(crate) String);

/// The most violations that a run keeps.
const VIOLATIONS_MAX: usize = 20;

/// The violations of a run. The run ends soon after the first one, because later ones follow from
/// it.
#[derive(Default)]
pub(crate) struct Violations {
    seen: Mutex<Vec<String>>,
    added: Notify,
}

impl Violations {
    /// Adds a violation.
    pub(crate) fn add(&self, line: String) {
        let mut seen = self.lock();
        if seen.len() < VIOLATIONS_MAX {
            seen.push(line);
        }
        self.added.notify_one();
    }

    /// Waits for the first violation.
    pub(crate) async fn first(&self) {
        self.added.notified().await;
    }

    /// All violations so far.
    pub(crate) fn list(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.seen.lock().expect("no holder of this lock panics")
    }
}
