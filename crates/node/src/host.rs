//! The server process as the control plane sees it.

use std::sync::Arc;

use futures::future::BoxFuture;
use quorate_control::{Host, Vitals};
use quorate_types::topology::Topology;
use tracing::debug;

use crate::data_dir::DataDir;
use crate::disk::Disk;
use crate::fatal::fail_stop;
use crate::life::Life;

/// The server process as the control plane sees it.
pub(crate) struct Process {
    /// The phases of the process.
    pub(crate) life: Arc<Life>,
    /// The free space of its disk.
    pub(crate) disk: Arc<Disk>,
    /// Its data directory.
    pub(crate) data: Arc<DataDir>,
}

impl Host for Process {
    fn vitals(&self) -> Vitals {
        Vitals {
            uptime_ms: self.life.uptime_ms(),
            disk_free_bytes: self.disk.free_bytes(),
            disk_room_bytes: self.disk.room_bytes(),
            disk_full: self.disk.is_full(),
            is_stopping: self.life.is_stopping(),
        }
    }

    fn record_topology(&self, topology: Arc<Topology>) -> BoxFuture<'_, ()> {
        let data = self.data.clone();
        Box::pin(async move {
            match tokio::task::spawn_blocking(move || data.record_topology(&topology)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => fail_stop(&error.to_string()),
                // The runtime is stopping, and the node with it.
                Err(error) => debug!(%error, "topology not recorded"),
            }
        })
    }

    fn fail_stop(&self, reason: &str) {
        fail_stop(reason);
    }
}
