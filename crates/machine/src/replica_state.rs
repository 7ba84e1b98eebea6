//! One replica's applied state, and its changes by entries and snapshots.

use std::path::PathBuf;
use std::sync::Arc;

use quorate_types::peer::SnapshotMeta;
use quorate_types::state::{Head, StoredMembership};
use quorate_types::{Entry, Payload, ReplicaId};

use crate::draft::Draft;
use crate::machine::{Machine, Reply};
use crate::state::{Pinned, State, StateError, View, meta};

/// Creates a replica's machine from its state. Kept, because each installed snapshot needs a new
/// machine.
type OpenMachine<M> = Box<dyn Fn(ReplicaId, &dyn View) -> Result<M, StateError> + Send + Sync>;

/// One replica's applied state. A single owner applies entries; readers go through [`State::view`].
///
/// # Invariants
/// * Entries are applied in log order, each exactly once, without holes.
/// * The state's head names the last entry whose changes are in the state: one batch contains both.
/// * After an error, nothing may be applied: machine and state may differ. The node stops.
pub struct ReplicaState<M: Machine> {
    state: Arc<dyn State>,
    replica: ReplicaId,
    head: Head,
    membership: StoredMembership,
    machine: M,
    open_machine: OpenMachine<M>,
}

impl<M: Machine> ReplicaState<M> {
    /// Opens a replica on its state; without any state, its [`Head`] is the default. `open_machine`
    /// creates the machine from the state, now and after each installed snapshot.
    pub fn open(
        state: Arc<dyn State>,
        replica: ReplicaId,
        open_machine: impl Fn(ReplicaId, &dyn View) -> Result<M, StateError> + Send + Sync + 'static,
    ) -> Result<Self, StateError> {
        let open_machine: OpenMachine<M> = Box::new(open_machine);
        let (head, membership, machine) = read(&*state, replica, &open_machine)?;
        Ok(ReplicaState { state, replica, head, membership, machine, open_machine })
    }

    /// The head after the last applied entry.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The last applied membership.
    pub fn membership(&self) -> &StoredMembership {
        &self.membership
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Applies entries that follow the last applied one without a hole, as one batch, which is
    /// visible to readers on return. Returns one reply per entry: none for a blank or a membership
    /// entry. Without entries, does nothing.
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
        assert_eq!(head.applied, entries.last().map(|entry| entry.id), "the batch names its last entry");
        assert!(head.revision >= self.head.revision, "a revision only grows");
        assert!(head.clock_ms >= self.head.clock_ms, "the shard clock never goes back");
        self.state.write(self.replica, batch.expect("the view called back"))?;
        self.head = head;
        if let Some(membership) = membership {
            self.membership = membership;
        }
        self.machine.written();
        Ok(replies)
    }

    /// Pins the current state for a snapshot.
    pub fn pin(&self) -> Result<Box<dyn Pinned>, StateError> {
        self.state.pin(self.replica)
    }

    /// Replaces the whole state with a snapshot's files, which must have been written for this
    /// replica, contain exactly `meta` and are verified ([`State::verify`]), and opens a new
    /// machine. Durable on return.
    pub fn install(&mut self, files: &[PathBuf], meta: &SnapshotMeta) -> Result<(), StateError> {
        self.state.install(self.replica, files)?;
        let (head, membership, machine) = read(&*self.state, self.replica, &self.open_machine)?;
        assert_eq!(head.applied, meta.applied, "the installed head is the announced one");
        assert_eq!(membership, meta.membership, "the installed membership is the announced one");
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
