//! The topology group has 5, 3 or 1 voters, as many as there are active nodes for, in distinct
//! zones where possible.

use std::collections::BTreeMap;

use quorate_types::operation::OperationId;
use quorate_types::topology::{Command, NodeInfo, NodeState, Placement};
use quorate_types::{GroupId, NodeId};

use super::blocked::Blocked;
use super::reports::Reports;
use super::steps::{Plan, Step};
use crate::bootstrap::TOPOLOGY_VOTERS;
use crate::state::ClusterState;

/// Starts at most one move of the topology group.
///
/// The move belongs to upkeep and to no operation. Operations that depend on it show its reason to
/// wait too.
pub(super) fn plan(cluster: &ClusterState, reports: &Reports, plan: &mut Plan) {
    let operation = OperationId::UPKEEP;
    let group = GroupId::TOPOLOGY;
    if cluster.moves.contains_key(&group) {
        return;
    }
    let (from, to) = match next_move(cluster, reports) {
        Ok((None, None)) => return,
        Ok(_) if cluster.paused => return plan.block(operation, group, &Blocked::Paused),
        Ok(ends) => ends,
        Err(reason) => return plan.block(operation, group, &reason),
    };
    let from = from.map(|at| at.replica);
    plan.steps.push(Step::Propose(Command::StartMove { group, from, to, operation }));
}

/// The voter to remove and the node that gets a vote; neither if the voters are as they should be.
fn next_move(cluster: &ClusterState, reports: &Reports) -> Result<(Option<Placement>, Option<NodeId>), Blocked> {
    let voters = cluster.topology_replicas();
    let is_active = |id: NodeId| cluster.nodes.get(&id).is_some_and(|node| node.state == NodeState::Active);
    let active = cluster.nodes.values().filter(|node| node.state == NodeState::Active).count();
    let wanted = TOPOLOGY_VOTERS.into_iter().find(|&wanted| wanted <= active).unwrap_or(1);
    let leaving = voters.iter().find(|at| !is_active(at.node)).copied();
    let next = next_voter(cluster, reports);
    match leaving {
        Some(_) if voters.len() > wanted => Ok((leaving, None)),
        Some(_) => Ok((leaving, Some(next.ok_or(Blocked::NoTarget)?))),
        None if voters.len() > wanted => Ok((surplus_voter(cluster, reports), None)),
        None if voters.len() < wanted => Ok((None, Some(next.ok_or(Blocked::NoVoter)?))),
        None => Ok((None, None)),
    }
}

/// The active node that gets the next vote: of the zone with the fewest voters, the lowest id.
pub(super) fn next_voter(cluster: &ClusterState, reports: &Reports) -> Option<NodeId> {
    let voters = cluster.topology_replicas();
    let mut voters_of_zone: BTreeMap<&str, usize> = BTreeMap::new();
    for at in voters {
        if let Some(node) = cluster.nodes.get(&at.node).filter(|node| node.state == NodeState::Active) {
            *voters_of_zone.entry(&node.zone).or_default() += 1;
        }
    }
    let can_vote = |node: &&NodeInfo| {
        let is_new = !voters.iter().any(|at| at.node == node.id);
        node.state == NodeState::Active && reports.can_take_replica(node.id) && is_new
    };
    let able = cluster.nodes.values().filter(can_vote);
    let next = able.min_by_key(|node| (voters_of_zone.get(node.zone.as_str()).copied().unwrap_or_default(), node.id));
    next.map(|node| node.id)
}

/// The voter to remove if there is one too many: an unreachable or a doubtful one, else the last
/// that does not lead.
fn surplus_voter(cluster: &ClusterState, reports: &Reports) -> Option<Placement> {
    let voters = cluster.topology_replicas();
    let leader = reports.leader(GroupId::TOPOLOGY, voters).map(|(at, _)| at);
    let lost = voters.iter().find(|at| !reports.answers(at.node) || reports.is_doubtful(**at));
    lost.or_else(|| voters.iter().rev().find(|at| Some(**at) != leader)).copied()
}
