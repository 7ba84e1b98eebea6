//! The uncommitted changes of a batch of entries: an overlay over the state.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use quorate_types::ReplicaId;
use quorate_types::state::{Head, StoredMembership};

use crate::keys::{Space, is_put_once};
use crate::state::{Batch, StateError, View, Visit, meta};

/// A machine's view of the state while it applies entries: the replica's state before the batch,
/// overlaid with the batch's changes so far. Becomes one [`Batch`].
///
/// # Invariants
/// * No change is visible outside before the whole batch is written (held by the test
///   `head_and_records_come_from_one_point_in_time`).
/// * `put` and `delete` read nothing (held by the test `unconditional_put_reads_nothing`).
pub struct Draft<'a> {
    base: &'a dyn View,
    replica: ReplicaId,
    head: Head,
    table: Overlay,
    data: Overlay,
}

/// Changed keys; `None` means deleted.
type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

impl<'a> Draft<'a> {
    /// Creates a draft without changes over a replica's state with this head.
    pub fn new(base: &'a dyn View, replica: ReplicaId, head: Head) -> Self {
        Draft { base, replica, head, table: Overlay::new(), data: Overlay::new() }
    }

    /// The replica.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The head, including the changes so far.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The head, for changing it. `applied` belongs to the replica, which sets it after each entry.
    pub fn head_mut(&mut self) -> &mut Head {
        &mut self.head
    }

    /// The value of a key, including the changes so far.
    pub fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        match self.overlay(space).get(key) {
            Some(changed) => Ok(changed.clone()),
            None => self.base.get(self.replica, space, key),
        }
    }

    /// Sets the value of a key. [`Space::Meta`] is the replica's own, so not allowed here. A
    /// session's record must be put only once.
    pub fn put(&mut self, space: Space, key: Vec<u8>, value: Vec<u8>) {
        let put_once = is_put_once(space, &key);
        let old = self.overlay_mut(space).insert(key, Some(value));
        assert!(!put_once || old.is_none(), "a session's record is put once");
    }

    /// Deletes a key.
    pub fn delete(&mut self, space: Space, key: Vec<u8>) {
        let overlay = self.overlay_mut(space);
        if is_put_once(space, &key) && overlay.get(&key).is_some_and(Option::is_some) {
            // The batch itself put the key, so the state never had it.
            overlay.remove(&key);
        } else {
            overlay.insert(key, None);
        }
    }

    /// Visits all keys with this prefix in order, including the changes so far, until `visit`
    /// breaks. Keys are passed whole, with the prefix.
    pub fn scan(&self, space: Space, prefix: &[u8], visit: Visit<'_>) -> Result<(), StateError> {
        let mut changed = self
            .overlay(space)
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .peekable();
        let mut stopped = false;
        self.base.scan(self.replica, space, prefix, &mut |key, value| {
            // Changed keys before this key come first. A change of this key replaces its value.
            while let Some((new_key, new)) = changed.next_if(|(new_key, _)| new_key.as_slice() <= key) {
                if let Some(new) = new
                    && visit(new_key, new).is_break()
                {
                    stopped = true;
                    return ControlFlow::Break(());
                }
                if new_key.as_slice() == key {
                    return ControlFlow::Continue(());
                }
            }
            let flow = visit(key, value);
            stopped = flow.is_break();
            flow
        })?;
        if stopped {
            return Ok(());
        }
        for (key, value) in changed {
            if let Some(value) = value
                && visit(key, value).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// Converts the changes into one batch with the head and, if it changed, the membership.
    pub fn into_batch(self, membership: Option<&StoredMembership>) -> Batch {
        let mut operations = Vec::with_capacity(self.table.len() + self.data.len() + 2);
        operations.extend(self.table.into_iter().map(|(key, value)| (Space::Table, key, value)));
        operations.extend(self.data.into_iter().map(|(key, value)| (Space::Data, key, value)));
        operations.push(meta::put_head(&self.head));
        operations.extend(membership.map(meta::put_membership));
        Batch { operations }
    }

    fn overlay(&self, space: Space) -> &Overlay {
        match space {
            Space::Table => &self.table,
            Space::Data => &self.data,
            Space::Meta => panic!("the meta space is the replica's own; the head has its own methods"),
        }
    }

    fn overlay_mut(&mut self, space: Space) -> &mut Overlay {
        match space {
            Space::Table => &mut self.table,
            Space::Data => &mut self.data,
            Space::Meta => panic!("the meta space is the replica's own; the head has its own methods"),
        }
    }
}
