//! One replica's applied state, and how entries and snapshots change it.

use std::path::PathBuf;
use std::sync::Arc;

use quorate_types::peer::SnapshotMeta;
use quorate_types::state::{Head, StoredMembership};
use quorate_types::{Entry, Payload, ReplicaId};

use crate::draft::Draft;
use crate::machine::{Machine, Reply};
use crate::state::{Pinned, State, StateError, View, meta};

/// Makes a replica's machine from its state; kept, because an installed snapshot makes a new one.
type OpenMachine<M> = Box<dyn Fn(ReplicaId, &dyn View) -> Result<M, StateError> + Send + Sync>;

/// One replica's applied state. It has one owner, who applies; readers go through [`State::view`].
///
/// # Invariants
/// * Entries are applied in the order of the log, each once, without holes.
/// * The state's head names the last entry whose changes are in the state: both are in one batch.
/// * After an error nothing may be applied any more: machine and state may differ. The node stops.
pub struct Replica<M: Machine> {
    state: Arc<dyn State>,
    replica: ReplicaId,
    head: Head,
    membership: StoredMembership,
    machine: M,
    open_machine: OpenMachine<M>,
}

impl<M: Machine> Replica<M> {
    /// Reads what the state has of the replica; a replica without any state has a default [`Head`]. `open_machine` makes the
    /// machine from the state, now and again after every installed snapshot.
    pub fn open(
        state: Arc<dyn State>,
        replica: ReplicaId,
        open_machine: impl Fn(ReplicaId, &dyn View) -> Result<M, StateError> + Send + Sync + 'static,
    ) -> Result<Self, StateError> {
        let open_machine: OpenMachine<M> = Box::new(open_machine);
        let (head, membership, machine) = read(&*state, replica, &open_machine)?;
        Ok(Replica { state, replica, head, membership, machine, open_machine })
    }

    /// What the replica remembers of itself after the last entry applied.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The last membership applied.
    pub fn membership(&self) -> &StoredMembership {
        &self.membership
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Applies entries that follow the last one applied without a hole, as one batch, which readers see as a whole on return.
    /// Gives one reply an entry: none for a blank entry and for one of the membership. No entries: nothing happens.
    ///
    /// An error is corruption or failed I/O: the node stops.
    pub fn apply(&mut self, entries: &[Entry]) -> Result<Vec<Option<Reply>>, StateError> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut replies = Vec::with_capacity(entries.len());
        let mut membership = None;
        let mut head = self.head;
        let mut batch = None;
        let machine = &mut self.machine;
        self.state.view(&mut |view| {
            let mut draft = Draft::new(view, self.replica, head);
            for entry in entries {
                let expected = draft.head().applied.map_or(0, |applied| applied.index + 1);
                assert_eq!(entry.id.index, expected, "replica {} applies its log without holes", self.replica);
                replies.push(match &entry.payload {
                    Payload::Blank => None,
                    Payload::Normal(proposal) => Some(machine.apply(entry.id, &proposal.0, &mut draft)?),
                    Payload::Membership(members) => {
                        membership = Some(StoredMembership { at: Some(entry.id), members: members.clone() });
                        None
                    }
                });
                draft.head_mut().applied = Some(entry.id);
            }
            head = *draft.head();
            batch = Some(draft.into_batch(membership.as_ref()));
            Ok(())
        })?;
        self.state.write(self.replica, batch.expect("the view called back"))?;
        self.head = head;
        if let Some(membership) = membership {
            self.membership = membership;
        }
        self.machine.written();
        Ok(replies)
    }

    /// Holds the state as it is now, for a snapshot.
    pub fn pin(&self) -> Result<Box<dyn Pinned>, StateError> {
        self.state.pin(self.replica)
    }

    /// Replaces the whole state by a snapshot's files, which were written for this replica and hold exactly `meta`, and opens
    /// the machine again. Durable on return. Files that are not what they should be are refused with
    /// [`StateError::Snapshot`] and leave the state as it was.
    pub fn install(&mut self, files: &[PathBuf], meta: &SnapshotMeta) -> Result<(), StateError> {
        self.state.install(self.replica, files, meta)?;
        let (head, membership, machine) = read(&*self.state, self.replica, &self.open_machine)?;
        assert_eq!(head.applied, meta.applied, "the state checked the head before it installed the files");
        assert_eq!(membership, meta.membership, "the state checked the membership before it installed the files");
        (self.head, self.membership, self.machine) = (head, membership, machine);
        self.machine.written();
        Ok(())
    }
}

/// Reads a replica's state from one view.
fn read<M>(
    state: &dyn State,
    replica: ReplicaId,
    open_machine: &OpenMachine<M>,
) -> Result<(Head, StoredMembership, M), StateError> {
    let mut all = None;
    state.view(&mut |view| {
        all = Some((meta::head(view, replica)?, meta::membership(view, replica)?, open_machine(replica, view)?));
        Ok(())
    })?;
    Ok(all.expect("the view called back"))
}
