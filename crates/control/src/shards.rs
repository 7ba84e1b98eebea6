//! The open shard replicas of a node, looked up by every request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use quorate_raft::Shard;
use quorate_types::{ReplicaId, ShardId};

/// The open shard replicas of a node. Lookups take no lock; changes copy the table, which is small.
#[derive(Default)]
pub struct OpenShards {
    groups: ArcSwap<BTreeMap<ShardId, Shard>>,
    all_stored_are_open: AtomicBool,
}

impl OpenShards {
    /// The shard's replica on this node, if it is open.
    pub fn get(&self, shard: ShardId) -> Option<Shard> {
        self.groups.load().get(&shard).cloned()
    }

    /// All open replicas, by shard.
    pub fn all(&self) -> Arc<BTreeMap<ShardId, Shard>> {
        self.groups.load_full()
    }

    /// Adds a replica.
    pub(crate) fn insert(&self, shard: ShardId, group: Shard) {
        self.groups.rcu(|groups| {
            let mut groups = BTreeMap::clone(groups);
            groups.insert(shard, group.clone());
            groups
        });
    }

    /// Removes the shard's entry if it is this replica: a newer replica of the shard stays.
    pub(crate) fn remove(&self, shard: ShardId, replica: ReplicaId) {
        self.groups.rcu(|groups| {
            let mut groups = BTreeMap::clone(groups);
            if groups.get(&shard).is_some_and(|group| group.replica().id() == replica) {
                groups.remove(&shard);
            }
            groups
        });
    }

    /// Drops all replicas, so that their tasks end.
    pub fn clear(&self) {
        self.groups.store(Arc::default());
    }

    /// Marks every replica that was stored when the node started as open.
    pub(crate) fn set_recovered(&self) {
        self.all_stored_are_open.store(true, Ordering::Release);
    }

    /// Whether every replica that was stored when the node started is open.
    pub fn is_recovered(&self) -> bool {
        self.all_stored_are_open.load(Ordering::Acquire)
    }
}
