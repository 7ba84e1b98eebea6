//! The newest topology that a node's replica of the topology group has applied, for the rest of the
//! node.

use std::sync::{Arc, Mutex, PoisonError};

use quorate_types::topology::Topology;

type OnChange = Box<dyn Fn(Arc<Topology>) + Send + Sync>;

/// The newest published topology, and the callback for the next ones.
///
/// # Invariants
/// * A published topology is applied and therefore committed: it is safe to act on.
/// * Revisions only grow. After a crash the state replays its log, and topologies of the replay are
///   not published again.
pub struct Published {
    latest: Mutex<Option<Arc<Topology>>>,
    on_change: OnChange,
}

impl Published {
    /// Starts without a topology. `on_change` is called with every newer topology, in order, on the
    /// thread that applies: it must be short and not block. It may call [`Published::latest`].
    pub fn new(on_change: impl Fn(Arc<Topology>) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Published { latest: Mutex::new(None), on_change: Box::new(on_change) })
    }

    /// The newest topology; none until the cluster is bootstrapped, as far as this replica knows.
    pub fn latest(&self) -> Option<Arc<Topology>> {
        self.lock().clone()
    }

    /// Publishes a topology unless the newest one has the same or a later revision.
    pub(crate) fn publish(&self, topology: Topology) {
        let topology = Arc::new(topology);
        {
            let mut latest = self.lock();
            if latest.as_ref().is_some_and(|latest| latest.revision >= topology.revision) {
                return;
            }
            *latest = Some(topology.clone());
        }
        (self.on_change)(topology);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Topology>>> {
        // A holder that panicked left the old or the new value, and both are complete.
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Published").field("revision", &self.latest().map(|latest| latest.revision)).finish()
    }
}
