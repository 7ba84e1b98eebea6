//! Which replicas start to move next.

use std::collections::{BTreeMap, BTreeSet};

use quorate_ring::{ArcTable, Candidate, Move, MoveReason, PlacementRequest, rebalance};
use quorate_types::operation::{Intent, Operation, OperationId, PlannedMove, ReplicaMove};
use quorate_types::report::Foreground;
use quorate_types::topology::{Command, NodeState, Placement};
use quorate_types::{GroupId, NodeId, ShardId};

use super::{MOVES_PER_NODE_MAX, Plan, Reports, Step, owner};
use crate::cluster::ClusterState;
use crate::moves::name;

/// The moves that would make the map even, from the map as it is with what is in motion at its end. None where there are not enough nodes.
fn wanted_moves(cluster: &ClusterState) -> Vec<Move> {
    let Some(bootstrap) = cluster.bootstrap() else { return Vec::new() };
    let takers = cluster.nodes.values().filter(|node| node.state == NodeState::Active);
    let nodes: Vec<Candidate> =
        takers.map(|node| Candidate { id: node.id, zone: node.zone.clone(), weight: node.weight }).collect();
    let Ok(shards) = ArcTable::new(cluster.shards.values().map(|shard| (shard.id, shard.arc))) else {
        return Vec::new();
    };
    let current: Vec<_> = cluster.shards.keys().map(|&shard| (shard, nodes_after(cluster, shard))).collect();
    let request = PlacementRequest {
        hash_key: &bootstrap.cluster.hash_key,
        nodes: &nodes,
        shards: &shards,
        replicas: bootstrap.cluster.replicas,
    };
    rebalance(&request, &current).unwrap_or_default()
}

/// The moves that would make the map even, from the map as it is: those that may be asked for now, as no other operation moves their
/// shards. What `rebalance plan` shows. None where there are not enough nodes.
pub fn possible_moves(cluster: &ClusterState) -> Vec<Move> {
    let named = named(cluster);
    let free = |wanted: &Move| {
        let shard = cluster.shards.get(&wanted.shard);
        let emptied = shard.is_some_and(|shard| cluster.emptied_by(&shard.replicas).is_some());
        !emptied && !named.contains(&wanted.shard) && !cluster.moves.contains_key(&wanted.shard.group())
    };
    wanted_moves(cluster).into_iter().filter(free).collect()
}

/// The nodes of a shard once what is in motion has come to its end.
fn nodes_after(cluster: &ClusterState, shard: ShardId) -> Vec<NodeId> {
    let replicas = cluster.shards.get(&shard).map_or(&[][..], |shard| &shard.replicas);
    let moving = cluster.moves.get(&shard.group()).filter(|moving| !moving.cancelled);
    let after = |at: &Placement| match moving {
        Some(moving) if moving.from == Some(*at) => moving.to.map_or(at.node, |to| to.node),
        _ => at.node,
    };
    replicas.iter().map(after).collect()
}

/// Starts what there is room for, the oldest operation first.
pub(super) fn plan(cluster: &ClusterState, reports: &Reports, plan: &mut Plan) {
    let running: Vec<&Operation> = cluster.running_operations().collect();
    let by_ring = |running: &&&Operation| !matches!(running.intent, Intent::Move { .. } | Intent::Rebalance { .. });
    let wanted = if running.iter().any(|running| by_ring(&running)) { wanted_moves(cluster) } else { Vec::new() };
    let mut room = Room::new(cluster, reports, plan.transfers_leadership);
    for operation in running {
        let mut full: BTreeMap<Vec<GroupId>, u32> = BTreeMap::new();
        for planned in pending(cluster, reports, operation, &wanted) {
            let moving = cluster.moves.get(&planned.shard.group());
            if moving.is_some_and(|moving| is_this(moving, planned, operation)) {
                continue;
            }
            if moving.is_some_and(|moving| comes_back(moving, planned, operation)) {
                continue;
            }
            plan.progress(operation.id).left += 1;
            if let Some(moving) = moving {
                in_motion(cluster, moving, operation, plan);
                continue;
            }
            match room.start(planned, operation.id, &plan.stalled) {
                Start::Step(step) => {
                    plan.progress(operation.id).left -= 1;
                    plan.progress(operation.id).moving += 1;
                    plan.steps.push(Step::Propose(step));
                }
                Start::Soon => {}
                // Its turn comes when one of these has moved; while they do move, that is no standstill.
                Start::Later(first) => {
                    if first.iter().all(|group| plan.stalled.contains(group)) {
                        *full.entry(first).or_default() += 1;
                    }
                }
                Start::Refused(reason) => plan.wait(operation.id, reason),
            }
        }
        for (first, count) in full {
            let first: Vec<String> = first.into_iter().map(name).collect();
            let first = first.join(" or ");
            plan.wait(
                operation.id,
                format!("{count} more wait until {first} has moved: two move at a time from or to a node"),
            );
        }
        leaves_shards(cluster, operation, plan);
        leaves_topology(cluster, operation, plan);
    }
}

