//! Leaders are spread over the nodes by weight, and away from nodes that drain.
//!
//! One leadership moves where that makes the busiest of two nodes less busy; a chain of such steps balances what one cannot.
//! What was handed over a moment ago counts where it went, whatever the reports say yet, and stays there for now: counted where
//! it was, it would be made up for by another one, which would have to come back.

use std::collections::BTreeMap;

use quorate_types::report::{OrderKind, SUCCESSOR_LAG_MAX};
use quorate_types::topology::{NodeState, Placement};
use quorate_types::{GroupId, NodeId, Role};

use super::{Plan, Reports, is_caught_up};
use crate::cluster::ClusterState;

/// Leaderships that move at the same time: each costs its shard two round trips without a leader. One while there are users to
/// serve.
const TRANSFERS_MAX: usize = 2;
/// A node is given leaderships once it runs so long: one that crashes again and again would lose them again and again.
const SETTLED_MS: u64 = 5_000;

/// Plans transfers of leadership.
pub(super) fn plan(cluster: &ClusterState, reports: &Reports, plan: &mut Plan) {
    let mut led: BTreeMap<NodeId, u64> = BTreeMap::new();
    let mut under_way = 0;
    let mut leads: Vec<(GroupId, Placement)> = Vec::new();
    for shard in cluster.shards.values() {
        let group = shard.id.group();
        let coming = cluster.moves.get(&group).and_then(|moving| moving.to);
        let replicas: Vec<Placement> = shard.replicas.iter().copied().chain(coming).collect();
        let leader = reports.leader(group, &replicas).map(|(leader, _)| leader);
        let handed = reports.transfers.get(&group).copied();
        if let Some(node) = handed.or(leader.map(|leader| leader.node)) {
            *led.entry(node).or_default() += 1;
        }
        match (leader, handed) {
            (leader, Some(to)) if leader.is_none_or(|leader| leader.node != to) => {
                under_way += 1;
                plan.transfers_leadership |= !reports.failed_transfers.contains(&group);
            }
            (Some(leader), None) if !cluster.moves.contains_key(&group) => leads.push((group, leader)),
            _ => {}
        }
    }
    let weight = |node: NodeId| match cluster.nodes.get(&node) {
        // Where the disk is full the leader refuses writes that another one would take.
        Some(node)
            if node.state == NodeState::Active && !reports.node(node.id).is_some_and(|report| report.disk_full) =>
        {
            u64::from(node.weight)
        }
        _ => 0,
    };
    let settled = |node: NodeId| reports.node(node).is_some_and(|report| report.uptime_ms >= SETTLED_MS);
    let most = if reports.has_users() { 1 } else { TRANSFERS_MAX };
    let mut transfers = under_way;
    // From the busiest: its leaderships are looked at first, but for those that it could not hand over.
    let mut order = leads;
    order.sort_by_key(|(group, at)| {
        let busy = led.get(&at.node).copied().unwrap_or_default();
        (reports.failed_transfers.contains(group), std::cmp::Reverse(busy), *group)
    });
    for (group, leader) in order {
        if transfers >= most {
            return;
        }
        let Some(report) = reports.replica(leader).filter(|report| report.role == Role::Leader) else { continue };
        if report.members.members.voters.len() != 1 || report.members.at != report.applied_members.at {
            continue;
        }
        let count = |node: NodeId| led.get(&node).copied().unwrap_or_default();
        let from = leader.node;
        // A node of weight 0 leads nothing if anybody else can.
        let helps = |to: NodeId| {
            weight(to) > 0 && (weight(from) == 0 || count(from) * weight(to) > (count(to) + 1) * weight(from))
        };
        let replicas = cluster.replicas_of(group).unwrap_or_default();
        let able = replicas.iter().filter(|at| {
            at.node != from && helps(at.node) && settled(at.node) && is_caught_up(report, at.replica, SUCCESSOR_LAG_MAX)
        });
        let idlest = able.min_by_key(|at| (count(at.node) * 10_000 / weight(at.node).max(1), at.node));
        let Some(to) = idlest.copied() else { continue };
        *led.entry(from).or_default() -= 1;
        *led.entry(to.node).or_default() += 1;
        transfers += 1;
        plan.transfers_leadership |= !reports.failed_transfers.contains(&group);
        plan.order(from, group, OrderKind::TransferLeader(to.replica));
    }
}
