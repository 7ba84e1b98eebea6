//! The state machine of a replica, as openraft sees it: applies committed entries, reports durable
//! state, produces and installs snapshots.
//!
//! ```text
//!   durable mark   openraft purges the log only below its last *snapshot*. The state store has no
//!                  log of its own, so only a flush makes a purge safe: after it,
//!                  `retention` records the flushed entry in `Progress` and asks openraft for a
//!                  "snapshot", which is that mark and holds no data.
//!   transfer       when a follower needs purged entries, openraft asks for the current snapshot:
//!                  the pinned state, if a slot is free (`snapshot_slots`). Its files are written
//!                  while the network sends them.
//! ```

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use quorate_machine::state::{State, StateError, View};
use quorate_machine::{Machine, ReplicaState};
use quorate_testpoints::{FailPoint, fail_point};
use quorate_types::{Entry, GroupId, Payload, ReplicaId};

use crate::openraft_types::{self as raft, Applied, LogId, SnapshotMeta, TypeConfig};
use crate::progress::Progress;
use crate::snapshot_data::{MarkBuilder, Pin, SnapshotData};
use crate::snapshot_slots::SnapshotsOut;
use crate::{blocking, convert};

/// openraft's handle to the core of one replica.
pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// Opens the machine of a replica from its state.
pub(crate) type OpenMachine = Box<dyn Fn(ReplicaId, &dyn View) -> Result<Box<dyn Machine>, StateError> + Send + Sync>;

/// Ends the process, with the reason.
pub(crate) type OnFatal = Arc<dyn Fn(String) + Send + Sync>;

/// Bounds of one batch to the state store: large enough to share its cost, small enough not to
/// delay readers and other groups.
const APPLY_ENTRIES_MAX: usize = 256;
const APPLY_BYTES_MAX: usize = 4 << 20;

/// The state machine of one replica.
pub(crate) struct StateMachine {
    replica: ReplicaState<Box<dyn Machine>>,
    progress: Progress,
    slots: GroupSlots,
    on_fatal: OnFatal,
}

/// The slots of outgoing snapshots, as one group claims them.
pub(crate) struct GroupSlots {
    pub(crate) group: GroupId,
    pub(crate) snapshots: Arc<SnapshotsOut>,
}

impl StateMachine {
    /// Opens the state machine of a replica from its state.
    pub(crate) fn open(
        state: Arc<dyn State>,
        replica: ReplicaId,
        open_machine: OpenMachine,
        progress: Progress,
        slots: GroupSlots,
        on_fatal: OnFatal,
    ) -> Result<Self, StateError> {
        let replica = ReplicaState::open(state, replica, open_machine)?;
        let machine = StateMachine { replica, progress, slots, on_fatal };
        machine.publish();
        // After a start the state is exactly the last durable one.
        machine.progress.set_flushed(machine.progress.applied().snapshot_meta());
        Ok(machine)
    }

    fn publish(&self) {
        self.progress.set_applied(self.replica.head(), self.replica.membership());
    }

    /// Ends the process: a state that cannot be written or read must not be served.
    fn fatal(&self, doing: &str, error: StateError) -> io::Error {
        (self.on_fatal)(format!("{doing}: {error}"));
        io::Error::other(error)
    }

    fn apply_chunk(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        fail_point(FailPoint::EntriesUnapplied);
        let applied = {
            let _permit = self.progress.write_permit()?;
            self.replica.apply(&chunk.entries)
        };
        let replies = applied.map_err(|error| self.fatal("applying entries", error))?;
        assert_eq!(replies.len(), chunk.responders.len(), "the machine replies once per entry");
        fail_point(FailPoint::EntriesApplied);
        self.publish();
        if chunk.entries.iter().any(is_joint) {
            fail_point(FailPoint::JointChangeApplied);
        }
        let head = self.replica.head();
        for (reply, responder) in replies.into_iter().zip(chunk.responders.drain(..)) {
            if let Some(responder) = responder {
                responder.send(Applied { reply, head });
            }
        }
        chunk.entries.clear();
        chunk.bytes = 0;
        Ok(())
    }
}

/// Whether the entry begins a change of voters that a later entry finishes.
fn is_joint(entry: &Entry) -> bool {
    matches!(&entry.payload, Payload::Membership(members) if members.voters.len() > 1)
}

/// Entries collected for one batch, with their responders.
#[derive(Default)]
struct Chunk {
    entries: Vec<Entry>,
    responders: Vec<Option<openraft::storage::ApplyResponder<TypeConfig>>>,
    bytes: usize,
}

impl Chunk {
    fn push(&mut self, (entry, responder): EntryResponder<TypeConfig>) {
        let entry = convert::our_entry(entry);
        self.bytes += entry.size_bytes();
        self.entries.push(entry);
        self.responders.push(responder);
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= APPLY_ENTRIES_MAX || self.bytes >= APPLY_BYTES_MAX
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = MarkBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, raft::StoredMembership)> {
        let applied = self.replica.head().applied.map(convert::log_id);
        Ok((applied, convert::stored_membership(self.replica.membership())))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut chunk = Chunk::default();
        while let Some(item) = entries.next().await {
            chunk.push(item?);
            if chunk.is_full() {
                self.apply_chunk(&mut chunk)?;
            }
        }
        if !chunk.entries.is_empty() {
            self.apply_chunk(&mut chunk)?;
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<MarkBuilder> {
        Some(MarkBuilder::new(self.progress.clone()))
    }

    async fn get_snapshot_builder(&mut self) -> MarkBuilder {
        MarkBuilder::new(self.progress.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let SnapshotData::Staged(received) = snapshot else {
            return Err(io::Error::other("only a received snapshot can be installed"));
        };
        let meta = convert::our_snapshot_meta(meta);
        // The files are verified (`groups::dispatch`): this is only the ingestion. It flushes
        // overlapping memtables, which blocks: the other tasks of this thread move to another one.
        let installed = blocking::in_place(|| {
            let _permit = self.progress.write_permit()?;
            Ok::<_, io::Error>(self.replica.install(received.files(), &meta))
        })?;
        installed.map_err(|error| self.fatal("installing a snapshot", error))?;
        self.publish();
        self.progress.count_installed_snapshot();
        self.progress.set_flushed(meta);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<Snapshot<raft::LeaderId, u64, raft::NodeRef, SnapshotData>>> {
        if self.replica.head().applied.is_none() {
            return Ok(None);
        }
        // The slot first, and with it the hold on the log: the log above the pin stays.
        let Some(slot) = self.slots.snapshots.claim(self.slots.group) else {
            let meta = convert::snapshot_meta(&self.progress.flushed());
            return Ok(Some(Snapshot { meta, snapshot: SnapshotData::NoSlot }));
        };
        let pinned = self.replica.pin().map_err(|error| self.fatal("pinning a snapshot", error))?;
        let meta = convert::snapshot_meta(pinned.meta());
        Ok(Some(Snapshot { meta, snapshot: SnapshotData::Pinned(Pin::new(pinned, slot)) }))
    }
}
