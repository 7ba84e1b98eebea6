//! openraft's own storage suite, run on both twins of the log and the state.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageError};
use quorate_machine::log::{Log, MemoryLog};
use quorate_machine::state::{MemoryState, Pinned, State, View};
use quorate_machine::{KvMachine, Machine};
use quorate_rocks::{LogOptions, RocksLog};
use quorate_rocks::{RocksState, StateOptions};
use quorate_types::{GroupId, ReplicaId};
use tempfile::TempDir;

use crate::convert;
use crate::log_store::LogStore;
use crate::openraft_types::{self as raft, LogId, SnapshotMeta, TypeConfig};
use crate::progress::Progress;
use crate::snapshot_data::{Received, SnapshotData};
use crate::snapshot_slots::SnapshotsOut;
use crate::state_machine::{GroupSlots, StateMachine};

const REPLICA: ReplicaId = ReplicaId(7);

/// Makes a log and a state of one kind, in a directory of their own.
type MakeStores = fn(&TempDir) -> (Arc<dyn Log>, Arc<dyn State>);

/// Makes a fresh log and state for every test of the suite.
struct Builder {
    make: MakeStores,
}

impl StoreBuilder<TypeConfig, LogStore, SuiteMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, SuiteMachine), StorageError<TypeConfig>> {
        let dir = TempDir::new().unwrap();
        let (log, state) = (self.make)(&dir);
        log.create(REPLICA, GroupId(1)).unwrap();
        let open = |replica, view: &dyn View| Ok(Box::new(KvMachine::open(replica, view)?) as Box<dyn Machine>);
        let on_fatal = Arc::new(|reason| panic!("{reason}"));
        let snapshots = dir.path().join("snapshots");
        std::fs::create_dir(&snapshots).unwrap();
        let out = Arc::new(SnapshotsOut::new(snapshots.clone(), Arc::new(|| u64::MAX)));
        let slots = GroupSlots { group: GroupId(1), snapshots: out };
        let machine =
            StateMachine::open(state.clone(), REPLICA, Box::new(open), Progress::default(), slots, on_fatal).unwrap();
        let machine = SuiteMachine { machine, state, snapshots };
        Ok((dir, LogStore::new(log, REPLICA), machine))
    }
}

/// Our state machine, bent to two things that the suite does and openraft never does: entries that
/// were skipped are applied as blank ones, and a snapshot can be installed without a network
/// between, so its files are written on the spot.
struct SuiteMachine {
    machine: StateMachine,
    state: Arc<dyn State>,
    snapshots: PathBuf,
}

impl RaftStateMachine<TypeConfig> for SuiteMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = FileBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, raft::StoredMembership)> {
        self.machine.applied_state().await
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut next = self.machine.applied_state().await?.0.map_or(0, |id| id.index + 1);
        let mut all = Vec::new();
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            for index in next..entry.log_id.index {
                let log_id = LogId { index, ..entry.log_id };
                all.push(Ok((raft::Entry { log_id, payload: EntryPayload::Blank }, None)));
            }
            next = entry.log_id.index + 1;
            all.push(Ok((entry, responder)));
        }
        self.machine.apply(futures::stream::iter(all)).await
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<FileBuilder> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> FileBuilder {
        FileBuilder { pinned: self.state.pin(REPLICA).unwrap(), dir: self.snapshots.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let snapshot = match snapshot {
            SnapshotData::Pinned(pinned) => {
                SnapshotData::Staged(Received::new(pinned.write_files(&self.snapshots, REPLICA).unwrap(), ()))
            }
            other => other,
        };
        self.machine.install_snapshot(meta, snapshot).await
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<Snapshot<raft::LeaderId, u64, raft::NodeRef, SnapshotData>>> {
        self.machine.get_current_snapshot().await
    }
}

struct FileBuilder {
    pinned: Box<dyn Pinned>,
    dir: PathBuf,
}

impl RaftSnapshotBuilder<TypeConfig> for FileBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot<raft::LeaderId, u64, raft::NodeRef, SnapshotData>> {
        let files = self.pinned.write_files(&self.dir, REPLICA).unwrap();
        let meta = convert::snapshot_meta(self.pinned.meta());
        Ok(Snapshot { meta, snapshot: SnapshotData::Staged(Received::new(files, ())) })
    }
}

async fn run(make: MakeStores) {
    Suite::<TypeConfig, LogStore, SuiteMachine, Builder, TempDir>::test_all(Builder { make }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_suite_passes_in_memory() {
    run(|_| (Arc::new(MemoryLog::new(true)), Arc::new(MemoryState::new()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_suite_passes_on_rocksdb() {
    run(|dir| {
        let log = RocksLog::open(dir.path().join("log"), LogOptions::default()).unwrap();
        let state = RocksState::open(&dir.path().join("state"), StateOptions::default()).unwrap();
        (Arc::new(log), Arc::new(state))
    })
    .await;
}
