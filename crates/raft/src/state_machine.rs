//! A replica's state machine as openraft sees it: applies committed entries, marks what is durable, gives and takes snapshots.
//!
//! ```text
//!   purge mark   openraft purges the log below its last *snapshot*. The state store has no log of its own, so what makes a
//!                purge safe is a flush: after one, the node-wide scheduler (retention) puts what was flushed into `Flushed` and
//!                asks openraft for a "snapshot", which is that mark and no data.
//!   transfer     When a follower needs entries that are gone, openraft asks for the current snapshot: the pinned state, whose
//!                files are written when the network sends them.
//! ```

use std::any::Any;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use quorate_machine::state::{Pinned, StateError};
use quorate_machine::{Machine, Replica};
use quorate_testpoints::fail_point;
use quorate_types::state::{Head, StoredMembership};
use quorate_types::{Entry, Payload, peer};

use crate::openraft_types::{self as raft, LogId, Reply, SnapshotMeta, TypeConfig};
use crate::{blocking, convert};

/// How much is applied in one batch of the state store: enough to share its cost, little enough that readers and other groups
/// are not kept waiting.
const APPLY_ENTRIES_MAX: usize = 256;
const APPLY_BYTES_MAX: usize = 4 << 20;

/// What a snapshot is made of, in its three lives.
pub(crate) enum SnapshotData {
    /// Only says what is durable; there is no data to send.
    Mark,
    /// The state at one point in time, held until it was sent.
    Pinned(Box<dyn Pinned>),
    /// Received, verified and durable files.
    Staged(Received),
}

/// The files of a snapshot that was received: verified, durable, and consumed when it is installed.
pub struct Received {
    files: Vec<PathBuf>,
    /// Keeps the files where they are.
    _keep: Box<dyn Any + Send + Sync>,
}

impl Received {
    /// These files. `keep` is dropped when the snapshot was installed, or nobody will install it any more: an installation may outlive
    /// the call that asked for it, where the replica is destroyed meanwhile.
    pub fn new(files: Vec<PathBuf>, keep: impl Any + Send + Sync) -> Self {
        Received { files, _keep: Box::new(keep) }
    }
}

/// What is applied here, for everybody but the state machine itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct AppliedState {
    pub(crate) head: Head,
    pub(crate) membership: Arc<StoredMembership>,
    pub(crate) snapshots_installed: u64,
}

impl AppliedState {
    pub(crate) fn snapshot_meta(&self) -> peer::SnapshotMeta {
        peer::SnapshotMeta { applied: self.head.applied, membership: (*self.membership).clone() }
    }
}

/// Shared between a replica's state machine and its group.
#[derive(Clone, Default)]
pub(crate) struct Progress {
    applied: Arc<Mutex<AppliedState>>,
    flushed: Arc<Mutex<peer::SnapshotMeta>>,
    /// Held while the state is written; true once the replica is about to be destroyed.
    retired: Arc<Mutex<bool>>,
}

impl Progress {
    /// Nothing is written to the state from here on: what would come late would outlive the replica.
    pub(crate) fn retire(&self) {
        *lock(&self.retired) = true;
    }

