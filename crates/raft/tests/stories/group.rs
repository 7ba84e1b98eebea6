//! A Raft group in memory: four nodes, of which the first three host its initial replicas.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_machine::log::MemoryLog;
use quorate_machine::state::{MemoryState, State, meta};
use quorate_machine::state_hash;
use quorate_raft::{Groups, LOG_RETAINED_ENTRIES, MemoryNetwork, OpenError, Options, Shard, Timing};
use quorate_types::clock::Clock;
use quorate_types::topology::Placement;
use quorate_types::{
    Command, Key, Mutation, NodeId, Outcome, ReplicaId, SessionId, SessionStamp, ShardId, Token, TokenArc, Value, Write,
};
use tempfile::TempDir;
use tokio::time::Instant;

pub(crate) const SHARD: ShardId = ShardId(1);
const EPOCH: u64 = 1;
/// How long a story waits for an event before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const TRY: Duration = Duration::from_secs(1);
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// A clock that always shows the same time: no story depends on it.
struct Fixed;

impl Clock for Fixed {
    fn now_ms(&self) -> u64 {
        1_000
    }
}

/// The durable parts of a node.
pub(crate) struct Disk {
    log: Arc<MemoryLog>,
    pub(crate) state: Arc<MemoryState>,
    snapshots: TempDir,
}

/// The most that a group retains of its log.
pub(crate) struct Retained {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Disk { log: Arc::new(MemoryLog::new(true)), state: Arc::default(), snapshots: TempDir::new().unwrap() }
    }

    /// Starts a node on this disk, connected and without replicas. `state` is the disk's own or
    /// one around it.
    pub(crate) fn start(&self, id: u64, network: &MemoryNetwork, state: Arc<dyn State>, retained: &Retained) -> Groups {
        let options = Options {
            node: NodeId(id),
            timing: Timing::default(),
            snapshot_dir: self.snapshots.path().to_owned(),
            room: Arc::new(|| u64::MAX),
            log_retained_bytes_per_group: retained.bytes,
            log_retained_bytes_per_node: 512 << 20,
            log_retained_entries: retained.entries,
            on_fatal: Arc::new(|reason| panic!("fatal: {reason}")),
        };
        let groups = Groups::new(options, self.log.clone(), state, network.transport(NodeId(id)), Arc::new(Fixed));
        network.connect(NodeId(id), groups.clone());
        groups
    }
}

/// One node: its disk, and its groups while it runs.
pub(crate) struct Node {
    pub(crate) disk: Disk,
    running: Option<Running>,
}

/// The groups of a running node, and its replica unless that is closed as doubtful.
struct Running {
    groups: Groups,
    shard: Option<Shard>,
}

pub(crate) struct Group {
    pub(crate) network: MemoryNetwork,
    pub(crate) nodes: BTreeMap<u64, Node>,
    session: SessionId,
    sequence: u64,
}

pub(crate) fn replica(node: u64) -> ReplicaId {
    ReplicaId(10 + node)
}

pub(crate) fn placement(node: u64) -> Placement {
    Placement { replica: replica(node), node: NodeId(node) }
}

impl Group {
    /// An initialized group with an open session.
    pub(crate) async fn begin() -> Self {
        let node = || Node { disk: Disk::new(), running: None };
        let mut group = Group {
            network: MemoryNetwork::default(),
            nodes: (1..=4).map(|id| (id, node())).collect(),
            session: SessionId(0),
            sequence: 0,
        };
        for id in 1..=3 {
            group.start(id).await;
        }
        let initial: Vec<Placement> = (1..=3).map(placement).collect();
        group.shard(1).replica().initialize(&initial).await.unwrap();
        let arc = TokenArc { start: Token(0), end: Token(0) };
        group.apply(Command::Bootstrap { arc, epoch: EPOCH }).await;
        let (_, opened) = group.apply(Command::OpenSession { epoch: EPOCH }).await;
        let Outcome::SessionOpened { session } = opened else { panic!("a session opens: {opened:?}") };
        group.session = session;
        group
    }

    pub(crate) async fn start(&mut self, id: u64) {
        self.start_on(id, self.nodes[&id].disk.state.clone()).await;
    }

    /// Starts a node on a state that wraps its own.
    pub(crate) async fn start_on(&mut self, id: u64, state: Arc<dyn State>) {
        let retained = Retained { bytes: 64 << 20, entries: LOG_RETAINED_ENTRIES };
        let groups = self.nodes[&id].disk.start(id, &self.network, state, &retained);
        let shard = match groups.open_shard(SHARD, replica(id)).await {
            Err(OpenError::Doubtful(_)) => None,
            opened => Some(opened.unwrap()),
        };
        self.nodes.get_mut(&id).unwrap().running = Some(Running { groups, shard });
    }

