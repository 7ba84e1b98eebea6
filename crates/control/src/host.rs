//! The process or simulated machine that a node's control plane runs on.

use std::sync::Arc;

use futures::future::BoxFuture;
use quorate_types::topology::Topology;

/// A node's state outside of its replicas, as of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// Milliseconds since the node started.
    pub uptime_ms: u64,
    /// Free bytes on the node's disk.
    pub disk_free_bytes: u64,
    /// Free bytes above the disk's reserve.
    pub disk_room_bytes: u64,
    /// The disk is below its reserve: puts are refused.
    pub disk_full: bool,
    /// The node is shutting down.
    pub is_stopping: bool,
}

/// The process under the control plane: a server in production, a simulated machine in tests.
pub trait Host: Send + Sync + 'static {
    /// The node's state outside of its replicas. Cheap: it is read with every batch of writes.
    fn vitals(&self) -> Vitals;

    /// Records a topology, durably on return. A replica is created only after the topology that
    /// places it here is on record, so that a restart never destroys it for being absent from an
    /// older map. An implementation that cannot record fail-stops.
    fn record_topology(&self, topology: Arc<Topology>) -> BoxFuture<'_, ()>;

    /// Ends the process: the disk or the state is in doubt. May return where the process is
    /// simulated; the caller then ends its task.
    fn fail_stop(&self, reason: &str);
}
