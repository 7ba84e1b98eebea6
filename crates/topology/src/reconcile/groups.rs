//! The next step of every group: of its move, or of a membership change that was interrupted.

use std::collections::BTreeSet;

use quorate_types::operation::ReplicaMove;
use quorate_types::report::{Foreground, OrderKind, PLANNED_SUCCESSOR_LAG_MAX, ReplicaReport};
use quorate_types::topology::{Command, Placement};
use quorate_types::{GroupId, LogId, Membership, NodeId, ReplicaId};

use super::blocked::{Behind, Blocked, Silent};
use super::reports::Reports;
use super::steps::{Plan, Step};
use crate::state::ClusterState;

/// A learner that lacks at most this many entries gets a vote: it receives them before the change
/// is committed.
const LEARNER_LAG_MAX: u64 = 256;

/// Plans a step for every group that needs one.
pub(super) fn plan(cluster: &ClusterState, reports: &Reports, plan: &mut Plan) {
    let shards = cluster.shards.keys().map(|shard| shard.group());
    for group in shards.chain([GroupId::TOPOLOGY]) {
        let moving = cluster.moves.get(&group);
        let operation = moving.map(|moving| cluster.owner(moving)).unwrap_or_default();
        if moving.is_some() {
            plan.progress(operation).moving += 1;
        }
        let replicas = cluster.replicas(group).unwrap_or_default();
        if let Err(reason) = step(group, replicas, moving, reports, plan)
            && moving.is_some()
        {
            plan.stalled.insert(group);
            plan.block(operation, group, &reason);
        }
        if let Some(reason) = reports.failures.get(&group).filter(|_| moving.is_some()) {
            plan.block(operation, group, reason);
        }
    }
}

/// Plans the next step of a group, if it needs one and is not blocked.
fn step(
    group: GroupId,
    replicas: &[Placement],
    moving: Option<&ReplicaMove>,
    reports: &Reports,
    plan: &mut Plan,
) -> Result<(), Blocked> {
    let coming = moving.and_then(|moving| moving.to);
    let all: Vec<Placement> = replicas.iter().copied().chain(coming).collect();
    let Some((leader, report)) = reports.leader(group, &all) else {
        return Err(no_leader(&all, reports));
    };
    let members = &report.members.members;
    check_quorum(leader, report, members, reports)?;
    let Some(at) = report.members.at else { return Err(Blocked::NotStarted) };
    if report.applied_members.at != Some(at) {
        return Err(Blocked::ChangeNotCommitted);
    }
    if members.voters.len() > 1 {
        plan.order(leader.node, group, OrderKind::FinishJoint);
        return Ok(());
    }
    let known: BTreeSet<ReplicaId> = all.iter().map(|at| at.replica).collect();
    if let Some(leftover) = members.nodes.keys().find(|id| !known.contains(id) && !votes(members, **id)) {
        plan.order(leader.node, group, OrderKind::RemoveLearner(*leftover));
        return Ok(());
    }
    let Some(moving) = moving else { return Ok(()) };
    Moving { moving, leader, report, reports }.step(at, plan)
}

/// A move and the report of its group's leader.
struct Moving<'a> {
    moving: &'a ReplicaMove,
    leader: Placement,
    report: &'a ReplicaReport,
    reports: &'a Reports,
}

