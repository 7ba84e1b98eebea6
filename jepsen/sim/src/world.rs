//! The simulated world: the nodes with their durable data, the network between them, and the
//! observations recorded in a run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quorate_control::Proposer;
use quorate_machine::log::MemoryLog;
use quorate_machine::state::MemoryState;
use quorate_ring::ArcTable;
use quorate_topology::plan_bootstrap;
use quorate_types::operation::ReplicaMove;
use quorate_types::topology::{
    Bootstrap, ClusterInfo, Command, NodeAddresses, NodeInfo, NodeState, Outcome, ShardInfo, Topology,
};
use quorate_types::{ClusterId, Key, NodeId, ReplicaId, ShardId};
use tempfile::TempDir;

use crate::counts::{Count, Counts};
use crate::history::History;
use crate::network::{Network, scratch};
use crate::running_node::RunningNode;
use crate::scenario::{Scenario, Stream};
use crate::trace::Trace;
use crate::violations::Violations;

/// How long a node proposes one command of an operator.
const PROPOSE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A node: its durable data, and its current life while it runs.
pub(crate) struct SimNode {
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) state: Arc<MemoryState>,
    pub(crate) snapshots: PathBuf,
    /// The newest map that the node has recorded.
    pub(crate) map: Option<Arc<Topology>>,
    pub(crate) lives: u64,
    pub(crate) clock_offset_ms: Arc<std::sync::atomic::AtomicI64>,
    pub(crate) member: Option<Arc<RunningNode>>,
    /// An operator has retired the node: it never starts again.
    pub(crate) retired: bool,
    /// Replicas whose durable log entries its disk lost.
    pub(crate) damaged: BTreeSet<ReplicaId>,
}

/// All parts of one run.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) trace: Arc<Trace>,
    pub(crate) network: Network,
    pub(crate) bootstrap: Bootstrap,
    pub(crate) shards: Vec<ShardInfo>,
    /// The keys of every shard that the clients use.
    pub(crate) keys: BTreeMap<ShardId, Vec<Key>>,
    pub(crate) history: History,
    pub(crate) counts: Counts,
    nodes: Mutex<BTreeMap<NodeId, SimNode>>,
    pub(crate) violations: Violations,
    dir: TempDir,
}

impl World {
    pub(crate) fn new(scenario: Scenario, keep_lines: bool) -> anyhow::Result<Arc<Self>> {
        let cluster = ClusterInfo {
            id: ClusterId(u128::from(scenario.seed)),
            hash_key: [7; 16],
            replicas: scenario.shape.replicas,
            shards: scenario.shape.shards,
        };
        let nodes: Vec<NodeInfo> = (1..=scenario.shape.nodes).map(|id| node_info(NodeId(id))).collect();
        let (bootstrap, shards) = plan_bootstrap(&cluster, &nodes)?;
        let trace = Arc::new(Trace::new(keep_lines));
        let rngs = [Stream::Network, Stream::Pings].map(|stream| stream.rng(scenario.seed));
        let network = Network::new(rngs, scenario.latency_us, scenario.losses, trace.clone());
        let world = World {
            keys: choose_keys(&cluster, &shards, scenario.keys_per_shard)?,
            scenario,
            trace,
            network,
            bootstrap,
            shards,
            history: History::default(),
            counts: Counts::default(),
            nodes: Mutex::default(),
            violations: Violations::default(),
            dir: scratch()?,
        };
        nodes.iter().try_for_each(|node| world.add_node(node.id, None))?;
        Ok(Arc::new(world))
    }

    /// Adds a node that is not started. Its disk is empty except for `map`: a joining machine has
    /// fetched one.
    pub(crate) fn add_node(&self, id: NodeId, map: Option<Arc<Topology>>) -> anyhow::Result<()> {
        let snapshots = self.dir.path().join(id.to_string());
        std::fs::create_dir_all(&snapshots)?;
        let node = SimNode {
            log: Arc::new(MemoryLog::new(false)),
            state: Arc::new(MemoryState::new()),
            snapshots,
            map,
            lives: 0,
            clock_offset_ms: Arc::default(),
            member: None,
            retired: false,
            damaged: BTreeSet::new(),
        };
        self.nodes().insert(id, node);
        Ok(())
    }

