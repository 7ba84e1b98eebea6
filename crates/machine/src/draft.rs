//! The changes of a batch of entries while they are made: an overlay over the state.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use quorate_types::ReplicaId;
use quorate_types::state::{Head, StoredMembership};

use crate::keys::{Space, is_put_once};
use crate::state::{Batch, StateError, View, Visit, meta};

/// What a machine sees and changes while it applies: the replica's state as it was before the batch, and on top of it everything
/// that the batch changed so far. It ends as one [`Batch`].
///
/// # Invariants
/// * Nothing outside sees a change before the whole batch is written.
/// * A `put` or a `delete` reads nothing.
pub struct Draft<'a> {
    base: &'a dyn View,
    replica: ReplicaId,
    head: Head,
    table: Overlay,
    data: Overlay,
}

/// Changed keys; `None` is deleted.
type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

impl<'a> Draft<'a> {
    /// A draft without changes over a replica's state, of which `head` is the head.
    pub fn new(base: &'a dyn View, replica: ReplicaId, head: Head) -> Self {
        Draft { base, replica, head, table: Overlay::new(), data: Overlay::new() }
    }

    /// The replica whose state this is.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// What the replica remembers of itself, as changed so far.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The same, to change it. `applied` is not the machine's business: the replica sets it after each entry.
    pub fn head_mut(&mut self) -> &mut Head {
        &mut self.head
    }

    /// The value of a key, as changed so far.
    pub fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        match self.overlay(space).get(key) {
            Some(changed) => Ok(changed.clone()),
            None => self.base.get(self.replica, space, key),
        }
    }

    /// The key holds this value from now on. Not in [`Space::Meta`], which is the replica's own. The record of a session is put once.
    pub fn put(&mut self, space: Space, key: Vec<u8>, value: Vec<u8>) {
        self.overlay_mut(space).insert(key, Some(value));
    }

    /// The key holds nothing from now on.
    pub fn delete(&mut self, space: Space, key: Vec<u8>) {
        let overlay = self.overlay_mut(space);
        if is_put_once(space, &key) && overlay.get(&key).is_some_and(Option::is_some) {
            // It was put here, so the state never had it.
            overlay.remove(&key);
        } else {
            overlay.insert(key, None);
        }
    }

    /// Visits the keys that start with `prefix`, as changed so far, in order, until told to stop. Keys are given whole, the
    /// prefix included.
    pub fn scan(&self, space: Space, prefix: &[u8], visit: Visit<'_>) -> Result<(), StateError> {
        let mut changed = self
            .overlay(space)
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .peekable();
        let mut stopped = false;
        self.base.scan(self.replica, space, prefix, &mut |key, value| {
            // What was changed before this key in order comes first; a change of this very key replaces it.
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

    /// The changes as one batch, with the head, and with the membership if it changed.
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
