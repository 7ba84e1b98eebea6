//! A story of many groups whose followers return together: their snapshots share the slots of the
//! sender.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_machine::state::{Export, ObservedState, Observer, Pinned, StateError};
use quorate_raft::{Groups, MemoryNetwork, Shard, SnapshotFaults};
use quorate_types::peer::{SnapshotMeta, SnapshotRefusal};
use quorate_types::topology::Placement;
use quorate_types::{
    Command, Key, Mutation, NodeId, Outcome, ReplicaId, SessionId, SessionStamp, ShardId, Token, TokenArc, Value, Write,
};
use tokio::time::Instant;

use crate::group::{Disk, PATIENCE, POLL, Retained, TRY};

const GROUPS: u32 = 16;
/// The node that is away.
const AWAY: u64 = 3;
/// Snapshots that a node sends at a time.
const SLOTS: usize = 2;

/// Pins that exist now, the most that existed at a time, and exports that were begun.
#[derive(Default)]
struct Pins {
    now: AtomicUsize,
    most: AtomicUsize,
    exports: AtomicUsize,
}

struct CountedPin {
    pinned: Box<dyn Pinned>,
    pins: Arc<Pins>,
}

impl Drop for CountedPin {
    fn drop(&mut self) {
        self.pins.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Pinned for CountedPin {
    fn meta(&self) -> &SnapshotMeta {
        self.pinned.meta()
    }

    fn bytes(&self) -> u64 {
        self.pinned.bytes()
    }

    fn export(&self, dir: &Path, replica: ReplicaId) -> Result<Box<dyn Export>, StateError> {
        self.pins.exports.fetch_add(1, Ordering::SeqCst);
        self.pinned.export(dir, replica)
    }
}

/// Counts the pins of a state.
struct PinCounter(Arc<Pins>);

impl Observer for PinCounter {
    fn pinned(&self, pinned: Box<dyn Pinned>) -> Box<dyn Pinned> {
        let now = self.0.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(now, Ordering::SeqCst);
        Box::new(CountedPin { pinned, pins: self.0.clone() })
    }
}

struct Node {
    disk: Disk,
    pins: Arc<Pins>,
    running: Option<(Groups, BTreeMap<u32, Shard>)>,
}

/// Three nodes with many groups.
struct Many {
    network: MemoryNetwork,
    nodes: BTreeMap<u64, Node>,
}

fn replica(shard: u32, node: u64) -> ReplicaId {
    ReplicaId(u64::from(shard) * 10 + node)
}

impl Many {
    async fn begin() -> Self {
        let node = || Node { disk: Disk::new(), pins: Arc::default(), running: None };
        let nodes = (1..=3).map(|id| (id, node())).collect();
        let mut many = Many { network: MemoryNetwork::default(), nodes };
        for id in 1..=3 {
            many.start(id).await;
        }
        for shard in 1..=GROUPS {
            let initial: Vec<Placement> =
                (1..=3).map(|id| Placement { replica: replica(shard, id), node: NodeId(id) }).collect();
            many.shard(1, shard).replica().initialize(&initial).await.unwrap();
            let arc = TokenArc { start: Token(0), end: Token(0) };
            apply(&many.voters(shard), Command::Bootstrap { arc, epoch: 1 }).await;
            let opened = apply(&many.voters(shard), Command::OpenSession { epoch: 1 }).await;
            assert_eq!(opened, Outcome::SessionOpened { session: SessionId(1) });
        }
        many
    }

    async fn start(&mut self, id: u64) {
        let node = &self.nodes[&id];
        let state = Arc::new(ObservedState::new(node.disk.state.clone(), PinCounter(node.pins.clone())));
        let groups = node.disk.start(id, &self.network, state, &Retained { bytes: 64 << 10, entries: 2 });
        let mut shards = BTreeMap::new();
        for shard in 1..=GROUPS {
            shards.insert(shard, groups.open_shard(ShardId(shard), replica(shard, id)).await.unwrap());
        }
        self.nodes.get_mut(&id).unwrap().running = Some((groups, shards));
    }

    async fn stop(&mut self, id: u64) {
        self.network.disconnect(NodeId(id));
        if let Some((groups, shards)) = self.nodes.get_mut(&id).unwrap().running.take() {
            drop(shards);
            groups.shutdown().await;
        }
    }

    fn shard(&self, node: u64, shard: u32) -> &Shard {
        &self.nodes[&node].running.as_ref().unwrap().1[&shard]
    }

    /// The replicas of a shard on running nodes.
    fn voters(&self, shard: u32) -> Vec<Shard> {
        let running = self.nodes.values().filter_map(|node| node.running.as_ref());
        running.map(|(_, shards)| shards[&shard].clone()).collect()
    }

    /// The last entry that each group has applied on nodes that were not away.
    fn applied(&self) -> Vec<u64> {
        let of = |shard| {
            let indexes = (1..AWAY).map(|id| self.shard(id, shard).replica().status().applied_index.unwrap_or(0));
            indexes.max().unwrap()
        };
        (1..=GROUPS).map(of).collect()
    }

    async fn until(&self, event: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "{event}: not in time");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Applies a command at the replica that leads.
async fn apply(voters: &[Shard], command: Command) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "{command:?} was never applied");
        for shard in voters {
            if let Ok(mut written) = shard.write(vec![command.clone()], TRY).await {
                return written.outcomes.remove(0);
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Writes 16 KiB to a group every 80 ms: 64 KiB of log in a third of a second.
async fn write_steadily(voters: Vec<Shard>) {
    for sequence in 1.. {
        let mutation = Mutation::Put(Value::new(vec![7; 16 << 10]).unwrap());
        let write = Write { key: Key::new(format!("key-{}", sequence % 8)).unwrap(), mutation, condition: None };
        let stamp = SessionStamp { session: SessionId(1), sequence, lowest: sequence };
        apply(&voters, Command::Write { epoch: 1, stamp, write }).await;
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
}

/// Sixteen groups under steady writes whose follower was away for long: each needs one snapshot, two
/// at most, although the transfers take longer than the retained log lasts. A node pins no more
/// states than it sends snapshots. Refused snapshots cost no export. (Snapshots were pinned before
/// they waited for a slot, and were stale when they arrived.)
#[tokio::test(start_paused = true)]
async fn groups_that_return_together_need_one_snapshot_each() {
    quorate_raft::simulate(7);
    let mut many = Many::begin().await;
    many.stop(AWAY).await;
    let writers: Vec<_> = (1..=GROUPS).map(|shard| tokio::spawn(write_steadily(many.voters(shard)))).collect();
    let purged =
        |many: &Many, shard| (1..AWAY).all(|id| many.shard(id, shard).replica().status().purged_index > Some(9));
    many.until("purged logs", |many| (1..=GROUPS).all(|shard| purged(many, shard))).await;

    let busy = SnapshotRefusal::Busy { node: NodeId(AWAY), receiving: 2 };
    let no_space = SnapshotRefusal::NoSpace { node: NodeId(AWAY), needs: 2, has: 1 };
    let refusals = VecDeque::from([busy.clone(), no_space, busy]);
    let delay = Duration::from_millis(400);
    many.network.snapshot_faults(SnapshotFaults { delay, refusals, spoil: 0 });
    many.start(AWAY).await;
    let goal = many.applied();
    let applied = |many: &Many, shard| many.shard(AWAY, shard).replica().status().applied_index.unwrap_or(0);
    let caught_up = |many: &Many| (1..=GROUPS).zip(&goal).all(|(shard, goal)| applied(many, shard) >= *goal);
    many.until("all groups caught up", caught_up).await;

    let installed: Vec<u64> =
        (1..=GROUPS).map(|shard| many.shard(AWAY, shard).replica().status().snapshots_installed).collect();
    assert!(installed.iter().all(|installed| (1..=2).contains(installed)), "{installed:?}");
    let pins = |read: fn(&Pins) -> &AtomicUsize| -> Vec<usize> {
        many.nodes.values().map(|node| read(&node.pins).load(Ordering::SeqCst)).collect()
    };
    assert!(pins(|pins| &pins.most).iter().all(|most| *most <= SLOTS), "{:?}", pins(|pins| &pins.most));
    let exports: usize = pins(|pins| &pins.exports).iter().sum();
    assert_eq!(exports as u64, installed.iter().sum::<u64>(), "every export was installed");
    writers.iter().for_each(|writer| writer.abort());
    for id in 1..=3 {
        many.stop(id).await;
    }
}
