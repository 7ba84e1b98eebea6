//! A node while it runs: what `quorate_node` puts around the groups, in few lines. Started with an identity, a disk and a
//! network; ended by a crash.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quorate_machine::log::MemoryLog;
use quorate_machine::state::{MemoryState, State};
use quorate_raft::{Groups, Options, Replica, Shard};
use quorate_topology::{Published, TopologyMachine};
use quorate_types::clock::Clock;
use quorate_types::report::{Foreground, NodeReport, Order};
use quorate_types::topology::{NodeState, Topology};
use quorate_types::{GroupId, NodeId, ReplicaId, ShardId};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::defect::Defect;
use crate::disk::{Life, LifeLog, LifeState, Speed};
use crate::scenario::Stream;
use crate::world::World;
use crate::{agent, reconciler};

/// When simulated time begins, in milliseconds since 1970.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// A node that runs.
pub(crate) struct Member {
    pub(crate) node: NodeId,
    pub(crate) life: Arc<Life>,
    pub(crate) speed: Arc<Speed>,
    pub(crate) log: Arc<LifeLog>,
    pub(crate) state: Arc<LifeState>,
    pub(crate) groups: Groups,
    pub(crate) feed: Arc<watch::Sender<Option<Arc<Topology>>>>,
    pub(crate) clock: Arc<NodeClock>,
    shards: Mutex<BTreeMap<ShardId, Shard>>,
    topology: Mutex<Option<Arc<Replica>>>,
    /// The highest term of group 0 that an order was given in.
    newest_term: Mutex<u64>,
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
}

/// A node's wall clock: simulated time, and how wrong it is.
pub(crate) struct NodeClock {
    began: Instant,
    offset_ms: Arc<AtomicI64>,
}

impl Clock for NodeClock {
    fn now_ms(&self) -> u64 {
        let since = u64::try_from(self.began.elapsed().as_millis()).expect("a run takes seconds");
        EPOCH_MS.saturating_add(since).saturating_add_signed(self.offset_ms.load(Ordering::Relaxed))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding this lock")
}

impl Member {
    pub(crate) fn topology_group(&self) -> Option<Arc<Replica>> {
        lock(&self.topology).clone()
    }

    pub(crate) fn shard(&self, shard: ShardId) -> Option<Shard> {
        lock(&self.shards).get(&shard).cloned()
    }

    pub(crate) fn shards(&self) -> Vec<(ShardId, Shard)> {
        lock(&self.shards).iter().map(|(id, group)| (*id, group.clone())).collect()
    }

    /// Takes over a map that is newer than the one known.
    pub(crate) fn offer(&self, map: Arc<Topology>) {
        offer(&self.feed, map);
    }

    pub(crate) async fn open_shard(&self, shard: ShardId, replica: ReplicaId) -> Result<(), String> {
        let opened = self.groups.open_shard(shard, replica).await.map_err(|error| error.to_string())?;
        lock(&self.shards).insert(shard, opened);
        Ok(())
    }

