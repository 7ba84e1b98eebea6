//! The cluster as group 0 has it: a set of records, and what a command changes in it.

use std::collections::BTreeMap;

use quorate_types::topology::{Command, Founding, NodeInfo, Outcome, ShardInfo, Topology};
use quorate_types::{NodeId, ReplicaId, ShardId};

use crate::founding;
use crate::record::{Allocation, Change, Counters, Record};

/// The state of the topology group: exactly what its records say, in memory.
///
/// # Invariants
/// * A command is decided first and changes the state afterwards, by changes of records alone. So the state that is read back
///   from the records is this one, and a refused command changes nothing.
/// * Before the founding there is nothing; after it the arcs of the shards cover the ring exactly once.
/// * Node ids and replica ids are given out once: the counters only grow, and an id that left the map cannot return to it.
/// * A shard has as many replicas as the founding says, on distinct nodes, none of them removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterState {
    founding: Option<Founding>,
    counters: Counters,
    pub(crate) nodes: BTreeMap<NodeId, NodeInfo>,
    pub(crate) shards: BTreeMap<ShardId, ShardInfo>,
    pub(crate) allocations: BTreeMap<ReplicaId, Allocation>,
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
                let counters = self.count(&changes);
                if counters != self.counters {
                    changes.push(Change::Put(Record::Counters(counters)));
                }
                changes.iter().for_each(|change| self.absorb(change));
                (outcome, changes)
            }
        }
    }

    /// The cluster as nodes act on it and clients route by it; none before the founding.
    pub fn topology(&self) -> Option<Topology> {
        let founding = self.founding.as_ref()?;
        let mut shards: Vec<ShardInfo> = self.shards.values().cloned().collect();
        shards.sort_by_key(|shard| shard.arc.start);
        Some(Topology {
            revision: self.counters.revision,
            cluster: founding.cluster.clone(),
            nodes: self.nodes.values().cloned().collect(),
            shards,
            topology_replicas: founding.topology_replicas.clone(),
        })
    }

    /// What only grows.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many replicas every shard has; 0 before the founding.
    pub(crate) fn replicas_of_a_shard(&self) -> u32 {
        self.founding.as_ref().map_or(0, |founding| founding.cluster.replicas)
    }

    fn decide(&self, command: &Command) -> Decision {
        match command {
            Command::Found(founding, shards) => self.found(founding, shards),
            _ if self.founding.is_none() => Err("the cluster is not founded yet".into()),
            Command::RegisterNode { addresses, zone, weight } => self.register_node(addresses, zone, *weight),
            Command::UpdateNode { id, addresses, zone, weight } => self.update_node(*id, addresses, zone, *weight),
            Command::SetNodeState { id, state } => self.set_node_state(*id, *state),
            Command::AllocateReplica { shard, node } => self.allocate_replica(*shard, *node),
            Command::PlaceShard { shard, expected, replicas } => self.place_shard(*shard, expected, replicas),
        }
    }

    /// The first command. What it says must be what this release would have planned: every founder has recorded the same.
    fn found(&self, order: &Founding, shards: &[ShardInfo]) -> Decision {
        if let Some(founded) = &self.founding {
            if founded != order {
                return Err(format!("the cluster is founded already, as {}, by another order", founded.cluster.id));
            }
            return Ok((Outcome::Done, Vec::new()));
        }
        let (planned, planned_shards) =
            founding::plan_founding(&order.cluster, &order.nodes).map_err(|refusal| refusal.to_string())?;
        if planned != *order {
            return Err("the founders and their topology replicas are not as planned from the same nodes".into());
        }
        if planned_shards != shards {
            return Err("the shards are not those that follow from the founding".into());
        }
        let nodes = order.nodes.iter().cloned().map(Record::Node);
        let shards = planned_shards.into_iter().map(Record::Shard);
        let records = [Record::Founding(planned)].into_iter().chain(nodes).chain(shards);
        Ok((Outcome::Done, records.map(Change::Put).collect()))
    }

    /// The counters after the changes.
    fn count(&self, changes: &[Change]) -> Counters {
        let mut counters = self.counters;
        let mut shows = false;
        for change in changes {
            let Change::Put(record) = change else { continue };
            shows |= matches!(record, Record::Founding(_) | Record::Node(_) | Record::Shard(_));
            if let Record::Node(node) = record {
                counters.last_node = counters.last_node.max(node.id);
            }
            let replicas = match record {
                Record::Founding(founding) => &founding.topology_replicas[..],
                Record::Shard(shard) => &shard.replicas,
                Record::Allocation(allocation) => std::slice::from_ref(&allocation.placement),
                Record::Node(_) | Record::Counters(_) => &[],
            };
            let last = replicas.iter().map(|placement| placement.replica).max();
            counters.last_replica = counters.last_replica.max(last.unwrap_or_default());
        }
        counters.revision += u64::from(shows);
        counters
    }

    /// Makes one change.
    fn absorb(&mut self, change: &Change) {
        match change.clone() {
            Change::Put(Record::Counters(counters)) => self.counters = counters,
            Change::Put(Record::Founding(founding)) => self.founding = Some(founding),
            Change::Put(Record::Node(node)) => {
                self.nodes.insert(node.id, node);
            }
            Change::Put(Record::Shard(shard)) => {
                self.shards.insert(shard.id, shard);
            }
            Change::Put(Record::Allocation(allocation)) => {
                self.allocations.insert(allocation.placement.replica, allocation);
            }
            Change::Forget(replica) => {
                self.allocations.remove(&replica);
            }
        }
    }
}
