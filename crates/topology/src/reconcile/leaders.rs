//! Leaders are spread over the nodes by weight, and away from nodes that drain.
//!
//! One leadership moves where that makes the busiest of two nodes less busy; a chain of such steps balances what one cannot.

use std::collections::BTreeMap;

use quorate_types::report::OrderKind;
use quorate_types::topology::{NodeState, Placement};
use quorate_types::{GroupId, NodeId, Role};

use super::groups::SUCCESSOR_LAG_MAX;
use super::{Plan, Reports, is_caught_up};
use crate::cluster::ClusterState;

/// Leaderships that move at the same time: each costs its shard a round trip without a leader.
const TRANSFERS_MAX: usize = 2;
/// A node is given leaderships once it runs so long: one that crashes again and again would lose them again and again.
const SETTLED_MS: u64 = 5_000;

/// Plans transfers of leadership.
pub(super) fn plan(cluster: &ClusterState, reports: &Reports, plan: &mut Plan) {
    let leads: Vec<(GroupId, Placement)> = cluster
        .shards
        .values()
        .filter(|shard| !cluster.moves.contains_key(&shard.id.group()))
        .filter_map(|shard| Some((shard.id.group(), reports.leader(shard.id.group(), &shard.replicas)?.0)))
        .collect();
    let mut led: BTreeMap<NodeId, u64> = BTreeMap::new();
    leads.iter().for_each(|(_, at)| *led.entry(at.node).or_default() += 1);
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
    let mut transfers = 0;
    // From the busiest: its leaderships are looked at first.
    let mut order = leads;
    order.sort_by_key(|(group, at)| (std::cmp::Reverse(led.get(&at.node).copied().unwrap_or_default()), *group));
    for (group, leader) in order {
        if transfers == TRANSFERS_MAX {
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
        plan.order(from, group, OrderKind::TransferLeader(to.replica));
    }
}