    /// The right to write to the state, unless the replica is about to be destroyed.
    fn writing(&self) -> io::Result<MutexGuard<'_, bool>> {
        let retired = lock(&self.retired);
        if *retired { Err(io::Error::other("the replica is destroyed")) } else { Ok(retired) }
    }

    pub(crate) fn applied(&self) -> AppliedState {
        lock(&self.applied).clone()
    }

    pub(crate) fn head(&self) -> Head {
        lock(&self.applied).head
    }

    /// Remembers that the state as of `meta` is durable. Whoever calls this flushed after `meta` was applied.
    pub(crate) fn set_flushed(&self, meta: peer::SnapshotMeta) {
        let mut flushed = lock(&self.flushed);
        if meta.applied > flushed.applied {
            *flushed = meta;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding this lock")
}

/// One replica's state machine.
pub(crate) struct StateMachine<M: Machine> {
    replica: Replica<M>,
    progress: Progress,
    on_fatal: Arc<dyn Fn(String) + Send + Sync>,
}

impl<M: Machine> StateMachine<M> {
    pub(crate) fn new(replica: Replica<M>, progress: Progress, on_fatal: Arc<dyn Fn(String) + Send + Sync>) -> Self {
        let machine = StateMachine { replica, progress, on_fatal };
        machine.publish();
        // After a start the state is what the last flush made durable.
        machine.progress.set_flushed(machine.progress.applied().snapshot_meta());
        machine
    }

    fn publish(&self) {
        let mut applied = lock(&self.progress.applied);
        applied.head = self.replica.head();
        if *applied.membership != *self.replica.membership() {
            applied.membership = Arc::new(self.replica.membership().clone());
        }
    }

    /// A state that cannot be written or read is not served: the process ends.
    fn fatal(&self, doing: &str, error: StateError) -> io::Error {
        (self.on_fatal)(format!("{doing}: {error}"));
        io::Error::other(error)
    }

    fn apply_chunk(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        fail_point("entries-unapplied");
        let applied = {
            let _writing = self.progress.writing()?;
            self.replica.apply(&chunk.entries)
        };
        let replies = applied.map_err(|error| self.fatal("applying entries", error))?;
        fail_point("entries-applied");
        self.publish();
        if chunk.entries.iter().any(is_joint) {
            fail_point("joint-change-applied");
        }
        let head = self.replica.head();
        for (reply, responder) in replies.into_iter().zip(chunk.responders.drain(..)) {
            if let Some(responder) = responder {
                let reply = reply.map(|reply| Box::new(reply) as Box<dyn std::any::Any + Send + Sync>);
                responder.send(Reply { reply, head });
            }
        }
        chunk.entries.clear();
        chunk.bytes = 0;
        Ok(())
    }
}

/// Whether the entry begins a change of voters that another one ends.
fn is_joint(entry: &Entry) -> bool {
    matches!(&entry.payload, Payload::Membership(members) if members.voters.len() > 1)
}

/// Entries on their way into one batch, with whoever waits for each.
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

impl<M: Machine> RaftStateMachine<TypeConfig> for StateMachine<M> {
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
        Some(MarkBuilder(self.progress.clone()))
    }

    async fn get_snapshot_builder(&mut self) -> MarkBuilder {
        MarkBuilder(self.progress.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let SnapshotData::Staged(received) = snapshot else {
            return Err(io::Error::other("only a received snapshot can be installed"));
        };
        let meta = convert::our_snapshot_meta(meta);
        // Ingesting flushes what overlaps it: let the other tasks of this thread go elsewhere meanwhile.
        let installed = blocking::in_place(|| {
            let _writing = self.progress.writing()?;
            Ok::<_, io::Error>(self.replica.install(&received.files, &meta))
        })?;
        installed.map_err(|error| self.fatal("installing a snapshot", error))?;
        self.publish();
        lock(&self.progress.applied).snapshots_installed += 1;
        self.progress.set_flushed(meta);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<Snapshot<raft::LeaderId, u64, raft::NodeRef, SnapshotData>>> {
        if self.replica.head().applied.is_none() {
            return Ok(None);
        }
        let pinned = self.replica.pin().map_err(|error| self.fatal("pinning a snapshot", error))?;
        let meta = convert::snapshot_meta(pinned.meta());
        Ok(Some(Snapshot { meta, snapshot: SnapshotData::Pinned(pinned) }))
    }
}

/// "Builds" the snapshot that says what is durable.
pub(crate) struct MarkBuilder(Progress);

impl RaftSnapshotBuilder<TypeConfig> for MarkBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot<raft::LeaderId, u64, raft::NodeRef, SnapshotData>> {
        let meta = convert::snapshot_meta(&lock(&self.0.flushed));
        Ok(Snapshot { meta, snapshot: SnapshotData::Mark })
    }
}