    pub(crate) async fn open_topology(&self, replica: ReplicaId) -> Result<(), String> {
        let feed = self.feed.clone();
        let published = Published::new(move |map| offer(&feed, map));
        let open = move |replica, view: &dyn quorate_machine::state::View| {
            TopologyMachine::open(replica, view, published.clone())
        };
        let opened = self.groups.open(GroupId::TOPOLOGY, replica, open).await;
        *lock(&self.topology) = Some(opened.map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Lets go of a replica and destroys it.
    pub(crate) async fn destroy(&self, group: GroupId, replica: ReplicaId) -> Result<(), String> {
        match group.shard() {
            Some(shard) => {
                let mut shards = lock(&self.shards);
                if shards.get(&shard).is_some_and(|group| group.replica().id() == replica) {
                    shards.remove(&shard);
                }
            }
            None => {
                let mut topology = lock(&self.topology);
                if topology.as_ref().is_some_and(|group| group.id() == replica) {
                    *topology = None;
                }
            }
        }
        self.groups.destroy(replica).await.map_err(|error| error.to_string())
    }

    /// What the node tells the reconciler of itself.
    pub(crate) fn report(&self) -> NodeReport {
        NodeReport {
            node: self.node,
            uptime_ms: u64::try_from(self.clock.began.elapsed().as_millis()).expect("a run takes seconds"),
            disk_free_bytes: 1 << 40,
            disk_full: false,
            foreground: Foreground::Idle,
            replicas: self.groups.reports(),
        }
    }

    /// Does what the reconciler orders, unless it was deposed.
    pub(crate) async fn execute(&self, order: &Order, within: Duration) -> Result<(), String> {
        {
            let mut executed = lock(&self.newest_term);
            if order.term < *executed {
                return Err("the order is of an earlier term".to_owned());
            }
            *executed = order.term;
        }
        self.groups.execute(order.group, order.what, within).await.map_err(|error| error.to_string())
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        lock(&self.tasks).push(AbortOnDropHandle::new(tokio::spawn(task)));
    }
}

fn offer(feed: &watch::Sender<Option<Arc<Topology>>>, map: Arc<Topology>) {
    feed.send_if_modified(|known| {
        let newer = known.as_ref().is_none_or(|known| known.revision < map.revision);
        if newer {
            *known = Some(map);
        }
        newer
    });
}

/// Starts a node from what its disk holds. Nothing happens if it runs already.
pub(crate) fn start(world: &Arc<World>, id: NodeId) {
    let mut nodes = world.nodes();
    let Some(node) = nodes.get_mut(&id).filter(|node| node.member.is_none() && !node.retired) else { return };
    node.lives += 1;
    let life = Life::new(node.lives);
    let mut rng = Stream::Node(id.0, life.number).rng(world.scenario.seed);
    let speed = Speed::new(world.scenario.sync_us, Stream::Node(id.0, life.number << 16).rng(world.scenario.seed));
    let log = LifeLog::new(node.log.clone(), life.clone(), world.defect);
    let state = LifeState::new(node.state.clone(), life.clone(), world.defect);
    let clock = Arc::new(NodeClock { began: Instant::now(), offset_ms: node.clock_offset_ms.clone() });
    let on_fatal = {
        let (world, life) = (Arc::downgrade(world), life.clone());
        Arc::new(move |reason| match world.upgrade() {
            Some(world) if life.is_alive() => world.violation(format!("node {id} stops itself: {reason}")),
            _ => {}
        })
    };
    let options = Options {
        node: id,
        timing: world.scenario.timing,
        snapshot_dir: node.snapshots.clone(),
        log_retained_bytes_per_group: world.scenario.log_retained_bytes,
        log_retained_bytes_per_node: u64::MAX,
        log_retained_entries: world.scenario.log_retained_entries,
        on_fatal,
    };
    let transport = world.network.transport(id, life.clone(), node.log.clone(), log.synced(), node.state.clone());
    let groups = Groups::new(options, log.clone(), state.clone(), transport, clock.clone());
    world.network.connect(id, groups.clone(), life.clone());
    let member = Arc::new(Member {
        node: id,
        life,
        speed,
        log,
        state,
        groups,
        feed: Arc::new(watch::Sender::new(node.map.clone())),
        clock,
        shards: Mutex::default(),
        topology: Mutex::default(),
        newest_term: Mutex::default(),
        tasks: Mutex::default(),
    });
    node.member = Some(member.clone());
    let disk = node.state.clone();
    drop(nodes);
    world.trace.event(&format!("n{id} starts"));
    member.spawn(member.log.clone().write(member.speed.clone()));
    if world.defect != Some(Defect::PurgePastFlush) {
        let flusher = StdRng::clone_seed(&mut rng);
        member.spawn(flush_now_and_then(disk, member.life.clone(), flusher));
    }
    member.spawn(agent::run(Arc::downgrade(world), Arc::downgrade(&member), StdRng::clone_seed(&mut rng)));
    member.spawn(reconciler::run(Arc::downgrade(world), Arc::downgrade(&member)));
}

/// A machine that asked for an id and did not hear the answer asks again, and gets the same one.
pub(crate) fn start_joining(world: &Arc<World>) {
    let Some(map) = world.newest_map() else { return };
    for node in map.nodes.iter().filter(|node| node.state == NodeState::Joining) {
        let known = world.nodes().contains_key(&node.id);
        if known || world.add_node(node.id).is_ok() {
            start(world, node.id);
        }
    }
}

/// A source of chance for a part of what another one serves.
trait CloneSeed {
    fn clone_seed(from: &mut StdRng) -> StdRng;
}

impl CloneSeed for StdRng {
    fn clone_seed(from: &mut StdRng) -> StdRng {
        rand::SeedableRng::seed_from_u64(from.random())
    }
}

/// RocksDB flushes whenever its memtable is full: nobody is told.
async fn flush_now_and_then(state: Arc<MemoryState>, life: Arc<Life>, mut rng: StdRng) {
    while life.is_alive() {
        tokio::time::sleep(Duration::from_millis(rng.random_range(200..4_000))).await;
        if life.is_alive() {
            state.flush().expect("a state in memory can be flushed");
        }
    }
}

/// The node loses its power: nothing that it did counts any more unless it is durable, and of what waits for a sync a part may
/// be durable although nobody was told.
pub(crate) fn crash(world: &Arc<World>, id: NodeId, rng: &mut StdRng) {
    let mut nodes = world.nodes();
    let Some(node) = nodes.get_mut(&id) else { return };
    let Some(member) = node.member.take() else { return };
    member.life.end();
    let pending = node.log.pending();
    let kept = rng.random_range(0..=pending);
    world.trace.event(&format!("n{id} crashes; {kept} of {pending} unsynced calls had reached its disk"));
    node.log.crash_after(kept);
    node.state.crash();
    if world.defect == Some(Defect::WipedNodeKeepsIdentity) {
        node.log = Arc::new(MemoryLog::new(false));
        node.state = Arc::default();
    }
    drop(nodes);
    world.counts.crashes.one();
    world.network.disconnect(id);
    lock(&member.tasks).clear();
    lock(&member.shards).clear();
    *lock(&member.topology) = None;
    // What is left of the process ends by itself: everything that it could reach is out of its reach.
    let groups = member.groups.clone();
    tokio::spawn(async move { groups.shutdown().await });
}
