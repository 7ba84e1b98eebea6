//! A running node: the product's control plane over a simulated disk, network and machine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_control::Plane;
use quorate_raft::{Groups, Replica, Shard};
use quorate_types::{NodeId, ShardId};
use tokio_util::task::AbortOnDropHandle;

use crate::disk::{Life, Speed};

/// A running node.
pub(crate) struct RunningNode {
    pub(crate) node: NodeId,
    pub(crate) life: Arc<Life>,
    pub(crate) speed: Arc<Speed>,
    /// The product's control plane of the node.
    pub(crate) plane: Plane,
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
}

impl RunningNode {
    /// A node in one of its lives, without tasks.
    pub(crate) fn new(node: NodeId, life: Arc<Life>, speed: Arc<Speed>, plane: Plane) -> Self {
        RunningNode { node, life, speed, plane, tasks: Mutex::default() }
    }

    pub(crate) fn groups(&self) -> &Groups {
        &self.plane.store.groups
    }

    pub(crate) fn topology_group(&self) -> Option<Arc<Replica>> {
        self.plane.store.topology_group()
    }

    pub(crate) fn shard(&self, shard: ShardId) -> Option<Shard> {
        self.plane.store.shards.get(shard)
    }

    pub(crate) fn shards(&self) -> Arc<BTreeMap<ShardId, Shard>> {
        self.plane.store.shards.all()
    }

    /// Runs a task until it ends or the node crashes.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks().push(AbortOnDropHandle::new(tokio::spawn(task)));
    }

    /// Aborts the tasks and drops the replicas, which are unreachable afterwards.
    pub(crate) fn drop_tasks(&self) {
        self.tasks().clear();
        self.plane.store.release_replicas();
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<AbortOnDropHandle<()>>> {
        self.tasks.lock().expect("no holder of this lock panics")
    }
}
