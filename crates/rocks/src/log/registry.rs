//! The replicas that have a log here, and those that were destroyed.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use quorate_types::{GroupId, ReplicaId};

use super::replica_log::{Operation, ReplicaLog};
use super::tail::TailBudget;
use quorate_machine::log::LogError;

/// The replicas of a node. The lock is held only for a look-up, so that replicas do not block each
/// other.
#[derive(Debug)]
pub(super) struct Registry {
    inner: RwLock<Inner>,
    budget: Arc<TailBudget>,
}

#[derive(Debug, Default)]
struct Inner {
    replicas: BTreeMap<ReplicaId, Arc<ReplicaLog>>,
    /// Takes eight bytes for each replica ever destroyed here.
    destroyed: HashSet<ReplicaId>,
}

impl Registry {
    /// Creates a registry of the replicas found on disk.
    pub(super) fn new(replicas: Vec<Arc<ReplicaLog>>, destroyed: HashSet<ReplicaId>, budget: Arc<TailBudget>) -> Self {
        let replicas: BTreeMap<_, _> = replicas.into_iter().map(|replica| (replica.id, replica)).collect();
        assert!(replicas.keys().all(|id| !destroyed.contains(id)), "a destroyed replica is not recovered");
        Registry { inner: RwLock::new(Inner { replicas, destroyed }), budget }
    }

    /// The replica, or [`LogError::NoReplica`].
    pub(super) fn get(&self, id: ReplicaId) -> Result<Arc<ReplicaLog>, LogError> {
        self.read().replicas.get(&id).cloned().ok_or(LogError::NoReplica(id))
    }

    /// All replicas, by id.
    pub(super) fn all(&self) -> Vec<Arc<ReplicaLog>> {
        self.read().replicas.values().cloned().collect()
    }

    /// Adds a replica and returns the operation to write; none if the replica exists durably.
    pub(super) fn create(&self, id: ReplicaId, group: GroupId) -> Result<Option<Operation>, LogError> {
        let mut inner = self.write();
        if inner.destroyed.contains(&id) {
            return Err(LogError::NoReplica(id));
        }
        let replica = inner
            .replicas
            .entry(id)
            .or_insert_with(|| Arc::new(ReplicaLog::new(id, group, self.budget.clone())))
            .clone();
        self.budget.share_among(inner.replicas.len());
        if replica.group != group {
            return Err(LogError::OtherGroup { replica: id, group: replica.group });
        }
        if replica.is_durable() { Ok(None) } else { replica.create().map(Some) }
    }

    /// Removes a replica, known or not, for good, and returns the operation to write; none if it
    /// was destroyed before.
    pub(super) fn destroy(&self, id: ReplicaId) -> Result<Option<Operation>, LogError> {
        let mut inner = self.write();
        if !inner.destroyed.insert(id) {
            return Ok(None);
        }
        let replica = inner.replicas.remove(&id);
        assert!(replica.as_ref().is_none_or(|replica| replica.id == id), "replica {id} is registered under its id");
        self.budget.share_among(inner.replicas.len());
        let unknown = || Arc::new(ReplicaLog::new(id, GroupId::default(), self.budget.clone()));
        replica.unwrap_or_else(unknown).destroy().map(Some)
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().expect(POISONED)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().expect(POISONED)
    }
}

/// A thread that finds the lock poisoned stops: its invariants no longer hold.
const POISONED: &str = "only a broken invariant poisons the registry's lock";
