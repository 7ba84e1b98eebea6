//! What operators ask of the cluster, at whichever node: passed on to group 0; what only its leader knows is answered by it alone.

use std::time::Duration;

use quorate_raft::OrderError;
use quorate_topology::{Progress, possible_moves};
use quorate_types::operation::{Intent, Operation, OperationId, PlannedMove};
use quorate_types::report::OrderKind;
use quorate_types::topology::{Command, Outcome};
use quorate_types::{NodeId, ShardId};

use crate::member::Member;
use crate::propose::Proposer;
use crate::reconciler::now_ms;
use crate::refusal::Refusal;

/// How long group 0 may take.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the confirmation may take that this node leads group 0.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// How long another voter may take to take over.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts an operation. Gives its id and whether it runs already; none where there is nothing to do.
pub(crate) async fn start(
    member: &Member,
    intent: Intent,
    planned_on: u64,
) -> Result<Option<(OperationId, bool)>, Refusal> {
    let command = Command::StartOperation { intent, planned_on, now_ms: now_ms() };
    propose(member, command).await.map(started)
}

/// What starting an operation would come to, or why it would be refused; nothing is proposed. Only the leader of group 0 knows.
pub(crate) async fn try_out(
    member: &Member,
    intent: Intent,
    planned_on: u64,
) -> Result<Option<(OperationId, bool)>, Refusal> {
    let cluster = member.confirmed_cluster(CONFIRM_TIMEOUT).await?;
    match cluster.outcome_of(&Command::StartOperation { intent, planned_on, now_ms: now_ms() }) {
        Outcome::Refused(reason) => Err(Refusal::Precondition(reason)),
        outcome => Ok(started(outcome)),
    }
}

fn started(outcome: Outcome) -> Option<(OperationId, bool)> {
    match outcome {
        Outcome::Operation { id, already } => Some((id, already)),
        _ => None,
    }
}

/// Takes an operation back.
pub(crate) async fn cancel(member: &Member, id: OperationId) -> Result<(), Refusal> {
    propose(member, Command::CancelOperation { id, now_ms: now_ms() }).await.map(drop)
}

/// Lets replicas start to move, or not.
pub(crate) async fn pause(member: &Member, paused: bool) -> Result<(), Refusal> {
    propose(member, Command::PauseMoves { paused }).await.map(drop)
}

/// The operations, and what stands still.
pub(crate) struct Listing {
    /// The operations, oldest first, and how far they are.
    pub(crate) operations: Vec<(Operation, Progress)>,
    /// What the cluster's own upkeep waits for, as far as no operation says so too.
    pub(crate) upkeep_waits: Vec<String>,
}

/// Lists what was asked for, and how far it is.
pub(crate) async fn list(member: &Member) -> Result<Listing, Refusal> {
    let cluster = member.confirmed_cluster(CONFIRM_TIMEOUT).await?;
    let with_progress = |operation: &Operation| (operation.clone(), member.reconciler.progress(operation.id));
    let operations: Vec<(Operation, Progress)> = cluster.operations().map(with_progress).collect();
    let mut upkeep_waits = member.reconciler.progress(OperationId::UPKEEP).waits;
    upkeep_waits.retain(|wait| !operations.iter().any(|(_, progress)| progress.waits.contains(wait)));
    Ok(Listing { operations, upkeep_waits })
}

/// The moves that would make the map even, as far as no operation moves their shards already, and the revision that they are planned on.
pub(crate) async fn plan(member: &Member) -> Result<(u64, Vec<PlannedMove>), Refusal> {
    let cluster = member.confirmed_cluster(CONFIRM_TIMEOUT).await?;
    let moves = possible_moves(&cluster).into_iter();
    let planned = moves.map(|wanted| PlannedMove { shard: wanted.shard, from: wanted.from, to: wanted.to });
    Ok((cluster.counters().revision, planned.collect()))
}

/// Hands the leadership of a shard that is led here to another node's replica, and waits for it.
pub(crate) async fn transfer_leader(member: &Member, shard: ShardId, to: NodeId) -> Result<(), Refusal> {
    let map = member.feed.latest().ok_or(Refusal::NoCluster)?;
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
    let here = member.shards.get(shard);
    let group = here.ok_or_else(|| Refusal::NotFound(format!("this node has no replica of shard {shard}")))?;
    if !group.replica().is_leader() {
        return Err(Refusal::Rejected(quorate_types::Rejection::NotLeader { leader: group.replica().leader() }));
    }
    let order = OrderKind::TransferLeader(at.replica);
    let handed = member.groups.execute(shard.group(), order, TRANSFER_TIMEOUT).await;
    handed.map_err(|error| match error {
        OrderError::Refused(reason) => Refusal::Precondition(reason),
        OrderError::Unknown(reason) => Refusal::Unknown(reason),
    })
}

async fn propose(member: &Member, command: Command) -> Result<Outcome, Refusal> {
    match Proposer::of_member(member).propose(&command, PROPOSE_TIMEOUT).await? {
        Outcome::Refused(reason) => Err(Refusal::Precondition(reason)),
        outcome => {
            member.reconciler.kick();
            Ok(outcome)
        }
    }
}
