//! The open replicas of a node.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, RwLock};

use quorate_types::{GroupId, ReplicaId};

use crate::replica::Replica;

/// The open replicas of a node, by id.
#[derive(Default)]
pub(crate) struct Replicas(RwLock<BTreeMap<ReplicaId, Arc<Replica>>>);

impl Replicas {
    /// Adds a replica; false if one with its id is open already.
    pub(crate) fn insert(&self, replica: &Arc<Replica>) -> bool {
        let mut open = self.0.write().expect("only a broken invariant poisons this lock");
        match open.entry(replica.id()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(replica.clone());
                true
            }
        }
    }

    pub(crate) fn remove(&self, replica: ReplicaId) -> Option<Arc<Replica>> {
        self.0.write().expect("only a broken invariant poisons this lock").remove(&replica)
    }

    pub(crate) fn contains(&self, replica: ReplicaId) -> bool {
        self.0.read().expect("only a broken invariant poisons this lock").contains_key(&replica)
    }

    /// The replica with this id, if it is one of the group.
    pub(crate) fn find(&self, replica: ReplicaId, group: GroupId) -> Option<Arc<Replica>> {
        let open = self.0.read().expect("only a broken invariant poisons this lock");
        open.get(&replica).filter(|replica| replica.group() == group).cloned()
    }

    /// All of them, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Replica>> {
        self.0.read().expect("only a broken invariant poisons this lock").values().cloned().collect()
    }

    /// The replica of the group; of several, the one that leads.
    pub(crate) fn of_group(&self, group: GroupId) -> Option<Arc<Replica>> {
        self.all().into_iter().filter(|replica| replica.group() == group).max_by_key(|replica| replica.is_leader())
    }
}