impl Moving<'_> {
    /// Plans the next step of the move. `at` is the place of the current membership in the log.
    fn step(&self, at: LogId, plan: &mut Plan) -> Result<(), Blocked> {
        let ReplicaMove { group, from, to, cancelled, .. } = *self.moving;
        let node = self.leader.node;
        let members = self.members();
        let arrived = to.is_none_or(|to| votes(members, to.replica));
        let left = from.is_none_or(|from| !members.nodes.contains_key(&from.replica));
        if arrived && left {
            plan.steps.push(Step::Propose(Command::FinishMove(*self.moving)));
            return Ok(());
        }
        if cancelled && !(arrived && to.is_some()) {
            let Some(learner) = to.filter(|to| members.nodes.contains_key(&to.replica)) else {
                plan.steps.push(Step::FinishCancelledMove { node, moving: *self.moving });
                return Ok(());
            };
            plan.order(node, group, OrderKind::RemoveLearner(learner.replica));
            return Ok(());
        }
        let add = to.filter(|_| !arrived);
        if let Some(to) = add {
            if !members.nodes.contains_key(&to.replica) {
                self.check_created(to)?;
                plan.order(node, group, OrderKind::AddLearner(to));
                return Ok(());
            }
            self.check_caught_up(to)?;
        }
        let remove = from.filter(|_| !left).map(|from| from.replica);
        assert!(add.is_some() || remove.is_some(), "group {group}: a move with nothing left to change");
        self.check_quorum_after(add, remove)?;
        if remove == Some(self.leader.replica)
            && let Some(successor) = self.successor()?
        {
            plan.order(node, group, OrderKind::TransferLeader(successor));
            return Ok(());
        }
        let add = add.map(|to| to.replica);
        plan.order(node, group, OrderKind::ChangeVoters { add, remove, seen: at });
        Ok(())
    }

    fn members(&self) -> &Membership {
        &self.report.members.members
    }

    /// Checks that the target node has created the new replica. Before that, sends to the replica
    /// would fail.
    fn check_created(&self, to: Placement) -> Result<(), Blocked> {
        if !self.reports.answers(to.node) {
            return Err(Blocked::TargetUnreachable(to.node));
        }
        match self.reports.replica(to) {
            Some(_) => Ok(()),
            None => Err(Blocked::NotCreated(to.node)),
        }
    }

    fn check_caught_up(&self, to: Placement) -> Result<(), Blocked> {
        if self.reports.is_caught_up(self.report, to, LEARNER_LAG_MAX) {
            return Ok(());
        }
        if self.reports.is_doubtful(to) {
            return Err(Blocked::TargetDoubtful(to.node));
        }
        let Some(target) = self.reports.node(to.node) else {
            return Err(Blocked::TargetUnreachable(to.node));
        };
        let follower = self.report.others.iter().find(|other| other.replica == to.replica);
        let matched = follower.map(|follower| follower.matched_index).filter(|matched| *matched > 0);
        let leader = self.reports.node(self.leader.node);
        Err(Blocked::Behind(Behind {
            node: to.node,
            entries: matched.map(|matched| self.report.last_index.saturating_sub(matched)),
            throttled: leader.is_some_and(|report| report.foreground == Foreground::Waits),
            disk_full: target.disk_full,
            snapshot_failure: follower.and_then(|follower| follower.snapshot_failure.clone()),
        }))
    }

    /// Checks that a majority of the voters after the change answers now. A doubtful voter does
    /// not count, although it may have answered a moment ago.
    fn check_quorum_after(&self, add: Option<Placement>, remove: Option<ReplicaId>) -> Result<(), Blocked> {
        let voters: Vec<ReplicaId> = voters(self.members()).filter(|id| Some(*id) != remove).collect();
        let added = usize::from(add.is_some());
        let is_alive = |id: &&ReplicaId| answers(self.leader, self.report, self.reports, **id);
        let alive = voters.iter().filter(is_alive).count() + added;
        let all = voters.len() + added;
        if 2 * alive <= all {
            return Err(Blocked::VotersDown { alive, all });
        }
        Ok(())
    }

    /// The voter that becomes the leader in place of the replica that leaves; none if there is no
    /// other voter.
    fn successor(&self) -> Result<Option<ReplicaId>, Blocked> {
        let others: Vec<ReplicaId> = voters(self.members()).filter(|id| *id != self.leader.replica).collect();
        if others.is_empty() {
            return Ok(None);
        }
        let nodes = &self.members().nodes;
        let placed = others.into_iter().filter_map(|id| Some(Placement { replica: id, node: *nodes.get(&id)? }));
        let able = placed.into_iter().find(|at| self.reports.is_caught_up(self.report, *at, PLANNED_SUCCESSOR_LAG_MAX));
        able.map(|at| Some(at.replica)).ok_or(Blocked::NoSuccessor)
    }
}

/// Whether a replica answers the leader and is not doubtful, or is the leader.
fn answers(leader: Placement, report: &ReplicaReport, reports: &Reports, id: ReplicaId) -> bool {
    if id == leader.replica {
        return true;
    }
    let node = report.members.members.nodes.get(&id);
    let is_doubtful = node.is_some_and(|node| reports.is_doubtful(Placement { replica: id, node: *node }));
    !is_doubtful && report.others.iter().any(|other| other.replica == id && other.answers)
}

/// Checks that a majority of the voters answers the leader. Without one the leader can execute no
/// order.
fn check_quorum(
    leader: Placement,
    report: &ReplicaReport,
    members: &Membership,
    reports: &Reports,
) -> Result<(), Blocked> {
    let answers = |id: &ReplicaId| answers(leader, report, reports, *id);
    let is_lost = |config: &&BTreeSet<ReplicaId>| 2 * config.iter().filter(|id| answers(id)).count() <= config.len();
    let Some(config) = members.voters.iter().find(is_lost) else { return Ok(()) };
    let silent = config.iter().filter(|id| !answers(id));
    let silent = silent.filter_map(|id| Some(Placement { replica: *id, node: *members.nodes.get(id)? }));
    let (doubtful, down) = silent.partition(|at: &Placement| reports.is_doubtful(*at));
    Err(Blocked::NoQuorum(Silent { down: nodes(down), doubtful: nodes(doubtful) }))
}

fn nodes(placements: Vec<Placement>) -> Vec<NodeId> {
    placements.into_iter().map(|at| at.node).collect()
}

fn voters(members: &Membership) -> impl Iterator<Item = ReplicaId> + '_ {
    members.voters.iter().flatten().copied()
}

fn votes(members: &Membership, replica: ReplicaId) -> bool {
    voters(members).any(|id| id == replica)
}

fn no_leader(replicas: &[Placement], reports: &Reports) -> Blocked {
    let down: Vec<Placement> = replicas.iter().filter(|at| !reports.answers(at.node)).copied().collect();
    let doubtful: Vec<Placement> = replicas.iter().filter(|at| reports.is_doubtful(**at)).copied().collect();
    if down.is_empty() && doubtful.is_empty() {
        return Blocked::Electing;
    }
    Blocked::NoLeader(Silent { down: nodes(down), doubtful: nodes(doubtful) })
}
