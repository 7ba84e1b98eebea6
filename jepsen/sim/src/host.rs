//! The simulated machine of a node, as the product's control plane sees it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use futures::future::BoxFuture;
use quorate_control::{Host, Vitals};
use quorate_types::NodeId;
use quorate_types::clock::Clock;
use quorate_types::topology::Topology;
use tokio::time::Instant;

use crate::disk::Life;
use crate::world::World;

/// The start of simulated time, in milliseconds since 1970.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// Free bytes on every simulated disk.
const DISK_FREE_BYTES: u64 = 1 << 40;

/// A node's machine in one of its lives.
pub(crate) struct Machine {
    world: Weak<World>,
    node: NodeId,
    life: Arc<Life>,
    started: Instant,
}

impl Machine {
    /// A machine that starts now.
    pub(crate) fn new(world: Weak<World>, node: NodeId, life: Arc<Life>) -> Self {
        Machine { world, node, life, started: Instant::now() }
    }

    /// The world, or none after a crash: a dead machine records and reports nothing.
    fn world(&self) -> Option<Arc<World>> {
        self.world.upgrade().filter(|_| self.life.is_alive())
    }
}

impl Host for Machine {
    fn vitals(&self) -> Vitals {
        Vitals {
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).expect("a run takes seconds"),
            disk_free_bytes: DISK_FREE_BYTES,
            disk_room_bytes: DISK_FREE_BYTES,
            disk_full: false,
            is_stopping: !self.life.is_alive(),
        }
    }

    fn record_topology(&self, topology: Arc<Topology>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(world) = self.world() {
                world.record_topology(self.node, topology);
            }
        })
    }

    fn fail_stop(&self, reason: &str) {
        if let Some(world) = self.world() {
            world.violation(format!("node {} stops itself: {reason}", self.node));
        }
    }
}

/// A node's wall clock: simulated time plus an error.
pub(crate) struct NodeClock {
    began: Instant,
    offset_ms: Arc<AtomicI64>,
}

impl NodeClock {
    /// A clock whose error is the current value of `offset_ms`.
    pub(crate) fn new(offset_ms: Arc<AtomicI64>) -> Self {
        NodeClock { began: Instant::now(), offset_ms }
    }
}

impl Clock for NodeClock {
    fn now_ms(&self) -> u64 {
        let since = u64::try_from(self.began.elapsed().as_millis()).expect("a run takes seconds");
        EPOCH_MS.saturating_add(since).saturating_add_signed(self.offset_ms.load(Ordering::Relaxed))
    }
}
