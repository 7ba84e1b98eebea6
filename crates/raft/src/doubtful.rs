//! The doubtful replicas of a node: closed, reported to the reconciler, and kept until the topology
//! has replaced them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_types::{GroupId, ReplicaId};

use crate::replica::Replica;

/// The doubtful replicas of a node, until they are destroyed.
#[derive(Default)]
pub(crate) struct DoubtfulReplicas(Mutex<BTreeMap<ReplicaId, Known>>);

struct Known {
    group: GroupId,
    /// The replica, if it was open in this life of the node.
    replica: Option<Arc<Replica>>,
    /// The mark in the log is durable.
    marked: bool,
}

impl DoubtfulReplicas {
    /// Adds a replica that is silent already; its mark is not durable yet.
    pub(crate) fn add_open(&self, replica: Arc<Replica>) {
        assert!(replica.is_doubtful(), "only a silent replica is recorded as doubtful");
        let known = Known { group: replica.group(), replica: Some(replica.clone()), marked: false };
        self.lock().insert(replica.id(), known);
    }

    /// Adds a replica that a start of the node found doubtful; its mark is durable.
    pub(crate) fn add_found(&self, replica: ReplicaId, group: GroupId) {
        self.lock().insert(replica, Known { group, replica: None, marked: true });
    }

    /// The replica's mark is durable.
    pub(crate) fn set_marked(&self, replica: ReplicaId) {
        if let Some(known) = self.lock().get_mut(&replica) {
            known.marked = true;
        }
    }

    /// Forgets a replica that is being destroyed. Returns it if it was open in this life.
    pub(crate) fn remove(&self, replica: ReplicaId) -> Option<Arc<Replica>> {
        self.lock().remove(&replica)?.replica
    }

    pub(crate) fn contains(&self, replica: ReplicaId) -> bool {
        self.lock().contains_key(&replica)
    }

    /// Whether a replica is doubtful and its mark is durable. Only then its node says so: a leader
    /// that has heard it does not tell the replica of its lost entries again, and a mark that a
    /// crash took away would be lost for good.
    pub(crate) fn is_marked(&self, replica: ReplicaId) -> bool {
        self.lock().get(&replica).is_some_and(|known| known.marked)
    }

    /// Those whose mark is durable, with their groups, by id.
    pub(crate) fn marked(&self) -> Vec<(ReplicaId, GroupId)> {
        self.lock().iter().filter(|(_, known)| known.marked).map(|(id, known)| (*id, known.group)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Known>> {
        self.0.lock().expect("only a broken invariant poisons this lock")
    }
}
