//! The next step of every group: of the replica in motion, or of what an interrupted change left behind.

use std::collections::BTreeSet;

use quorate_types::operation::ReplicaMove;
use quorate_types::report::{Foreground, OrderKind, ReplicaReport, SUCCESSOR_LAG_MAX};
use quorate_types::topology::{Command, Placement};
use quorate_types::{GroupId, Membership, ReplicaId};

use super::{Plan, Reports, Step, is_caught_up, owner};
use crate::cluster::ClusterState;
use crate::moves::name;

/// A learner that lacks no more entries than this is given a vote: it has them before the change is committed.
const LEARNER_LAG_MAX: u64 = 256;

/// Plans a step for every group that needs one.
pub(super) fn plan(cluster: &ClusterState, reports: &Reports, plan: &mut Plan) {
    let shards = cluster.shards.keys().map(|shard| shard.group());
    for group in shards.chain([GroupId::TOPOLOGY]) {
        let moving = cluster.moves.get(&group);
        let operation = moving.map(|moving| owner(cluster, moving.operation)).unwrap_or_default();
        if moving.is_some() {
            plan.progress(operation).moving += 1;
        }
        let replicas = cluster.replicas_of(group).unwrap_or_default();
        if let Err(reason) = step(group, replicas, moving, reports, plan)
            && moving.is_some()
        {
            plan.stalled.insert(group);
            plan.wait(operation, format!("{}: {reason}", name(group)));
        }
        if let Some(reason) = reports.failures.get(&group).filter(|_| moving.is_some()) {
            plan.wait(operation, format!("{}: {reason}", name(group)));
        }
    }
}

/// Plans a group's next step; an error says what it waits for.
fn step(
    group: GroupId,
    replicas: &[Placement],
    moving: Option<&ReplicaMove>,
    reports: &Reports,
    plan: &mut Plan,
) -> Result<(), String> {
    let coming = moving.and_then(|moving| moving.to);
    let all: Vec<Placement> = replicas.iter().copied().chain(coming).collect();
    let Some((leader, report)) = reports.leader(group, &all) else {
        return Err(no_leader(&all, reports));
    };
    let members = &report.members.members;
    check_quorum(leader, report, members)?;
    let Some(at) = report.members.at else { return Err("its group is not started yet".into()) };
    if report.applied_members.at != Some(at) {
        return Err("a change of its members is not committed yet".into());
    }
    if members.voters.len() > 1 {
        plan.order(leader.node, group, OrderKind::FinishJoint);
        return Ok(());
    }
    let known: BTreeSet<ReplicaId> = all.iter().map(|at| at.replica).collect();
    if let Some(stray) = members.nodes.keys().find(|id| !known.contains(id) && !votes(members, **id)) {
        plan.order(leader.node, group, OrderKind::RemoveLearner(*stray));
        return Ok(());
    }
    let Some(moving) = moving else { return Ok(()) };
    Moving { group, moving, leader, report, members, reports }.step(at, plan)
}

struct Moving<'a> {
    group: GroupId,
    moving: &'a ReplicaMove,
    leader: Placement,
    report: &'a ReplicaReport,
    members: &'a Membership,
    reports: &'a Reports,
}

