//! The cluster as group 0 has it: a set of records, and what a command changes in it.

use std::collections::BTreeMap;

use quorate_types::operation::{Operation, OperationId, ReplicaMove};
use quorate_types::topology::{Bootstrap, Command, NodeInfo, Outcome, Placement, ShardInfo, Topology};
use quorate_types::{GroupId, NodeId, ShardId};

use crate::bootstrap;
use crate::record::{Change, Counters, Record};

/// The state of the topology group: exactly what its records say, in memory.
///
/// # Invariants
/// * A command is decided first and changes the state afterwards, by changes of records alone. So the state that is read back
///   from the records is this one, and a refused command changes nothing.
/// * Before the bootstrap there is nothing; after it the arcs of the shards cover the ring exactly once.
/// * Ids of nodes, replicas and operations are given out once: the counters only grow, and a replica id that left the map
///   cannot return to it.
/// * A shard has as many replicas as the bootstrap says, on distinct nodes, none of them removed; with the one on its way to it,
///   if there is one, on one node more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterState {
    bootstrap: Option<Bootstrap>,
    counters: Counters,
    pub(crate) nodes: BTreeMap<NodeId, NodeInfo>,
    pub(crate) shards: BTreeMap<ShardId, ShardInfo>,
    pub(crate) moves: BTreeMap<GroupId, ReplicaMove>,
    pub(crate) operations: BTreeMap<OperationId, Operation>,
    pub(crate) paused: bool,
    /// Once they are not those of the bootstrap any more.
    moved_topology_replicas: Option<Vec<Placement>>,
}

/// What a command comes to before it is done: its outcome and its changes, or why it is refused. Counters are not among the
/// changes; `apply` adds them.
pub(crate) type Decision = Result<(Outcome, Vec<Change>), String>;

impl ClusterState {
    /// The state that these records say.
    pub fn from_records(records: impl IntoIterator<Item = Record>) -> Self {
        let mut state = ClusterState::default();
        records.into_iter().for_each(|record| state.absorb(&Change::Put(record)));
        state
    }

    /// Applies a command: gives its outcome, and the changes of records that it made. The same state and the same command give
    /// the same answer everywhere.
    pub fn apply(&mut self, command: &Command) -> (Outcome, Vec<Change>) {
        match self.decide(command) {
            Err(reason) => (Outcome::Refused(reason), Vec::new()),
            Ok((outcome, mut changes)) => {
                changes.retain(|change| !self.is_so(change));
                let counters = self.count(&changes);
                if counters != self.counters {
                    changes.push(Change::Put(Record::Counters(counters)));
                }
                changes.iter().for_each(|change| self.absorb(change));
                (outcome, changes)
            }
        }
    }

    /// What a command would come to, if it were applied now.
    pub fn outcome_of(&self, command: &Command) -> Outcome {
        self.decide(command).map_or_else(Outcome::Refused, |(outcome, _)| outcome)
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

    /// What only grows.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The operations: those that run, and the last ones that ended, by id.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.values()
    }

    /// The order that bootstrapped the cluster.
    pub(crate) fn bootstrap(&self) -> Option<&Bootstrap> {
        self.bootstrap.as_ref()
    }

    /// Group 0's own replicas; none before the bootstrap.
    pub(crate) fn topology_replicas(&self) -> &[Placement] {
        let bootstrapped = self.bootstrap.as_ref().map_or(&[][..], |bootstrap| &bootstrap.topology_replicas);
        self.moved_topology_replicas.as_deref().unwrap_or(bootstrapped)
    }

    /// How many replicas every shard has; 0 before the bootstrap.
    pub(crate) fn replicas_of_a_shard(&self) -> u32 {
        self.bootstrap.as_ref().map_or(0, |bootstrap| bootstrap.cluster.replicas)
    }

    fn decide(&self, command: &Command) -> Decision {
        match command {
            Command::Bootstrap(bootstrap, shards) => self.apply_bootstrap(bootstrap, shards),
            _ if self.bootstrap.is_none() => Err("the cluster is not bootstrapped yet".into()),
            Command::RegisterNode { addresses, zone, weight } => self.register_node(addresses, zone, *weight),
            Command::UpdateNode { id, addresses, zone, weight } => self.update_node(*id, addresses, zone, *weight),
            Command::StartOperation { intent, planned_on, now_ms } => {
                self.start_operation(intent, *planned_on, *now_ms)
            }
            Command::FinishOperation { id, now_ms } => self.finish_operation(*id, *now_ms),
            Command::CancelOperation { id, now_ms } => self.cancel_operation(*id, *now_ms),
            Command::StartMove { group, from, to, operation } => self.start_move(*group, *from, *to, *operation),
            Command::FinishMove(moving) => self.finish_move(moving),
            Command::FinishCancelledMove(moving) => self.finish_cancelled_move(moving),
            Command::PauseMoves { paused } => self.pause_moves(*paused),
            Command::CancelMove(moving) => self.cancel_move(moving),
        }
    }

    /// The first command. What it says must be what this release would have planned: every initial node has recorded the same.
    fn apply_bootstrap(&self, order: &Bootstrap, shards: &[ShardInfo]) -> Decision {
        if let Some(bootstrapped) = &self.bootstrap {
            if bootstrapped != order {
                return Err(format!(
                    "the cluster is bootstrapped already, as {}, by another order",
                    bootstrapped.cluster.id
                ));
            }
            return Ok((Outcome::Done, Vec::new()));
        }
        let (planned, planned_shards) =
            bootstrap::plan_bootstrap(&order.cluster, &order.nodes).map_err(|refusal| refusal.to_string())?;
        if planned != *order {
            return Err("the initial nodes and their topology replicas are not as planned from the same nodes".into());
        }
        if planned_shards != shards {
            return Err("the shards are not those that follow from the bootstrap".into());
        }
        let nodes = order.nodes.iter().cloned().map(Record::Node);
        let shards = planned_shards.into_iter().map(Record::Shard);
        let records = [Record::Bootstrap(planned)].into_iter().chain(nodes).chain(shards);
        Ok((Outcome::Done, records.map(Change::Put).collect()))
    }

    /// The counters after the changes.
    fn count(&self, changes: &[Change]) -> Counters {
        let mut counters = self.counters;
        let mut shows = false;
        for change in changes {
            shows |= !matches!(change, Change::Put(Record::Operation(_)) | Change::ForgetOperation(_));
            let Change::Put(record) = change else { continue };
            let replicas = match record {
                Record::Bootstrap(bootstrap) => &bootstrap.topology_replicas[..],
                Record::Shard(shard) => &shard.replicas,
                Record::Move(moving) => moving.to.as_slice(),
                Record::TopologyReplicas(replicas) => replicas,
                Record::Node(node) => {
                    counters.last_node = counters.last_node.max(node.id);
                    &[]
                }
                Record::Operation(operation) => {
                    counters.last_operation = counters.last_operation.max(operation.id);
                    &[]
                }
                Record::Counters(_) | Record::Paused(_) => &[],
            };
            let last = replicas.iter().map(|placement| placement.replica).max();
            counters.last_replica = counters.last_replica.max(last.unwrap_or_default());
        }
        counters.revision += u64::from(shows);
        counters
    }

    /// Whether a change would change nothing.
    fn is_so(&self, change: &Change) -> bool {
        match change {
            Change::Put(Record::Node(node)) => self.nodes.get(&node.id) == Some(node),
            Change::Put(Record::Move(moving)) => self.moves.get(&moving.group) == Some(moving),
            _ => false,
        }
    }

    /// Makes one change.
    fn absorb(&mut self, change: &Change) {
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
