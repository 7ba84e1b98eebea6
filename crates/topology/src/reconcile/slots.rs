//! Move slots of the nodes: how many moves may run at the same time.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::operation::{OperationId, PlannedMove};
use quorate_types::report::Foreground;
use quorate_types::topology::{Command, Placement};
use quorate_types::{GroupId, NodeId};

use super::blocked::Blocked;
use super::reports::Reports;
use super::room::Room;
use crate::state::ClusterState;

/// Moves to one node, and moves from one node, at the same time. One while the nodes of the shard
/// serve users.
pub const MOVES_PER_NODE_MAX: usize = 2;

/// The moves of every node: those in motion, and those that this plan starts.
pub(super) struct MoveSlots<'a> {
    cluster: &'a ClusterState,
    reports: &'a Reports,
    outgoing: BTreeMap<NodeId, Vec<GroupId>>,
    incoming: BTreeMap<NodeId, Vec<GroupId>>,
    started: BTreeSet<GroupId>,
    room: Room<'a>,
    /// Whether a leader transfer is pending.
    transfers_leadership: bool,
}

/// Whether a move starts.
pub(super) enum Start {
    /// It starts with this command.
    Now(Command),
    /// It starts when the pending leader transfers are done.
    AfterTransfers,
    /// It starts when one of these groups has moved.
    AfterMoves(Vec<GroupId>),
    /// It is blocked.
    Blocked(Blocked),
}

impl<'a> MoveSlots<'a> {
    /// Counts the moves in motion.
    pub(super) fn new(cluster: &'a ClusterState, reports: &'a Reports, transfers_leadership: bool) -> Self {
        let mut slots = MoveSlots {
            cluster,
            reports,
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            started: BTreeSet::new(),
            room: Room::new(cluster, reports),
            transfers_leadership,
        };
        for moving in cluster.moves.values() {
            let (from, to) = (moving.from.map(|at| at.node), moving.to.map(|at| at.node));
            // A move to an unresponsive node sends nothing, so it takes no slot of its source.
            let from = from.filter(|_| to.is_none_or(|to| !reports.is_unresponsive(to)));
            // A replacement on the same node reads nothing from its source, which is doubtful.
            let from = from.filter(|from| Some(*from) != to);
            slots.take(moving.group, from, to);
        }
        slots
    }

    fn take(&mut self, group: GroupId, from: Option<NodeId>, to: Option<NodeId>) {
        if let Some(from) = from {
            self.outgoing.entry(from).or_default().push(group);
        }
        if let Some(to) = to {
            self.incoming.entry(to).or_default().push(group);
        }
    }

    /// Starts a move if both nodes have a free slot and nothing blocks it.
    ///
    /// While the shard's nodes serve users, a node has one move that makes progress (a blocked one
    /// costs users nothing), and none starts while a leader transfer is pending: writing the new
    /// replica's log would coincide with the three syncs of an election that a shard waits for.
    pub(super) fn start(&mut self, planned: PlannedMove, operation: OperationId, stalled: &BTreeSet<GroupId>) -> Start {
        let PlannedMove { shard, from, to } = planned;
        assert!(from != to, "shard {shard} moves from node {from} to itself");
        let group = shard.group();
        if let Err(reason) = self.check_target(group, to) {
            return Start::Blocked(reason);
        }
        let replicas = self.cluster.replicas(group).unwrap_or_default();
        let serves_users = self.serves_users(replicas, to);
        if serves_users && self.transfers_leadership {
            return Start::AfterTransfers;
        }
        for taken in [self.outgoing.get(&from), self.incoming.get(&to)].into_iter().flatten() {
            let progresses = taken.iter().any(|group| !stalled.contains(group));
            if taken.len() >= MOVES_PER_NODE_MAX || (serves_users && progresses) {
                return Start::AfterMoves(taken.clone());
            }
        }
        if self.started.contains(&group) {
            return Start::AfterMoves(vec![group]);
        }
        let Some(leaving) = replicas.iter().find(|at| at.node == from) else {
            return Start::Blocked(Blocked::NoReplica(from));
        };
        self.started.insert(group);
        self.take(group, Some(from), Some(to));
        self.room.take(group, to);
        Start::Now(Command::StartMove { group, from: Some(leaving.replica), to: Some(to), operation })
    }

    /// Starts to replace a doubtful replica under a new id, on its own node or on another one, if
    /// there is a free slot and nothing blocks it. The group tolerates one failure less until then,
    /// so both slots of a node may be used, also while it serves users.
    pub(super) fn replace(&mut self, group: GroupId, doubtful: Placement, to: NodeId) -> Start {
        if let Err(reason) = self.check_target(group, to) {
            return Start::Blocked(reason);
        }
        let from = Some(doubtful.node).filter(|from| *from != to);
        let outgoing = from.and_then(|from| self.outgoing.get(&from));
        for taken in [outgoing, self.incoming.get(&to)].into_iter().flatten() {
            if taken.len() >= MOVES_PER_NODE_MAX {
                return Start::AfterMoves(taken.clone());
            }
        }
        assert!(self.started.insert(group), "group {group} has one move at a time");
        self.take(group, from, Some(to));
        self.room.take(group, to);
        let operation = OperationId::UPKEEP;
        Start::Now(Command::StartMove { group, from: Some(doubtful.replica), to: Some(to), operation })
    }

    fn check_target(&self, group: GroupId, to: NodeId) -> Result<(), Blocked> {
        if self.cluster.paused {
            return Err(Blocked::Paused);
        }
        match self.reports.node(to) {
            None => Err(Blocked::TargetUnreachable(to)),
            Some(report) if report.disk_full => Err(Blocked::TargetFull(to)),
            Some(_) => Ok(self.room.check(group, to)?),
        }
    }

    /// Whether the target or a node of the shard serves users.
    fn serves_users(&self, replicas: &[Placement], to: NodeId) -> bool {
        let is_busy = |node| self.reports.node(node).is_some_and(|report| report.foreground != Foreground::Idle);
        replicas.iter().map(|at| at.node).chain([to]).any(is_busy)
    }
}