impl Moving<'_> {
    fn step(&self, at: quorate_types::LogId, plan: &mut Plan) -> Result<(), String> {
        let ReplicaMove { from, to, cancelled, .. } = *self.moving;
        let (node, group) = (self.leader.node, self.group);
        let arrived = to.is_none_or(|to| votes(self.members, to.replica));
        let left = from.is_none_or(|from| !self.members.nodes.contains_key(&from.replica));
        if arrived && left {
            plan.steps.push(Step::Propose(Command::FinishMove(*self.moving)));
            return Ok(());
        }
        if cancelled && !(arrived && to.is_some()) {
            let Some(learner) = to.filter(|to| self.members.nodes.contains_key(&to.replica)) else {
                plan.steps.push(Step::FinishCancelledMove { node, moving: *self.moving });
                return Ok(());
            };
            plan.order(node, group, OrderKind::RemoveLearner(learner.replica));
            return Ok(());
        }
        if let Some(to) = to.filter(|_| !arrived) {
            if !self.members.nodes.contains_key(&to.replica) {
                self.check_made(to)?;
                plan.order(node, group, OrderKind::AddLearner(to));
                return Ok(());
            }
            self.check_caught_up(to)?;
        }
        let add = to.filter(|_| !arrived).map(|to| to.replica);
        let remove = from.filter(|_| !left).map(|from| from.replica);
        self.check_quorum_after(to.filter(|_| !arrived), remove)?;
        if remove == Some(self.leader.replica)
            && let Some(successor) = self.successor()?
        {
            plan.order(node, group, OrderKind::TransferLeader(successor));
            return Ok(());
        }
        plan.order(node, group, OrderKind::ChangeVoters { add, remove, seen: at });
        Ok(())
    }

    /// The node that it is for has made the new replica: a leader that sends to one that does not exist would only fail.
    fn check_made(&self, to: Placement) -> Result<(), String> {
        if !self.reports.answers(to.node) {
            return Err(format!("node {}, where it moves to, does not answer", to.node));
        }
        match self.reports.replica(to) {
            Some(_) => Ok(()),
            None => Err(format!("node {} has not made its replica yet", to.node)),
        }
    }

    fn check_caught_up(&self, to: Placement) -> Result<(), String> {
        if is_caught_up(self.report, to.replica, LEARNER_LAG_MAX) {
            return Ok(());
        }
        if !self.reports.answers(to.node) {
            return Err(format!("node {}, where it moves to, does not answer", to.node));
        }
        let follower = self.report.others.iter().find(|other| other.replica == to.replica);
        let mut reason = match follower.map(|follower| follower.matched_index) {
            Some(matched) if matched > 0 => {
                let behind = self.report.last_index.saturating_sub(matched);
                format!("catching up on node {}, {behind} entries behind", to.node)
            }
            _ => format!("receiving a snapshot on node {}", to.node),
        };
        if self.reports.node(self.leader.node).is_some_and(|report| report.foreground == Foreground::Waits) {
            reason += "; throttled, as users wait";
        }
        if self.reports.node(to.node).is_some_and(|report| report.disk_full) {
            reason += &format!("; node {} has no space", to.node);
        }
        if let Some(failure) = follower.and_then(|follower| follower.snapshot_failure.as_ref()) {
            reason += &format!("; the last snapshot failed: {failure}");
        }
        Err(reason)
    }

    /// A majority of those who vote afterwards answers now.
    fn check_quorum_after(&self, add: Option<Placement>, remove: Option<ReplicaId>) -> Result<(), String> {
        let voters: Vec<ReplicaId> = voters(self.members).filter(|id| Some(*id) != remove).collect();
        let answers = |id: &ReplicaId| answers(self.leader, self.report, *id);
        let (all, alive) =
            (voters.len() + add.iter().len(), voters.iter().filter(|id| answers(id)).count() + add.iter().len());
        if 2 * alive > all {
            return Ok(());
        }
        Err(format!("only {alive} of its {all} voters would answer afterwards; start the nodes that are down"))
    }

    /// Who is to lead instead of the replica that leaves; none if there is no other voter at all.
    fn successor(&self) -> Result<Option<ReplicaId>, String> {
        let others: Vec<ReplicaId> = voters(self.members).filter(|id| *id != self.leader.replica).collect();
        if others.is_empty() {
            return Ok(None);
        }
        let able = others.into_iter().find(|id| is_caught_up(self.report, *id, SUCCESSOR_LAG_MAX));
        able.map(Some).ok_or_else(|| "it leads, and no other voter has caught up enough to take over".into())
    }
}

/// Whether a replica answers the leader, or is it.
fn answers(leader: Placement, report: &ReplicaReport, id: ReplicaId) -> bool {
    id == leader.replica || report.others.iter().any(|other| other.replica == id && other.answers)
}

/// A majority of the voters answers the leader: else it can change nothing, whatever it is told.
fn check_quorum(leader: Placement, report: &ReplicaReport, members: &Membership) -> Result<(), String> {
    let answers = |id: &ReplicaId| answers(leader, report, *id);
    let is_lost = |config: &&BTreeSet<ReplicaId>| 2 * config.iter().filter(|id| answers(id)).count() <= config.len();
    let Some(config) = members.voters.iter().find(is_lost) else { return Ok(()) };
    let away = config.iter().filter(|id| !answers(id)).filter_map(|id| members.nodes.get(id));
    let away: Vec<String> = away.map(ToString::to_string).collect();
    Err(format!("it has no quorum; nodes that do not answer: {}", away.join(", ")))
}

fn voters(members: &Membership) -> impl Iterator<Item = ReplicaId> + '_ {
    members.voters.iter().flatten().copied()
}

fn votes(members: &Membership, replica: ReplicaId) -> bool {
    voters(members).any(|id| id == replica)
}

fn no_leader(replicas: &[Placement], reports: &Reports) -> String {
    let down: Vec<String> =
        replicas.iter().filter(|at| !reports.answers(at.node)).map(|at| at.node.to_string()).collect();
    if down.is_empty() {
        "it elects a leader".into()
    } else {
        format!("it has no leader; nodes down: {}", down.join(", "))
    }
}
