//! Applies the commands of the topology group's log.

use quorate_types::operation::OperationId;
use quorate_types::topology::{Bootstrap, Command, Outcome, ShardInfo};
use quorate_types::{ClusterId, NodeId, ReplicaId};

use super::checks::{check_change, check_counters};
use super::cluster::ClusterState;
use super::moves::MoveRefused;
use super::nodes::NodeRefused;
use super::operation_refused::OperationRefused;
use super::{completion, moves, nodes, operations};
use crate::bootstrap::{self, BootstrapError};
use crate::record::{Change, Counters, Record};

/// The reason why a command is refused. The same on every replica; the caller must ask for
/// something else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("the cluster is not bootstrapped yet")]
    NotBootstrapped,
    #[error("the cluster is bootstrapped already, as {0}, by another order")]
    Bootstrapped(ClusterId),
    #[error("the initial nodes and their topology replicas are not as planned from the same nodes")]
    OtherReplicas,
    #[error("the shards are not those that follow from the bootstrap")]
    OtherShards,
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error(transparent)]
    Node(#[from] NodeRefused),
    #[error(transparent)]
    Move(#[from] MoveRefused),
    #[error(transparent)]
    Operation(#[from] OperationRefused),
}

/// The outcome of a command and the changes that it makes, or the refusal. Counters are not among
/// the changes; `apply` adds them.
type Decision = Result<(Outcome, Vec<Change>), Refused>;

impl ClusterState {
    /// Applies a command. Gives its outcome and the changes of records that it made. The same state
    /// and the same command give the same answer on every replica.
    pub fn apply(&mut self, command: &Command) -> (Outcome, Vec<Change>) {
        let (outcome, mut changes) = match decide(self, command) {
            Ok(decided) => decided,
            Err(refused) => return (Outcome::Refused(refused.to_string()), Vec::new()),
        };
        changes.retain(|change| !is_recorded(self, change));
        let counters = count(self.counters, &changes);
        check_counters(self.counters, counters);
        if counters != self.counters {
            changes.push(Change::Put(Record::Counters(counters)));
        }
        for change in &changes {
            self.absorb(change);
        }
        for change in &changes {
            check_change(self, change);
        }
        (outcome, changes)
    }

    /// The outcome that a command would have if it were applied now.
    pub fn outcome_of(&self, command: &Command) -> Outcome {
        match decide(self, command) {
            Ok((outcome, _)) => outcome,
            Err(refused) => Outcome::Refused(refused.to_string()),
        }
    }
}

fn decide(state: &ClusterState, command: &Command) -> Decision {
    let decided = match command {
        Command::Bootstrap(bootstrap, shards) => decide_bootstrap(state, bootstrap, shards)?,
        _ if state.bootstrap.is_none() => return Err(Refused::NotBootstrapped),
        Command::RegisterNode { addresses, zone, weight } => nodes::register(state, addresses, zone, *weight)?,
        Command::UpdateNode { id, addresses, zone, weight } => nodes::update(state, *id, addresses, zone, *weight)?,
        Command::StartOperation { intent, planned_on, confirm, now_ms } => {
            operations::start(state, intent, *planned_on, confirm, *now_ms)?
        }
        Command::FinishOperation { id, now_ms } => completion::finish(state, *id, *now_ms)?,
        Command::CancelOperation { id, now_ms } => completion::cancel(state, *id, *now_ms)?,
        Command::StartMove { group, from, to, operation } => moves::start(state, *group, *from, *to, *operation)?,
        Command::FinishMove(moving) => moves::finish(state, moving)?,
        Command::FinishCancelledMove(moving) => moves::finish_cancelled(state, moving)?,
        Command::PauseMoves { paused } => moves::pause(state, *paused)?,
        Command::CancelMove(moving) => moves::cancel(state, moving)?,
    };
    Ok(decided)
}

/// Decides the first command. Its cluster must be the one that this release plans: every initial
/// node has recorded the same.
fn decide_bootstrap(state: &ClusterState, order: &Bootstrap, shards: &[ShardInfo]) -> Decision {
    if let Some(bootstrapped) = &state.bootstrap {
        if bootstrapped != order {
            return Err(Refused::Bootstrapped(bootstrapped.cluster.id));
        }
        return Ok((Outcome::Done, Vec::new()));
    }
    assert!(state.nodes.is_empty() && state.shards.is_empty(), "records before the bootstrap");
    let (planned, planned_shards) = bootstrap::plan_bootstrap(&order.cluster, &order.nodes)?;
    if planned != *order {
        return Err(Refused::OtherReplicas);
    }
    if planned_shards != shards {
        return Err(Refused::OtherShards);
    }
    let nodes = order.nodes.iter().cloned().map(Record::Node);
    let shards = planned_shards.into_iter().map(Record::Shard);
    let records = [Record::Bootstrap(planned)].into_iter().chain(nodes).chain(shards);
    Ok((Outcome::Done, records.map(Change::Put).collect()))
}

/// The counters after the changes. The revision grows if a [`quorate_types::topology::Topology`]
/// shows one of them.
fn count(mut counters: Counters, changes: &[Change]) -> Counters {
    let mut last_replica = |replica: ReplicaId| counters.last_replica = counters.last_replica.max(replica);
    let mut last_node = NodeId(0);
    let mut last_operation = OperationId(0);
    let mut shows = false;
    for change in changes {
        shows |= !matches!(change, Change::Put(Record::Operation(_)) | Change::ForgetOperation(_));
        let Change::Put(record) = change else { continue };
        match record {
            Record::Bootstrap(bootstrap) => {
                bootstrap.topology_replicas.iter().for_each(|at| last_replica(at.replica));
            }
            Record::Shard(shard) => shard.replicas.iter().for_each(|at| last_replica(at.replica)),
            Record::Move(moving) => moving.to.iter().for_each(|at| last_replica(at.replica)),
            Record::TopologyReplicas(replicas) => replicas.iter().for_each(|at| last_replica(at.replica)),
            Record::Node(node) => last_node = last_node.max(node.id),
            Record::Operation(operation) => last_operation = last_operation.max(operation.id),
            Record::Counters(_) | Record::Paused(_) => {}
        }
    }
    counters.last_node = counters.last_node.max(last_node);
    counters.last_operation = counters.last_operation.max(last_operation);
    counters.revision += u64::from(shows);
    counters
}

/// Whether the record of a change is in the state already.
fn is_recorded(state: &ClusterState, change: &Change) -> bool {
    match change {
        Change::Put(Record::Node(node)) => state.nodes.get(&node.id) == Some(node),
        Change::Put(Record::Move(moving)) => state.moves.get(&moving.group) == Some(moving),
        _ => false,
    }
}