    pub(crate) fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, SimNode>> {
        self.nodes.lock().expect("only a broken invariant poisons this lock")
    }

    /// The running node; none while it is down.
    pub(crate) fn member(&self, node: NodeId) -> Option<Arc<RunningNode>> {
        self.nodes().get(&node).and_then(|node| node.member.clone())
    }

    /// All running nodes, by id.
    pub(crate) fn members(&self) -> Vec<Arc<RunningNode>> {
        self.nodes().values().filter_map(|node| node.member.clone()).collect()
    }

    pub(crate) fn node_ids(&self) -> Vec<NodeId> {
        self.nodes().iter().filter(|(_, node)| !node.retired).map(|(id, _)| *id).collect()
    }

    /// The newest map that any node has recorded.
    pub(crate) fn newest_map(&self) -> Option<Arc<Topology>> {
        self.nodes().values().filter_map(|node| node.map.clone()).max_by_key(|map| map.revision)
    }

    /// Records a map for a node. If the map is newer than every map recorded before, counts the
    /// moves completed since the newest of them.
    pub(crate) fn record_topology(&self, node: NodeId, map: Arc<Topology>) {
        if let Some(newest) = self.newest_map().filter(|newest| newest.revision < map.revision) {
            let is_done = |moving: &&ReplicaMove| {
                !map.moves.iter().any(|still| still.group == moving.group && still.to == moving.to)
                    && moving.to.is_some_and(|to| map.replicas(moving.group).any(|at| at == to))
            };
            self.counts.add(Count::Moves, newest.moves.iter().filter(is_done).count() as u64);
        }
        if let Some(node) = self.nodes().get_mut(&node) {
            node.map = Some(map);
        }
    }

    /// Records a violation, in the trace as well.
    pub(crate) fn violation(&self, what: String) {
        self.trace.event(&format!("VIOLATION {what}"));
        self.violations.add(format!("{:.3} s: {what}", self.trace.now().as_secs_f64()));
    }

    /// Sends an operator's command to a node, which proposes it until it is done. None if the node
    /// is down, or if the command was not done in time: then it may be done later.
    pub(crate) async fn propose(&self, at: NodeId, command: &Command) -> Option<Outcome> {
        let RunningNode { plane, life, .. } = &*self.member(at)?;
        let proposer = Proposer::of_node(plane);
        let proposed = tokio::select! {
            biased;
            () = life.ended() => return None,
            proposed = proposer.propose(command, PROPOSE_TIMEOUT) => proposed,
        };
        proposed.ok()
    }
}

/// The map's entry for a node. Its addresses are only names: the simulation has no sockets.
pub(crate) fn node_info(id: NodeId) -> NodeInfo {
    NodeInfo { id, addresses: addresses(id.0), zone: String::new(), weight: 100, state: NodeState::Active }
}

pub(crate) fn addresses(machine: u64) -> NodeAddresses {
    let address = |port: u16| format!("10.0.0.{machine}:{port}");
    NodeAddresses { client: address(7001), peer: address(7002), ops: address(7003) }
}

fn choose_keys(
    cluster: &ClusterInfo,
    shards: &[ShardInfo],
    per_shard: usize,
) -> anyhow::Result<BTreeMap<ShardId, Vec<Key>>> {
    let arcs = ArcTable::new(shards.iter().map(|shard| (shard.id, shard.arc)))?;
    let mut keys: BTreeMap<ShardId, Vec<Key>> = BTreeMap::new();
    for number in 0.. {
        let key = Key::new(format!("key-{number}"))?;
        let of_shard = keys.entry(arcs.lookup(quorate_ring::token(&cluster.hash_key, &key))).or_default();
        if of_shard.len() < per_shard {
            of_shard.push(key);
        }
        if keys.len() == shards.len() && keys.values().all(|keys| keys.len() == per_shard) {
            break;
        }
    }
    Ok(keys)
}
