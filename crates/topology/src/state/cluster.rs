//! The records of the topology group in memory.

use std::collections::BTreeMap;

use quorate_types::operation::{Operation, OperationId, OperationState, ReplicaMove};
use quorate_types::topology::{Bootstrap, NodeInfo, NodeState, Placement, ShardInfo, Topology};
use quorate_types::{GroupId, NodeId, ShardId};

use crate::record::{Change, Counters, Record};

/// The state of the topology group: exactly its records, in memory.
///
/// # Invariants
/// * The state changes only by changes of records, after a command was decided. So the records read
///   back from disk give the same state, and a refused command changes nothing.
/// * Before the bootstrap there are no records; after it the arcs of the shards cover the ring
///   exactly once.
/// * Ids of nodes, replicas and operations are given out once: the counters only grow, and a
///   replica id that left the map cannot return to it.
/// * A shard has as many replicas as the bootstrap says, on distinct nodes, none of them removed.
///   A replica that moves to the shard is on one more node, or on the node of the one it replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterState {
    pub(super) bootstrap: Option<Bootstrap>,
    pub(super) counters: Counters,
    pub(crate) nodes: BTreeMap<NodeId, NodeInfo>,
    pub(crate) shards: BTreeMap<ShardId, ShardInfo>,
    pub(crate) moves: BTreeMap<GroupId, ReplicaMove>,
    pub(super) operations: BTreeMap<OperationId, Operation>,
    pub(crate) paused: bool,
    /// The topology group's replicas, once they differ from those of the bootstrap.
    moved_topology_replicas: Option<Vec<Placement>>,
}

/// A command names something that the cluster does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unknown {
    /// The cluster never had a node with this id.
    #[error("there is no node {0}")]
    Node(NodeId),
    /// The map has no shard with this id.
    #[error("there is no shard {0}")]
    Shard(ShardId),
    /// The operation never started, or ended long ago.
    #[error("there is no operation {0}")]
    Operation(OperationId),
}

impl ClusterState {
    /// The state that consists of these records.
    pub fn from_records(records: impl IntoIterator<Item = Record>) -> Self {
        let mut state = ClusterState::default();
        for record in records {
            state.absorb(&Change::Put(record));
        }
        state
    }

    /// The cluster as nodes act on it and clients route by it; none before the bootstrap.
    pub fn topology(&self) -> Option<Topology> {
        let bootstrap = self.bootstrap.as_ref()?;
        let mut shards: Vec<ShardInfo> = self.shards.values().cloned().collect();
        shards.sort_by_key(|shard| shard.arc.start);
        Some(Topology {
            revision: self.counters.revision,
            cluster: bootstrap.cluster.clone(),
            nodes: self.nodes.values().cloned().collect(),
            shards,
            topology_replicas: self.topology_replicas().to_vec(),
            moves: self.moves.values().copied().collect(),
            paused: self.paused,
        })
    }

    /// The revision, and the last ids given out.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The operations on record, by id: those that run, and the last ones that ended.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.values()
    }

    /// The running operations, by id.
    pub fn running_operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.values().filter(|operation| operation.state == OperationState::Running)
    }

    /// The order that bootstrapped the cluster.
    pub(crate) fn bootstrap(&self) -> Option<&Bootstrap> {
        self.bootstrap.as_ref()
    }

    /// The replicas of the topology group; none before the bootstrap.
    pub(crate) fn topology_replicas(&self) -> &[Placement] {
        let bootstrapped = self.bootstrap.as_ref().map_or(&[][..], |bootstrap| &bootstrap.topology_replicas);
        self.moved_topology_replicas.as_deref().unwrap_or(bootstrapped)
    }

    /// The replicas of a group as the map has them, without the one that moves to it.
    pub(crate) fn replicas(&self, group: GroupId) -> Result<&[Placement], Unknown> {
        match group.shard() {
            Some(shard) => Ok(&self.shard(shard)?.replicas),
            None => Ok(self.topology_replicas()),
        }
    }

    /// The number of replicas of every shard; 0 before the bootstrap.
    pub(crate) fn replicas_per_shard(&self) -> u32 {
        self.bootstrap.as_ref().map_or(0, |bootstrap| bootstrap.cluster.replicas)
    }

    /// The node of that id, in any state.
    pub(crate) fn node(&self, id: NodeId) -> Result<&NodeInfo, Unknown> {
        self.nodes.get(&id).ok_or(Unknown::Node(id))
    }

    /// The active nodes that may hold replicas: those with a weight.
    pub(crate) fn replica_nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values().filter(|node| node.state == NodeState::Active && node.weight > 0)
    }

    /// The shard of that id.
    pub(crate) fn shard(&self, id: ShardId) -> Result<&ShardInfo, Unknown> {
        self.shards.get(&id).ok_or(Unknown::Shard(id))
    }

    /// Whether the map has a replica of the shard on the node.
    pub(crate) fn has_replica(&self, shard: ShardId, node: NodeId) -> bool {
        self.shards.get(&shard).is_some_and(|shard| shard.replicas.iter().any(|at| at.node == node))
    }

    /// The operation of that id, if it is still on record.
    pub(crate) fn operation(&self, id: OperationId) -> Result<&Operation, Unknown> {
        self.operations.get(&id).ok_or(Unknown::Operation(id))
    }

    /// The running operation that a move belongs to. A move of an ended operation is upkeep.
    pub(crate) fn owner(&self, moving: &ReplicaMove) -> OperationId {
        match self.operations.get(&moving.operation) {
            Some(known) if known.state == OperationState::Running => known.id,
            _ => OperationId::UPKEEP,
        }
    }

    /// Makes one change.
    pub(super) fn absorb(&mut self, change: &Change) {
        match change.clone() {
            Change::Put(Record::Counters(counters)) => self.counters = counters,
            Change::Put(Record::Bootstrap(bootstrap)) => self.bootstrap = Some(bootstrap),
            Change::Put(Record::Node(node)) => {
                self.nodes.insert(node.id, node);
            }
            Change::Put(Record::Shard(shard)) => {
                self.shards.insert(shard.id, shard);
            }
            Change::Put(Record::Move(moving)) => {
                self.moves.insert(moving.group, moving);
            }
            Change::Put(Record::Operation(operation)) => {
                self.operations.insert(operation.id, operation);
            }
            Change::Put(Record::Paused(paused)) => self.paused = paused,
            Change::Put(Record::TopologyReplicas(replicas)) => self.moved_topology_replicas = Some(replicas),
            Change::ForgetMove(group) => {
                self.moves.remove(&group);
            }
            Change::ForgetOperation(id) => {
                self.operations.remove(&id);
            }
        }
    }
}
