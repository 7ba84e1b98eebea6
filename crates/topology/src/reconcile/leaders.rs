//! Balances the leaders of shards over the nodes by weight, and away from draining nodes.
//!
//! A leader transfer is planned where it makes the busier of two nodes less busy; chains of such
//! transfers reach a balance that a single transfer cannot. A recent transfer counts at its target,
//! even if the reports are older, and is not planned again for now. If it counted at its source,
//! the planner would make up for it with another transfer, which would have to be undone.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use quorate_types::report::{OrderKind, PLANNED_SUCCESSOR_LAG_MAX, ReplicaReport};
use quorate_types::topology::{NodeState, Placement};
use quorate_types::{GroupId, NodeId, Role};

use super::reports::Reports;
use super::steps::Plan;
use crate::state::ClusterState;

/// Leader transfers at the same time while no node serves users; one otherwise. Each costs its
/// shard two round trips without a leader.
const TRANSFERS_MAX: usize = 2;
/// A node gets leaders once it has run this long. A node in a crash loop would lose them each time.
const SETTLED_MS: u64 = 5_000;

/// Plans leader transfers.
pub(super) fn plan(cluster: &ClusterState, reports: &Reports, plan: &mut Plan) {
    let mut load = Load { cluster, reports, led: BTreeMap::new() };
    let mut transfers = 0;
    let mut leads: Vec<(GroupId, Placement)> = Vec::new();
    for shard in cluster.shards.values() {
        let group = shard.id.group();
        let coming = cluster.moves.get(&group).and_then(|moving| moving.to);
        let replicas: Vec<Placement> = shard.replicas.iter().copied().chain(coming).collect();
        let leader = reports.leader(group, &replicas).map(|(leader, _)| leader);
        let transferred = reports.transfers.get(&group).copied();
        if let Some(node) = transferred.or(leader.map(|leader| leader.node)) {
            load.add(node);
        }
        match (leader, transferred) {
            (leader, Some(to)) if leader.is_none_or(|leader| leader.node != to) => {
                transfers += 1;
                plan.transfers_leadership |= !reports.failed_transfers.contains(&group);
            }
            (Some(leader), None) if !cluster.moves.contains_key(&group) => leads.push((group, leader)),
            _ => {}
        }
    }
    let most = if reports.has_users() { 1 } else { TRANSFERS_MAX };
    // Leaders of the busiest node come first; groups whose last transfer failed come last.
    leads.sort_by_key(|(group, at)| (reports.failed_transfers.contains(group), Reverse(load.count(at.node)), *group));
    for (group, leader) in leads {
        if transfers >= most {
            return;
        }
        let Some(to) = load.successor(group, leader) else { continue };
        load.transfer(leader.node, to.node);
        transfers += 1;
        plan.transfers_leadership |= !reports.failed_transfers.contains(&group);
        plan.order(leader.node, group, OrderKind::TransferLeader(to.replica));
    }
}

/// The number of shards that each node leads, once the pending transfers are done.
struct Load<'a> {
    cluster: &'a ClusterState,
    reports: &'a Reports,
    led: BTreeMap<NodeId, u64>,
}

impl Load<'_> {
    fn add(&mut self, node: NodeId) {
        *self.led.entry(node).or_default() += 1;
    }

    fn count(&self, node: NodeId) -> u64 {
        self.led.get(&node).copied().unwrap_or_default()
    }

    fn transfer(&mut self, from: NodeId, to: NodeId) {
        assert!(from != to, "a leader transfer from node {from} to itself");
        let led = self.led.get_mut(&from).expect("a transfer leaves a node that leads");
        assert!(*led > 0, "node {from} leads nothing to transfer");
        *led -= 1;
        self.add(to);
    }

    /// The node's share of the leaders. Zero unless it is active with free disk: with a full disk
    /// it would refuse writes that another leader accepts.
    fn weight(&self, node: NodeId) -> u64 {
        let Some(known) = self.cluster.nodes.get(&node) else { return 0 };
        let disk_full = self.reports.node(node).is_some_and(|report| report.disk_full);
        if known.state == NodeState::Active && !disk_full { u64::from(known.weight) } else { 0 }
    }

    /// Whether a transfer makes the busier of two nodes less busy. A node of weight 0 leads nothing
    /// if any other node can.
    fn helps(&self, from: NodeId, to: NodeId) -> bool {
        let (from_weight, to_weight) = (self.weight(from), self.weight(to));
        let lightens = self.count(from) * to_weight > (self.count(to) + 1) * from_weight;
        to_weight > 0 && (from_weight == 0 || lightens)
    }

    /// The least busy replica that can lead the group and whose node should.
    fn successor(&self, group: GroupId, leader: Placement) -> Option<Placement> {
        let report = self.reports.replica(leader).filter(|report| report.role == Role::Leader)?;
        if is_changing(report) {
            return None;
        }
        let replicas = self.cluster.replicas(group).unwrap_or_default();
        let able = replicas.iter().filter(|at| {
            at.node != leader.node
                && self.helps(leader.node, at.node)
                && self.is_settled(at.node)
                && self.reports.is_caught_up(report, **at, PLANNED_SUCCESSOR_LAG_MAX)
        });
        let idlest = able.min_by_key(|at| (self.count(at.node) * 10_000 / self.weight(at.node).max(1), at.node));
        idlest.copied()
    }

    fn is_settled(&self, node: NodeId) -> bool {
        self.reports.node(node).is_some_and(|report| report.uptime_ms >= SETTLED_MS)
    }
}

/// Whether a membership change of the group is in progress.
fn is_changing(report: &ReplicaReport) -> bool {
    report.members.members.voters.len() != 1 || report.members.at != report.applied_members.at
}
