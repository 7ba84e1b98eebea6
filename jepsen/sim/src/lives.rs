//! The lives of a node. A life starts with an identity and a disk; a crash ends it.

use std::sync::Arc;
use std::time::Duration;

use quorate_control::liveness::{Liveness, PingTiming};
use quorate_control::store::{Databases, sweep};
use quorate_control::{Host, Plane, Store, loops};
use quorate_machine::log::{Log, MemoryLog};
use quorate_machine::state::{MemoryState, State};
use quorate_raft::{Groups, Options};
use quorate_testpoints::Bug;
use quorate_types::NodeId;
use quorate_types::topology::{Identity, NodeState};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use crate::counts::Count;
use crate::disk::{Life, LifeLog, Speed, life_state};
use crate::host::{Machine, NodeClock};
use crate::peers::SimPeers;
use crate::running_node::RunningNode;
use crate::scenario::Stream;
use crate::world::{SimNode, World};

/// A node without a report for this long is unresponsive. Far shorter than in production, so that
/// moves are often cancelled.
const UNRESPONSIVE_AFTER: Duration = Duration::from_millis(200);
/// The times of pings: a tenth of those in production, so that the leader of the topology group is
/// in office for long enough in most runs.
pub(crate) const PING_TIMING: PingTiming = PingTiming {
    interval: Duration::from_millis(100),
    counts_for: Duration::from_millis(1_000),
    office: Duration::from_millis(1_500),
};

/// Starts a node from the contents of its disk. Does nothing if the node runs or is retired.
pub(crate) fn start(world: &Arc<World>, id: NodeId) {
    let mut nodes = world.nodes();
    let Some(node) = nodes.get_mut(&id).filter(|node| node.member.is_none() && !node.retired) else { return };
    node.lives += 1;
    let life = Life::new(node.lives);
    let mut rng = Stream::Node(id.0, life.number).rng(world.scenario.seed);
    let speed = Speed::new(world.scenario.sync_us, Stream::Node(id.0, life.number << 16).rng(world.scenario.seed));
    let log = LifeLog::new(node.log.clone(), life.clone());
    let plane = plane(world, id, node, life.clone(), log.clone());
    let member = Arc::new(RunningNode::new(id, life, speed, plane));
    node.member = Some(member.clone());
    let disk = node.state.clone();
    drop(nodes);
    world.trace.event(&format!("n{id} starts"));
    member.spawn(log.write(member.speed.clone()));
    if !Bug::PurgePastFlush.is_on() {
        member.spawn(flush_now_and_then(disk, member.life.clone(), fork(&mut rng)));
    }
    member.spawn(control(member.plane.clone()));
}

/// The product's control plane over the simulated disk, network and machine.
fn plane(world: &Arc<World>, id: NodeId, node: &SimNode, life: Arc<Life>, log: Arc<LifeLog>) -> Plane {
    let state = life_state(node.state.clone(), life.clone());
    let clock = Arc::new(NodeClock::new(node.clock_offset_ms.clone()));
    let host = Arc::new(Machine::new(Arc::downgrade(world), id, life.clone()));
    let on_fatal = {
        let host = host.clone();
        Arc::new(move |reason: String| host.fail_stop(&reason))
    };
    let options = Options {
        node: id,
        timing: world.scenario.timing,
        snapshot_dir: node.snapshots.clone(),
        room: Arc::new(|| u64::MAX),
        log_retained_bytes_per_group: world.scenario.log_retained.bytes,
        log_retained_bytes_per_node: u64::MAX,
        log_retained_entries: world.scenario.log_retained.entries,
        on_fatal,
    };
    let transport = world.network.transport(id, life.clone(), node.log.clone(), log.synced(), node.state.clone());
    let groups = Groups::new(options, log.clone(), state.clone(), transport, clock.clone());
    world.network.connect(id, groups.clone(), life.clone());
    let identity = Identity { cluster: world.bootstrap.cluster.id, node: id };
    let is_initial = world.bootstrap.nodes.iter().any(|initial| initial.id == id);
    let bootstrap = is_initial.then(|| world.bootstrap.clone());
    let cached = node.map.as_deref().cloned();
    let store = Store::new(identity, bootstrap, cached, Databases { log, state }, groups);
    let peers = Arc::new(SimPeers::new(Arc::downgrade(world), id, life));
    let liveness = Arc::new(Liveness::new(id, PING_TIMING));
    Plane { liveness, ..Plane::new(Arc::new(store), peers, host, clock) }
}

/// Opens the node's replicas and runs the control loops, as a server does.
async fn control(plane: Plane) {
    if let Err(error) = sweep(&*plane.store.log, &*plane.store.state) {
        return plane.host.fail_stop(&format!("the sweep: {error}"));
    }
    if let Err(error) = plane.store.open_own_topology_replica().await {
        return plane.host.fail_stop(&format!("the replica of the topology group does not open: {error}"));
    }
    let mut running: JoinSet<()> = loops(&plane, Vec::new(), UNRESPONSIVE_AFTER).into_iter().collect();
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Starts every joining node. This includes a machine that lost the answer to its registration: it
/// retries and gets the same id.
pub(crate) fn start_joining(world: &Arc<World>) {
    let Some(map) = world.newest_map() else { return };
    for node in map.nodes.iter().filter(|node| node.state == NodeState::Joining) {
        let known = world.nodes().contains_key(&node.id);
        if known || world.add_node(node.id, Some(map.clone())).is_ok() {
            start(world, node.id);
        }
    }
}

/// A random source derived from another one, for a part of its work.
fn fork(rng: &mut StdRng) -> StdRng {
    rand::SeedableRng::seed_from_u64(rng.random())
}

/// Flushes the state at random times, as RocksDB does when its memtable is full.
async fn flush_now_and_then(state: Arc<MemoryState>, life: Arc<Life>, mut rng: StdRng) {
    while life.is_alive() {
        tokio::time::sleep(Duration::from_millis(rng.random_range(200..4_000))).await;
        if life.is_alive() {
            state.flush().expect("a state in memory can be flushed");
        }
    }
}

/// Crashes the node: only durable effects remain. A random part of the writes that wait for a sync
/// becomes durable too, although none of them was acknowledged.
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
    if Bug::WipedKeepsIdentity.is_on() {
        node.damaged.extend(node.log.replicas().into_iter().map(|(replica, _)| replica));
        node.log = Arc::new(MemoryLog::new(false));
        node.state = Arc::default();
    }
    drop(nodes);
    world.counts.one(Count::Crashes);
    world.network.disconnect(id);
    member.drop_tasks();
    // The rest of the process ends on its own: its disk and its network are closed to it.
    let groups = member.groups().clone();
    tokio::spawn(async move { groups.shutdown().await });
}