/// The node that is to be empty at the operation's end, if it is for that.
fn leaving(operation: &Operation) -> Option<NodeId> {
    match operation.intent {
        Intent::Drain { node } | Intent::Remove { node, .. } | Intent::Replace { old: node, .. } => Some(node),
        _ => None,
    }
}

/// The planned move is what is in motion.
fn is_this(moving: &ReplicaMove, planned: PlannedMove, operation: &Operation) -> bool {
    !moving.cancelled && moving.operation == operation.id && moving.from.is_some_and(|at| at.node == planned.from)
}

/// It is in motion, and taken back so that it can go elsewhere: it counts as what moves.
fn comes_back(moving: &ReplicaMove, planned: PlannedMove, operation: &Operation) -> bool {
    moving.cancelled && moving.operation == operation.id && moving.from.is_some_and(|at| at.node == planned.from)
}

/// At most one replica of a shard is in motion: where that is for somebody else, the operation waits for it.
fn in_motion(cluster: &ClusterState, moving: &ReplicaMove, operation: &Operation, plan: &mut Plan) {
    let mover = owner(cluster, moving.operation);
    if mover == operation.id {
        return;
    }
    let shard = name(moving.group);
    plan.wait(
        operation.id,
        match mover {
            OperationId::UPKEEP => {
                format!("{shard}: a move that was taken back comes to its end first: quorate status")
            }
            mover => format!("{shard}: it moves for operation {mover} first: quorate op show {mover}"),
        },
    );
}

/// Replicas that leave the node already, but for another operation: no other move of them is wanted.
fn leaves_shards(cluster: &ClusterState, operation: &Operation, plan: &mut Plan) {
    let Some(node) = leaving(operation) else { return };
    let leaves =
        |moving: &&ReplicaMove| moving.group != GroupId::TOPOLOGY && moving.from.is_some_and(|at| at.node == node);
    for moving in cluster.moves.values().filter(leaves).filter(|moving| !moving.cancelled) {
        if owner(cluster, moving.operation) != operation.id {
            plan.progress(operation.id).left += 1;
            in_motion(cluster, moving, operation, plan);
        }
    }
}

/// Replicas of group 0 on a node that leaves: they follow by themselves, and the node is not drained before. What they wait
/// for, the operation waits for.
fn leaves_topology(cluster: &ClusterState, operation: &Operation, plan: &mut Plan) {
    let Some(node) = leaving(operation) else { return };
    if cluster.topology_replicas().iter().any(|at| at.node == node) {
        plan.progress(operation.id).left += 1;
        let of_group = format!("{}: ", name(GroupId::TOPOLOGY));
        let upkeep = plan.progress.get(&OperationId::UPKEEP).map_or(&[][..], |upkeep| &upkeep.waits);
        let waits: Vec<String> = upkeep.iter().filter(|wait| wait.starts_with(&of_group)).cloned().collect();
        plan.progress(operation.id).waits.extend(waits);
    }
}

/// What an operation still wants moved. A replica of the shard may be in motion: for it, or for somebody else.
fn pending(cluster: &ClusterState, reports: &Reports, operation: &Operation, wanted: &[Move]) -> Vec<PlannedMove> {
    let planned = |wanted: &Move| PlannedMove { shard: wanted.shard, from: wanted.from, to: wanted.to };
    match &operation.intent {
        Intent::Add { .. } => {
            // What somebody asked for by name is not undone for the sake of balance.
            let named = named(cluster);
            let even = wanted.iter().filter(|wanted| wanted.reason != MoveReason::Leaves);
            even.map(planned).filter(|planned| !named.contains(&planned.shard)).collect()
        }
        Intent::Drain { node } | Intent::Remove { node, .. } | Intent::Replace { old: node, .. } => {
            let prefer = match operation.intent {
                Intent::Replace { new, .. } => Some(new),
                _ => None,
            };
            let leaving = wanted.iter().filter(|wanted| wanted.from == *node).map(planned);
            leaving.map(|planned| redirect(cluster, reports, planned, prefer)).collect()
        }
        Intent::Move { planned } => cluster.pending(std::slice::from_ref(planned)).collect(),
        Intent::Rebalance { moves } => cluster.pending(moves).collect(),
        Intent::Undrain { .. } => Vec::new(),
    }
}

/// The shards that running operations still move by name.
fn named(cluster: &ClusterState) -> BTreeSet<ShardId> {
    let mut named = BTreeSet::new();
    for running in cluster.running_operations() {
        match &running.intent {
            Intent::Move { planned } => {
                named.extend(cluster.pending(std::slice::from_ref(planned)).map(|planned| planned.shard));
            }
            Intent::Rebalance { moves } => named.extend(cluster.pending(moves).map(|planned| planned.shard)),
            _ => {}
        }
    }
    named
}

