//! Group 0 has 5, 3 or 1 voters, as many as there are active nodes for, in distinct zones where possible.

use std::collections::BTreeMap;

use quorate_types::operation::OperationId;
use quorate_types::topology::{Command, NodeInfo, NodeState, Placement};
use quorate_types::{GroupId, NodeId};

use super::{Plan, Reports, Step};
use crate::bootstrap::TOPOLOGY_VOTERS;
use crate::cluster::ClusterState;
use crate::moves::name;

/// Starts at most one move.
pub(super) fn plan(cluster: &ClusterState, reports: &Reports, plan: &mut Plan) {
    if cluster.moves.contains_key(&GroupId::TOPOLOGY) {
        return;
    }
    let voters = cluster.topology_replicas();
    let active = |id: NodeId| cluster.nodes.get(&id).is_some_and(|node| node.state == NodeState::Active);
    let able = cluster.nodes.values().filter(|node| node.state == NodeState::Active).count();
    let wanted = TOPOLOGY_VOTERS.into_iter().find(|&wanted| wanted <= able).unwrap_or(1);
    let leaving = voters.iter().find(|at| !active(at.node)).copied();
    let newcomer = newcomer(cluster, reports);
    let (from, to) = match leaving {
        Some(leaving) if voters.len() > wanted => (Some(leaving), None),
        Some(leaving) => match newcomer {
            Some(node) => (Some(leaving), Some(node)),
            None => return wait(plan, "no other active node answers and can take its replica"),
        },
        None if voters.len() > wanted => (surplus(cluster, reports), None),
        None if voters.len() < wanted => match newcomer {
            Some(node) => (None, Some(node)),
            None => return wait(plan, "no other active node answers and can vote, and it should have more voters"),
        },
        None => return,
    };
    if from.is_none() && to.is_none() {
        return;
    }
    if cluster.paused {
        return wait(plan, "moves are paused; go on with: quorate rebalance resume");
    }
    let from = from.map(|at| at.replica);
    let operation = OperationId::UPKEEP;
    plan.steps.push(Step::Propose(Command::StartMove { group: GroupId::TOPOLOGY, from, to, operation }));
}

/// What group 0's voters wait for belongs to no operation; those that need it show it too.
fn wait(plan: &mut Plan, reason: &str) {
    plan.wait(OperationId::UPKEEP, format!("{}: {reason}", name(GroupId::TOPOLOGY)));
}

/// The active node that votes next: of the zone with the fewest voters, then the lowest id.
pub(super) fn newcomer(cluster: &ClusterState, reports: &Reports) -> Option<NodeId> {
    let voters = cluster.topology_replicas();
    let mut of_zone: BTreeMap<&str, usize> = BTreeMap::new();
    for at in voters {
        let active = cluster.nodes.get(&at.node).filter(|node| node.state == NodeState::Active);
        active.into_iter().for_each(|node| *of_zone.entry(&node.zone).or_default() += 1);
    }
    let can = |node: &&NodeInfo| {
        let able = reports.can_take_replica(node.id);
        node.state == NodeState::Active && able && !voters.iter().any(|at| at.node == node.id)
    };
    let able = cluster.nodes.values().filter(can);
    let next = able.min_by_key(|node| (of_zone.get(node.zone.as_str()).copied().unwrap_or_default(), node.id));
    next.map(|node| node.id)
}

/// The voter that is one too many: one that does not answer, else the last one that does not lead.
fn surplus(cluster: &ClusterState, reports: &Reports) -> Option<Placement> {
    let voters = cluster.topology_replicas();
    let leader = reports.leader(GroupId::TOPOLOGY, voters).map(|(at, _)| at);
    let down = voters.iter().find(|at| !reports.answers(at.node));
    down.or_else(|| voters.iter().rev().find(|at| Some(**at) != leader)).copied()
}
