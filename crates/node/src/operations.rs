//! Operators' requests, accepted by any node and forwarded to the topology group. Its leader alone
//! reports progress and plans.

use std::time::Duration;

use quorate_control::Proposed;
use quorate_control::proposer::try_out as try_out_here;
use quorate_raft::OrderError;
use quorate_topology::{ClusterState, Progress, check_room, possible_moves};
use quorate_types::operation::{Intent, Operation, OperationId, PlannedMove};
use quorate_types::report::OrderKind;
use quorate_types::topology::{Command, Outcome};
use quorate_types::{NodeId, Rejection, ShardId};

use crate::cluster_node::ClusterNode;
use crate::refusal::Refusal;

/// How long the topology group may take to record an operation.
const RECORD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a leader transfer may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(5);

/// An operator's request to start an operation.
pub(crate) struct OperationRequest {
    /// The goal of the operation.
    pub(crate) intent: Intent,
    /// The revision of the topology that it was planned on; 0 accepts any.
    pub(crate) planned_on: u64,
    /// The typed address of a dead node; empty if it was not typed.
    pub(crate) confirm: String,
}

impl OperationRequest {
    fn command(self, member: &ClusterNode) -> Command {
        let OperationRequest { intent, planned_on, confirm } = self;
        Command::StartOperation { intent, planned_on, confirm, now_ms: member.plane.clock.now_ms() }
    }
}

/// Starts an operation. Returns its id and whether it was running already; none if there is nothing
/// to do.
pub(crate) async fn start(
    member: &ClusterNode,
    request: OperationRequest,
) -> Result<Option<(OperationId, bool)>, Refusal> {
    // Where another node leads the topology group, its planner holds a move without room.
    if let Ok(cluster) = member.plane.confirmed_cluster().await {
        check_move(member, &cluster, &request.intent)?;
    }
    propose(member, request.command(member)).await.map(started)
}

/// The outcome of starting an operation now, without proposing it. Only the leader of the topology
/// group can tell.
pub(crate) async fn try_out(
    member: &ClusterNode,
    request: OperationRequest,
) -> Result<Option<(OperationId, bool)>, Refusal> {
    let cluster = member.plane.confirmed_cluster().await?;
    check_move(member, &cluster, &request.intent)?;
    match try_out_here(&member.plane, &request.command(member)).await? {
        Proposed::Outcome(Outcome::Refused(reason)) => Err(Refusal::Precondition(reason)),
        Proposed::Outcome(outcome) => Ok(started(outcome)),
        Proposed::NotLeader(leader) => Err(Rejection::NotLeader { leader }.into()),
        Proposed::NotYet(reason) => Err(Refusal::NotYet(reason)),
    }
}

/// Refuses a move whose target has no room for the replica.
fn check_move(member: &ClusterNode, cluster: &ClusterState, intent: &Intent) -> Result<(), Refusal> {
    let Intent::Move { planned } = intent else { return Ok(()) };
    check_room(cluster, &member.plane.reconciler.reports(), *planned).map_err(|no_space| {
        Refusal::Precondition(format!("{no_space}; choose another node or free disk space: quorate node list"))
    })
}

fn started(outcome: Outcome) -> Option<(OperationId, bool)> {
    match outcome {
        Outcome::Operation { id, already } => Some((id, already)),
        _ => None,
    }
}

/// Cancels an operation.
pub(crate) async fn cancel(member: &ClusterNode, id: OperationId) -> Result<(), Refusal> {
    propose(member, Command::CancelOperation { id, now_ms: member.plane.clock.now_ms() }).await.map(drop)
}

/// Pauses or resumes the start of moves.
pub(crate) async fn pause(member: &ClusterNode, paused: bool) -> Result<(), Refusal> {
    propose(member, Command::PauseMoves { paused }).await.map(drop)
}

/// The operations and their progress.
pub(crate) struct Listing {
    /// The operations, oldest first, with their progress.
    pub(crate) operations: Vec<(Operation, Progress)>,
    /// Why the cluster's own upkeep waits, beyond the reasons listed with operations.
    pub(crate) upkeep_waits: Vec<String>,
}

/// Lists the operations and their progress.
pub(crate) async fn list(member: &ClusterNode) -> Result<Listing, Refusal> {
    let cluster = member.plane.confirmed_cluster().await?;
    let with_progress = |operation: &Operation| (operation.clone(), member.plane.reconciler.progress(operation.id));
    let operations: Vec<(Operation, Progress)> = cluster.operations().map(with_progress).collect();
    let mut upkeep_waits = member.plane.reconciler.progress(OperationId::UPKEEP).waits;
    upkeep_waits.retain(|wait| !operations.iter().any(|(_, progress)| progress.waits.contains(wait)));
    Ok(Listing { operations, upkeep_waits })
}

/// The moves that would even out the replicas, without shards that an operation is moving, and the
/// revision that they are planned on.
pub(crate) async fn plan(member: &ClusterNode) -> Result<(u64, Vec<PlannedMove>), Refusal> {
    let cluster = member.plane.confirmed_cluster().await?;
    let moves = possible_moves(&cluster).into_iter();
    let planned = moves.map(|wanted| PlannedMove { shard: wanted.shard, from: wanted.from, to: wanted.to });
    Ok((cluster.counters().revision, planned.collect()))
}

/// Transfers the leader of a shard from this node to another node's replica, and waits for it.
pub(crate) async fn transfer_leader(member: &ClusterNode, shard: ShardId, to: NodeId) -> Result<(), Refusal> {
    let map = member.store().feed.latest().ok_or(Refusal::NoCluster)?;
    let info = map.shard(shard).ok_or_else(|| Refusal::NotFound(format!("there is no shard {shard}")))?;
    if map.topology.moves.iter().any(|moving| moving.group == shard.group()) {
        return Err(Refusal::Precondition(format!(
            "a replica of shard {shard} is in motion; wait for it: quorate op list"
        )));
    }
    let Some(at) = info.replicas.iter().find(|at| at.node == to) else {
        return Err(Refusal::Precondition(format!(
            "node {to} has no replica of shard {shard}; see: quorate shard show {shard}"
        )));
    };
    let here = member.store().shards.get(shard);
    let group = here.ok_or_else(|| Refusal::NotFound(format!("this node has no replica of shard {shard}")))?;
    if !group.replica().is_leader() {
        return Err(Refusal::Rejected(Rejection::NotLeader { leader: group.replica().leader() }));
    }
    let order = OrderKind::TransferLeader(at.replica);
    let handed = member.store().groups.execute(shard.group(), order, TRANSFER_TIMEOUT).await;
    handed.map_err(|error| match error {
        OrderError::Refused(reason) => Refusal::Precondition(reason),
        OrderError::Unknown(reason) => Refusal::Unknown(reason),
    })
}

async fn propose(member: &ClusterNode, command: Command) -> Result<Outcome, Refusal> {
    match member.proposer().propose(&command, RECORD_TIMEOUT).await? {
        Outcome::Refused(reason) => Err(Refusal::Precondition(reason)),
        outcome => {
            member.plane.reconciler.kick();
            Ok(outcome)
        }
    }
}