/// Another target where a better one is known: the node that takes over, for which is waited a while, or one that answers and has
/// space where the planned one does not.
fn redirect(cluster: &ClusterState, reports: &Reports, planned: PlannedMove, prefer: Option<NodeId>) -> PlannedMove {
    let prefer = prefer.filter(|node| may_have(cluster, planned.shard, *node));
    let has_space = |node: &NodeId| reports.node(*node).is_none_or(|report| !report.disk_full);
    if let Some(to) = prefer.filter(|node| has_space(node) && !reports.is_unresponsive(*node)) {
        return PlannedMove { to, ..planned };
    }
    if reports.can_take_replica(planned.to) {
        return planned;
    }
    let others = takers(cluster, reports, planned.shard);
    // If there is none, what is in the way of the first choice is the reason that is shown.
    let to = others.min_by_key(|node| cluster.held_by(*node)).or(prefer).unwrap_or(planned.to);
    PlannedMove { to, ..planned }
}

/// The nodes that a replica of the shard could move to now.
pub(super) fn takers(cluster: &ClusterState, reports: &Reports, shard: ShardId) -> impl Iterator<Item = NodeId> {
    let nodes = cluster.nodes.keys().copied();
    nodes.filter(move |node| may_have(cluster, shard, *node) && reports.can_take_replica(*node))
}

/// Whether a node takes replicas, and has none of the shard.
fn may_have(cluster: &ClusterState, shard: ShardId, node: NodeId) -> bool {
    let active = cluster.nodes.get(&node).is_some_and(|node| node.state == NodeState::Active && node.weight > 0);
    active && !nodes_after(cluster, shard).contains(&node)
}

/// How much may start.
struct Room<'a> {
    cluster: &'a ClusterState,
    reports: &'a Reports,
    leaving: BTreeMap<NodeId, Vec<GroupId>>,
    coming: BTreeMap<NodeId, Vec<GroupId>>,
    started: BTreeSet<GroupId>,
    transfers_leadership: bool,
}

/// Whether a move starts.
enum Start {
    /// By this command.
    Step(Command),
    /// When the leaderships that are on their way have arrived.
    Soon,
    /// Not before one of these groups has moved.
    Later(Vec<GroupId>),
    /// Something is in its way.
    Refused(String),
}

impl<'a> Room<'a> {
    fn new(cluster: &'a ClusterState, reports: &'a Reports, transfers_leadership: bool) -> Self {
        let (leaving, coming, started) = Default::default();
        let mut room = Room { cluster, reports, leaving, coming, started, transfers_leadership };
        for moving in cluster.moves.values() {
            let (from, to) = (moving.from.map(|at| at.node), moving.to.map(|at| at.node));
            // Nothing is sent to a node that stays away: others may leave meanwhile.
            let from = from.filter(|_| to.is_none_or(|to| !reports.is_unresponsive(to)));
            room.count(moving.group, from, to);
        }
        room
    }

    fn count(&mut self, group: GroupId, from: Option<NodeId>, to: Option<NodeId>) {
        from.into_iter().for_each(|node| self.leaving.entry(node).or_default().push(group));
        to.into_iter().for_each(|node| self.coming.entry(node).or_default().push(group));
    }

    /// Starts a move, if there is room for it and nothing is in its way. While there are users to serve, a node has one move that
    /// goes on (what stands still costs them nothing), and none begins while a leadership is on its way: the new replica's log would
    /// be written at the moment in which a shard waits for the three syncs of its election.
    fn start(&mut self, planned: PlannedMove, operation: OperationId, stalled: &BTreeSet<GroupId>) -> Start {
        let PlannedMove { shard, from, to } = planned;
        if self.cluster.paused {
            return Start::Refused(format!("shard {shard}: moves are paused; go on with: quorate rebalance resume"));
        }
        let report = self.reports.node(to);
        let Some(report) = report else {
            return Start::Refused(format!("shard {shard}: node {to}, where it should move to, does not answer"));
        };
        if report.disk_full {
            return Start::Refused(format!("shard {shard}: node {to}, where it should move to, has no space"));
        }
        let group = shard.group();
        let replicas = self.cluster.replicas_of(group).unwrap_or_default();
        let mut nodes = replicas.iter().map(|at| at.node).chain([to]);
        let idle = |node| self.reports.node(node).is_none_or(|report| report.foreground == Foreground::Idle);
        let has_users = !nodes.all(idle);
        if has_users && self.transfers_leadership {
            return Start::Soon;
        }
        for busy in [self.leaving.get(&from), self.coming.get(&to)].into_iter().flatten() {
            let goes_on = busy.iter().any(|group| !stalled.contains(group));
            if busy.len() >= MOVES_PER_NODE_MAX || (has_users && goes_on) {
                return Start::Later(busy.clone());
            }
        }
        if self.started.contains(&group) {
            return Start::Later(vec![group]);
        }
        let Some(leaving) = replicas.iter().find(|at| at.node == from) else {
            return Start::Refused(format!("shard {shard}: node {from} has no replica of it any more"));
        };
        self.started.insert(group);
        self.count(group, Some(from), Some(to));
        Start::Step(Command::StartMove { group, from: Some(leaving.replica), to: Some(to), operation })
    }
}