    /// Ends a node as a power cut would: state that is not synced or flushed is lost.
    pub(crate) async fn crash(&mut self, id: u64) {
        self.network.disconnect(NodeId(id));
        let node = self.nodes.get_mut(&id).unwrap();
        let running = node.running.take().unwrap();
        running.groups.shutdown().await;
        drop(running);
        node.disk.log.crash();
        node.disk.state.crash();
    }

    pub(crate) async fn end(mut self) {
        for node in self.nodes.values_mut() {
            if let Some(running) = node.running.take() {
                running.groups.shutdown().await;
                drop(running);
            }
        }
    }

    pub(crate) fn groups(&self, id: u64) -> &Groups {
        &self.nodes[&id].running.as_ref().unwrap().groups
    }

    pub(crate) fn shard(&self, id: u64) -> &Shard {
        self.nodes[&id].running.as_ref().unwrap().shard.as_ref().unwrap()
    }

    /// The nodes that run and whose replica takes part in the group.
    pub(crate) fn running(&self) -> Vec<u64> {
        let takes_part = |node: &Node| {
            let shard = node.running.as_ref().and_then(|running| running.shard.as_ref());
            shard.is_some_and(|shard| !shard.replica().is_doubtful())
        };
        self.nodes.iter().filter(|(_, node)| takes_part(node)).map(|(id, _)| *id).collect()
    }

    /// The nodes whose replica is doubtful.
    pub(crate) fn doubtful(&self) -> Vec<u64> {
        let is_doubtful =
            |node: &Node| node.running.as_ref().is_some_and(|running| !running.groups.doubtful().is_empty());
        self.nodes.iter().filter(|(_, node)| is_doubtful(node)).map(|(id, _)| *id).collect()
    }

    /// A crashed node's disk loses the last durable entries of its replica. Returns how many.
    pub(crate) fn lose(&self, id: u64, count: usize) -> usize {
        assert!(self.nodes[&id].running.is_none(), "a disk loses entries in a crash");
        self.nodes[&id].disk.log.lose_last(replica(id), count)
    }

    pub(crate) fn leader(&self, not: Option<u64>) -> Option<u64> {
        self.running().into_iter().find(|id| Some(*id) != not && self.shard(*id).replica().is_leader())
    }

    /// Why the leader's last snapshot was not delivered.
    pub(crate) fn failure(&self) -> Option<String> {
        let reports = self.groups(self.leader(None)?).reports();
        reports.into_iter().flat_map(|report| report.others).find_map(|other| other.snapshot_failure)
    }

    pub(crate) fn hash(&self, id: u64) -> String {
        let mut hash = String::new();
        let read = self.nodes[&id].disk.state.view(&mut |view| {
            hash = format!("{:?}", state_hash(view, replica(id))?);
            Ok(())
        });
        read.unwrap();
        hash
    }

    /// The index of the last entry that is applied in a node's state.
    pub(crate) fn stored_index(&self, id: u64) -> Option<u64> {
        let mut applied = None;
        let read = self.nodes[&id].disk.state.view(&mut |view| {
            applied = meta::head(view, replica(id))?.applied;
            Ok(())
        });
        read.unwrap();
        applied.map(|applied| applied.index)
    }

    /// Polls until there is an answer.
    pub(crate) async fn until<T>(&self, event: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(seen) = look(self) {
                return seen;
            }
            assert!(Instant::now() < deadline, "{event}: not in time");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Applies a command at the node that leads. Returns that node and the outcome.
    pub(crate) async fn apply(&self, command: Command) -> (u64, Outcome) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{command:?} was never applied");
            for id in self.running() {
                if let Ok(mut written) = self.shard(id).write(vec![command.clone()], TRY).await {
                    return (id, written.outcomes.remove(0));
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(crate) fn next_put(&mut self, key: &str, value: &str) -> Command {
        self.sequence += 1;
        let stamp = SessionStamp { session: self.session, sequence: self.sequence, lowest: self.sequence };
        let mutation = Mutation::Put(Value::new(value.to_owned()).unwrap());
        let write = Write { key: Key::new(key.to_owned()).unwrap(), mutation, condition: None };
        Command::Write { epoch: EPOCH, stamp, write }
    }
}
