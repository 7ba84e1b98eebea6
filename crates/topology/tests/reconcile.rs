//! The planner against a model of the groups: after any events, the cluster reaches the wanted
//! state and comes to rest.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use quorate_topology::{
    ClusterState, MOVES_PER_NODE_MAX, NoSpace, Progress, Reports, Step, check_room, plan, possible_moves,
};
use quorate_types::operation::{Intent, OperationId, OperationState, PlannedMove};
use quorate_types::report::{Follower, Foreground, NodeReport, OrderKind, ReplicaReport};
use quorate_types::state::StoredMembership;
use quorate_types::topology::{Command, NodeState, Outcome, Placement, ShardInfo};
use quorate_types::{GroupId, LogId, Membership, NodeId, ReplicaId, Role, ShardId};

/// Rounds after which nothing may be left to do.
const ROUNDS_MAX: usize = 2_000;

/// The size of every group's state.
const SHARD_BYTES: u64 = 457 << 20;

/// The state of a group in its own log.
struct Group {
    members: Membership,
    index: u64,
    leader: Option<ReplicaId>,
    term: u64,
    /// Learners that have not caught up, and the rounds until they have.
    behind: BTreeMap<ReplicaId, u64>,
}

struct Model {
    cluster: ClusterState,
    groups: BTreeMap<GroupId, Group>,
    /// Replicas that their nodes have created.
    made: BTreeSet<(GroupId, ReplicaId, NodeId)>,
    down: BTreeSet<NodeId>,
    /// Nodes that are down for so long that the planner stops waiting for them.
    unresponsive: BTreeSet<NodeId>,
    /// Nodes that were unresponsive. Moves that started beside moves to them continue beside these
    /// when the nodes return.
    lost: BTreeSet<NodeId>,
    /// Replicas that lost log entries: they take no part in their groups.
    doubtful: BTreeSet<ReplicaId>,
    full: BTreeSet<NodeId>,
    /// Free bytes above the reserve, where they are few.
    room: BTreeMap<NodeId, u64>,
    busy: BTreeMap<NodeId, Foreground>,
    transfers: BTreeMap<GroupId, NodeId>,
    failing: Option<String>,
    now_ms: u64,
}

impl Model {
    fn new(nodes: u64, shards: u32) -> Self {
        let mut cluster = ClusterState::default();
        assert_eq!(cluster.apply(&common::bootstrap_of(nodes, shards)).0, Outcome::Done);
        let topology = cluster.topology().unwrap();
        let ids = topology.shards.iter().map(|shard| shard.id.group()).chain([GroupId::TOPOLOGY]);
        let groups = ids.map(|group| {
            let replicas: Vec<Placement> = topology.replicas(group).collect();
            let members = Membership {
                voters: vec![replicas.iter().map(|at| at.replica).collect()],
                nodes: replicas.iter().map(|at| (at.replica, at.node)).collect(),
            };
            let leader = Some(replicas[0].replica);
            (group, Group { members, index: 10, leader, term: 1, behind: BTreeMap::new() })
        });
        let groups = groups.collect();
        let mut model = Model {
            cluster,
            groups,
            made: BTreeSet::new(),
            down: BTreeSet::new(),
            unresponsive: BTreeSet::new(),
            lost: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            full: BTreeSet::new(),
            room: BTreeMap::new(),
            busy: BTreeMap::new(),
            transfers: BTreeMap::new(),
            failing: None,
            now_ms: 1,
        };
        model.follow_map();
        model
    }

    /// Nodes that are up create the replicas that the map has for them and destroy others; groups
    /// with a majority elect a leader.
    fn follow_map(&mut self) {
        let topology = self.cluster.topology().unwrap();
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for group in groups {
            let wanted: BTreeSet<_> = topology.replicas(group).map(|at| (group, at.replica, at.node)).collect();
            self.made.extend(wanted.iter().filter(|(_, _, node)| !self.down.contains(node)));
            let down = &self.down;
            self.made.retain(|made| made.0 != group || wanted.contains(made) || down.contains(&made.2));
            let (made, doubtful) = (&self.made, &self.doubtful);
            let state = self.groups.get_mut(&group).unwrap();
            let up = |id: &ReplicaId| {
                let node = state.members.nodes[id];
                !doubtful.contains(id) && !down.contains(&node) && made.contains(&(group, *id, node))
            };
            let voters: Vec<ReplicaId> = state.members.voters[0].iter().copied().collect();
            let able: Vec<ReplicaId> = voters.iter().copied().filter(|id| up(id)).collect();
            if !state.leader.is_some_and(|leader| able.contains(&leader)) || 2 * able.len() <= voters.len() {
                state.leader = (2 * able.len() > voters.len()).then(|| able[0]);
                state.term += 1;
            }
            state.behind.values_mut().for_each(|rounds| *rounds = rounds.saturating_sub(1));
        }
    }

    fn reports(&self) -> Reports {
        let nodes = self.cluster.topology().unwrap().nodes;
        let up = nodes.iter().filter(|node| node.state != NodeState::Removed && !self.down.contains(&node.id));
        let reports = up.map(|node| NodeReport {
            node: node.id,
            uptime_ms: 60_000,
            disk_free_bytes: 1 << 40,
            disk_room_bytes: self.room.get(&node.id).copied().unwrap_or(1 << 40),
            disk_full: self.full.contains(&node.id),
            foreground: self.busy.get(&node.id).copied().unwrap_or_default(),
            replicas: self
                .made
                .iter()
                .filter(|made| made.2 == node.id)
                .map(|made| self.report(made.0, made.1))
                .collect(),
        });
        Reports {
            nodes: reports.collect(),
            transfers: self.transfers.clone(),
            unresponsive: self.unresponsive.clone(),
            ..Reports::default()
        }
    }

    fn report(&self, group: GroupId, replica: ReplicaId) -> ReplicaReport {
        let Group { members, index, leader, term, behind } = &self.groups[&group];
        let at = Some(LogId { term: 1, leader: ReplicaId(0), index: *index });
        let stored = StoredMembership { at, members: members.clone() };
        let leads = *leader == Some(replica);
        let has_state = members.nodes.contains_key(&replica) && behind.get(&replica).is_none_or(|rounds| *rounds == 0);
        let other = |(id, node): (&ReplicaId, &NodeId)| Follower {
            replica: *id,
            matched_index: if behind.get(id).is_some_and(|rounds| *rounds > 0) { 1 } else { 1_000 },
            answers: !self.doubtful.contains(id)
                && !self.down.contains(node)
                && self.made.contains(&(group, *id, *node)),
            snapshot_failure: self.failing.clone().filter(|_| behind.get(id).is_some_and(|rounds| *rounds > 0)),
        };
        ReplicaReport {
            group,
            replica,
            role: match self.doubtful.contains(&replica) {
                true => Role::Stopped,
                false if leads => Role::Leader,
                false => Role::Follower,
            },
            term: *term,
            last_index: 1_000,
            members: stored.clone(),
            applied_members: stored,
            doubtful: self.doubtful.contains(&replica),
            others: if leads {
                members.nodes.iter().filter(|(id, _)| **id != replica).map(other).collect()
            } else {
                vec![]
            },
            bytes: if has_state { SHARD_BYTES } else { 0 },
        }
    }

    /// One round of the reconciler; true if it took a step. `lost` says which steps never arrive.
    fn round(&mut self, mut lost: impl FnMut() -> bool) -> bool {
        self.now_ms += 1;
        let moves = self.cluster.topology().unwrap().moves;
        self.lost.retain(|node| moves.iter().any(|moving| moving.to.is_some_and(|to| to.node == *node)));
        self.lost.extend(&self.unresponsive);
        let steps = plan(&self.cluster, &self.reports(), self.now_ms).steps;
        let any = !steps.is_empty();
        for step in steps {
            if !lost() {
                self.take(step);
            }
        }
        self.check();
        self.follow_map();
        any
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Propose(command) => drop(self.cluster.apply(&command)),
            Step::FinishCancelledMove { moving, .. } => {
                let members = &self.groups[&moving.group].members;
                if moving.to.is_none_or(|to| !members.nodes.contains_key(&to.replica)) {
                    drop(self.cluster.apply(&Command::FinishCancelledMove(moving)));
                }
            }
            Step::Order { node, group, what } => {
                let down = self.down.clone();
                let state = self.groups.get_mut(&group).unwrap();
                let leader = state.leader.expect("orders go to leaders");
                assert_eq!(state.members.nodes[&leader], node, "orders go to the leader's node");
                match what {
                    OrderKind::AddLearner(at) => {
                        state.members.nodes.insert(at.replica, at.node);
                        state.behind.insert(at.replica, 3);
                        state.index += 1;
                    }
                    OrderKind::RemoveLearner(id) => {
                        assert!(!state.members.voters[0].contains(&id));
                        state.members.nodes.remove(&id);
                        state.index += 1;
                    }
                    OrderKind::ChangeVoters { add, remove, seen } => {
                        if seen.index != state.index {
                            return;
                        }
                        let voters = &mut state.members.voters[0];
                        assert!(add.is_none_or(|id| !self.doubtful.contains(&id)), "no doubtful replica gets a vote");
                        assert!(add.is_none_or(|id| state.behind[&id] == 0), "only a replica that has caught up votes");
                        voters.extend(add);
                        if let Some(id) = remove {
                            voters.remove(&id);
                            state.members.nodes.remove(&id);
                            assert!(leader != id || voters.len() == 1, "a leader is not removed");
                            if leader == id {
                                state.leader = None;
                            }
                        }
                        state.index += 1;
                        let is_up =
                            |id: &&ReplicaId| !self.doubtful.contains(*id) && !down.contains(&state.members.nodes[*id]);
                        let up = voters.iter().filter(is_up).count();
                        assert!(2 * up > voters.len(), "a change leaves a majority that is up");
                    }
                    OrderKind::FinishJoint | OrderKind::ConfirmAbsent(_) => {}
                    OrderKind::TransferLeader(to) => {
                        assert!(state.members.voters[0].contains(&to) && !down.contains(&state.members.nodes[&to]));
                        state.leader = Some(to);
                        state.term += 1;
                    }
                }
            }
        }
    }

    /// The invariants after every step.
    fn check(&self) {
        let topology = self.cluster.topology().unwrap();
        let (mut leaving, mut coming) = (BTreeMap::<NodeId, usize>::new(), BTreeMap::<NodeId, usize>::new());
        for moving in topology.moves.iter().filter(|moving| moving.group != GroupId::TOPOLOGY) {
            let lost = moving.to.is_some_and(|to| self.lost.contains(&to.node));
            let from = moving.from.filter(|from| moving.to.is_none_or(|to| to.node != from.node));
            from.filter(|_| !lost).into_iter().for_each(|at| *leaving.entry(at.node).or_default() += 1);
            moving.to.into_iter().for_each(|at| *coming.entry(at.node).or_default() += 1);
        }
        let most = leaving.values().chain(coming.values()).max().copied().unwrap_or_default();
        assert!(most <= MOVES_PER_NODE_MAX, "{most} moves of one node");
        for (group, state) in &self.groups {
            // Every voter is in the map: no node destroys it.
            for id in &state.members.voters[0] {
                let at = Placement { replica: *id, node: state.members.nodes[id] };
                assert!(
                    topology.replicas(*group).any(|mapped| mapped == at),
                    "voter {id} of group {group} left the map"
                );
            }
        }
    }

    fn rest(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let caught_up = self.groups.values().all(|group| group.behind.values().all(|rounds| *rounds == 0));
            if !self.round(|| false) && caught_up {
                return;
            }
        }
        let running: Vec<_> = self.cluster.running_operations().collect();
        panic!("no rest: {running:?} {:?}", plan(&self.cluster, &self.reports(), self.now_ms));
    }

    fn start(&mut self, intent: Intent) -> Outcome {
        self.now_ms += 1;
        self.cluster
            .apply(&Command::StartOperation { intent, planned_on: 0, confirm: String::new(), now_ms: self.now_ms })
            .0
    }

    fn register(&mut self, host: u64) {
        let addresses = common::addresses(&format!("late-{host}"));
        self.cluster.apply(&Command::RegisterNode { addresses, zone: String::new(), weight: 100 });
    }

    /// The group's replica on a node becomes doubtful; none if there is none, or if another one of
    /// the group is doubtful: with two of three voters doubtful no step is safe.
    fn doubt(&mut self, group: GroupId, node: u64) -> Option<ReplicaId> {
        let topology = self.cluster.topology().unwrap();
        let placed: Vec<Placement> = topology.replicas(group).collect();
        if self.groups[&group].members.voters[0].len() < 3
            || placed.iter().any(|at| self.doubtful.contains(&at.replica))
        {
            return None;
        }
        let is_made = |at: &&Placement| at.node == NodeId(node) && self.made.contains(&(group, at.replica, at.node));
        let replica = placed.iter().find(is_made)?.replica;
        self.doubtful.insert(replica);
        self.follow_map();
        Some(replica)
    }

    fn replicas_on(&self, node: u64) -> usize {
        let topology = self.cluster.topology().unwrap();
        topology.shards.iter().flat_map(|shard| &shard.replicas).filter(|at| at.node == NodeId(node)).count()
    }

    fn led_by(&self, node: u64) -> Vec<GroupId> {
        let leads = |(group, state): &(&GroupId, &Group)| {
            **group != GroupId::TOPOLOGY && state.leader.is_some_and(|id| state.members.nodes[&id] == NodeId(node))
        };
        self.groups.iter().filter(leads).map(|(group, _)| *group).collect()
    }

    fn voters(&self) -> Vec<u64> {
        let mut nodes: Vec<u64> =
            self.cluster.topology().unwrap().topology_replicas.iter().map(|at| at.node.0).collect();
        nodes.sort_unstable();
        nodes
    }
}

/// A joining node gets its share of the replicas and of the leaders.
#[test]
fn a_new_node_gets_its_share() {
    let mut model = Model::new(3, 32);
    model.register(4);
    model.rest();
    let held: Vec<usize> = (1..=4).map(|node| model.replicas_on(node)).collect();
    assert_eq!(held.iter().sum::<usize>(), 96);
    assert!(held.iter().all(|held| (22..=27).contains(held)), "{held:?}");
    let led: Vec<usize> = (1..=4).map(|node| model.led_by(node).len()).collect();
    assert!(led.iter().all(|led| (7..=9).contains(led)), "{led:?}");
    assert!(model.cluster.operations().all(|operation| operation.state == OperationState::Done));
}

/// 3 → 5 → 4 → 3 nodes: the topology group follows, and a drained node holds nothing.
#[test]
fn the_cluster_grows_and_shrinks() {
    let mut model = Model::new(3, 16);
    model.register(4);
    model.register(5);
    model.rest();
    assert_eq!(model.voters(), [1, 2, 3, 4, 5]);
    assert!(matches!(model.start(Intent::Drain { node: NodeId(1) }), Outcome::Operation { .. }));
    model.rest();
    assert_eq!((model.replicas_on(1), model.led_by(1).len()), (0, 0));
    assert_eq!(model.voters().len(), 3);
    assert!(!model.voters().contains(&1));
    assert!(matches!(model.start(Intent::Remove { node: NodeId(1), dead: false }), Outcome::Operation { .. }));
    model.down.insert(NodeId(2));
    model.follow_map();
    assert!(matches!(model.start(Intent::Remove { node: NodeId(2), dead: true }), Outcome::Operation { .. }));
    model.rest();
    assert_eq!(model.cluster.topology().unwrap().node(NodeId(2)).unwrap().state, NodeState::Removed);
    assert_eq!(model.voters(), [3, 4, 5]);
}

/// A node takes over all replicas of another node.
#[test]
fn a_node_replaces_another() {
    let mut model = Model::new(3, 16);
    model.register(4);
    assert!(matches!(
        model.start(Intent::Replace { old: NodeId(2), new: NodeId(4), dead: false }),
        Outcome::Operation { .. }
    ));
    model.rest();
    assert_eq!((model.replicas_on(2), model.replicas_on(4)), (0, 16));
    assert_eq!(model.voters(), [1, 3, 4]);
    assert_eq!(model.cluster.topology().unwrap().node(NodeId(2)).unwrap().state, NodeState::Removed);
}

/// A blocked move has a reason, and continues when the reason is gone.
#[test]
fn blocked_move_has_a_reason_and_continues_without_it() {
    let mut model = Model::new(4, 4);
    let shard = model.cluster.topology().unwrap().shards[0].clone();
    let free = (1..=4).map(NodeId).find(|node| !shard.replicas.iter().any(|at| at.node == *node)).unwrap();
    let planned = PlannedMove { shard: shard.id, from: shard.replicas[0].node, to: free };
    model.down.insert(free);
    let Outcome::Operation { id, .. } = model.start(Intent::Move { planned }) else { panic!("it starts") };
    model.round(|| false);
    let waits = |model: &Model| plan(&model.cluster, &model.reports(), 0).progress[&id].waits.clone();
    assert_eq!(waits(&model), [format!("shard {}: target node {free} is unreachable", shard.id)]);
    model.cluster.apply(&Command::PauseMoves { paused: true });
    assert!(waits(&model)[0].contains("moves are paused"), "{:?}", waits(&model));
    model.cluster.apply(&Command::PauseMoves { paused: false });
    model.down.clear();
    model.rest();
    assert!(model.cluster.topology().unwrap().shard(shard.id).unwrap().replicas.iter().any(|at| at.node == free));
}

/// A drain that waits for the topology group's move shows its reason. It once said only "left 1".
#[test]
fn drain_shows_why_the_topology_group_waits() {
    let mut model = Model::new(4, 4);
    let topology = model.cluster.topology().unwrap();
    let voter = topology.topology_replicas[0].node;
    let Outcome::Operation { id, .. } = model.start(Intent::Drain { node: voter }) else { panic!("it starts") };
    model.cluster.apply(&Command::PauseMoves { paused: true });
    let progress = |model: &Model| plan(&model.cluster, &model.reports(), 0).progress[&id].clone();
    let paused = "the topology group: moves are paused; resume them with: quorate rebalance resume";
    assert!(progress(&model).waits.iter().any(|wait| wait == paused), "{:?}", progress(&model));
    model.cluster.apply(&Command::PauseMoves { paused: false });
    for _ in 0..200 {
        model.round(|| false);
        let group = model.groups.get_mut(&GroupId::TOPOLOGY).unwrap();
        group.behind.values_mut().for_each(|rounds| *rounds = 1_000);
    }
    assert_eq!(model.replicas_on(voter.0), 0);
    let Progress { moving, left, waits } = progress(&model);
    assert_eq!((moving, left), (0, 1));
    assert_eq!(waits.len(), 1, "{waits:?}");
    assert!(waits[0].starts_with("the topology group: catching up on node "), "{waits:?}");
}

/// An operation counts a shard that moves for another operation, and names that operation. It once
/// left the shard out, and then had nothing left to do and no reason not to be done.
#[test]
fn operation_names_the_operation_that_moves_its_shard() {
    let mut model = Model::new(4, 1);
    let shard = model.cluster.topology().unwrap().shards[0].clone();
    let free = (1..=4).map(NodeId).find(|node| !shard.replicas.iter().any(|at| at.node == *node)).unwrap();
    let [from, drained] = [0, 1].map(|at: usize| shard.replicas[at].node);
    let planned = PlannedMove { shard: shard.id, from, to: free };
    let Outcome::Operation { id: first, .. } = model.start(Intent::Move { planned }) else { panic!("it starts") };
    model.round(|| false);
    let Outcome::Operation { id, .. } = model.start(Intent::Drain { node: drained }) else { panic!("it starts") };
    let progress = plan(&model.cluster, &model.reports(), 0).progress;
    assert_eq!((progress[&first].moving, progress[&first].left), (1, 0));
    let wait = format!("shard {}: operation {first} moves it first: quorate op show {first}", shard.id);
    assert!(progress[&id].left > 0 && progress[&id].waits.contains(&wait), "{:?}", progress[&id]);
    let moves = vec![PlannedMove { shard: shard.id, from: shard.replicas[2].node, to: from }];
    let refused =
        format!("shard {} is in motion for operation {first}; wait for it: quorate op show {first}", shard.id);
    model.cluster.apply(&Command::CancelOperation { id: first, now_ms: 1 });
    assert_eq!(model.start(Intent::Rebalance { moves }), Outcome::Refused(refused));
    model.rest();
    assert_eq!(model.replicas_on(drained.0), 0);
}

/// A drain and a replacement move to another node if the planned target is out of disk space. They
/// once waited for it.
#[test]
fn full_target_is_exchanged() {
    let mut model = Model::new(5, 8);
    model.full.insert(NodeId(5));
    let before = model.replicas_on(5);
    assert!(matches!(model.start(Intent::Drain { node: NodeId(1) }), Outcome::Operation { .. }));
    model.rest();
    assert_eq!((model.replicas_on(1), model.replicas_on(5)), (0, before));
    model.cluster.apply(&Command::StartOperation {
        intent: Intent::Undrain { node: NodeId(1) },
        planned_on: 0,
        confirm: String::new(),
        now_ms: 1,
    });
    assert!(matches!(
        model.start(Intent::Replace { old: NodeId(2), new: NodeId(5), dead: false }),
        Outcome::Operation { .. }
    ));
    model.rest();
    assert_eq!((model.replicas_on(2), model.replicas_on(5)), (0, before));
}

/// Blocked moves that hold every slot are named to the moves that wait. Two moves to a dead node
/// once held the slots of all others without a word.
#[test]
fn blocked_moves_that_hold_every_slot_are_named() {
    let mut model = Model::new(5, 8);
    let Outcome::Operation { id, .. } = model.start(Intent::Drain { node: NodeId(1) }) else { panic!("it starts") };
    model.round(|| false);
    let progress = |model: &Model| plan(&model.cluster, &model.reports(), 0).progress[&id].clone();
    assert!(progress(&model).left > 0);
    assert_eq!(progress(&model).waits, Vec::<String>::new(), "a move that makes progress needs no reason");
    let moves = |model: &Model| model.cluster.topology().unwrap().moves;
    model.down = moves(&model).iter().filter_map(|moving| moving.to).map(|to| to.node).collect();
    for _ in 0..10 {
        model.round(|| false);
    }
    // The voter waits too: with both targets down, too few voters would be left.
    let name = |group: GroupId| group.shard().map_or("the topology group".into(), |shard| format!("shard {shard}"));
    let first: Vec<String> = moves(&model).iter().map(|moving| name(moving.group)).collect();
    assert!(first.len() >= MOVES_PER_NODE_MAX, "{first:?}");
    let waits = progress(&model).waits;
    let wait = format!(" more wait until {} has moved: a node has at most two moves at a time", first.join(" or "));
    assert!(waits.iter().any(|known| known.ends_with(&wait)), "{waits:?}");
}

/// A drain moves to other nodes if its target is unresponsive. It once waited for a dead target
/// although other nodes could take the replicas.
#[test]
fn unresponsive_target_is_exchanged() {
    let mut model = Model::new(5, 8);
    assert!(matches!(model.start(Intent::Drain { node: NodeId(1) }), Outcome::Operation { .. }));
    model.round(|| false);
    model.round(|| false);
    let target = model.cluster.topology().unwrap().moves.iter().find_map(|moving| moving.to).unwrap().node;
    model.down.insert(target);
    for _ in 0..20 {
        model.round(|| false);
    }
    let stuck = |model: &Model| {
        let moves = model.cluster.topology().unwrap().moves;
        moves.iter().filter(|moving| moving.to.is_some_and(|to| to.node == target)).count()
    };
    assert!(stuck(&model) > 0, "the planner waits for a node that is away for a moment");
    model.unresponsive.insert(target);
    model.rest();
    assert_eq!((stuck(&model), model.replicas_on(1)), (0, 0));
    assert!(model.cluster.operations().all(|operation| operation.state == OperationState::Done));
}

/// Moves to an unresponsive new node do not delay a drain. They once held their shards until the
/// node returned.
#[test]
fn unresponsive_new_node_does_not_delay_a_drain() {
    let mut model = Model::new(4, 8);
    model.register(5);
    let moves = |model: &Model| model.cluster.topology().unwrap().moves;
    while moves(&model).iter().all(|moving| moving.group == GroupId::TOPOLOGY) {
        model.round(|| false);
    }
    model.down.insert(NodeId(5));
    let shard = moves(&model).iter().find_map(|moving| moving.group.shard()).unwrap();
    let replicas = model.cluster.topology().unwrap().shard(shard).unwrap().replicas.clone();
    let leaves = |at: &&Placement| moves(&model).iter().any(|moving| moving.from == Some(**at));
    let drained = replicas.iter().find(|at| !leaves(at)).unwrap().node;
    let Outcome::Operation { id, .. } = model.start(Intent::Drain { node: drained }) else { panic!("it starts") };
    let runs = |model: &Model| model.cluster.running_operations().any(|running| running.id == id);
    for _ in 0..50 {
        model.round(|| false);
    }
    assert!(runs(&model));
    model.unresponsive.insert(NodeId(5));
    for _ in 0..200 {
        model.round(|| false);
    }
    assert!(!runs(&model), "{:?}", plan(&model.cluster, &model.reports(), 0).progress[&id]);
    model.down.clear();
    model.rest();
    assert!(model.cluster.operations().all(|operation| operation.state == OperationState::Done));
    assert!(model.replicas_on(5) > 0);
}

/// `rebalance plan` proposes only moves that `rebalance apply` accepts, also while a node is
/// drained.
#[test]
fn possible_moves_exclude_shards_of_running_operations() {
    let mut model = Model::new(5, 16);
    model.start(Intent::Drain { node: NodeId(1) });
    model.rest();
    model.start(Intent::Undrain { node: NodeId(1) });
    model.start(Intent::Drain { node: NodeId(2) });
    let moves = possible_moves(&model.cluster);
    let planned = moves.iter().map(|at| PlannedMove { shard: at.shard, from: at.from, to: at.to });
    let moves: Vec<PlannedMove> = planned.collect();
    assert!(!moves.is_empty());
    assert!(matches!(model.start(Intent::Rebalance { moves }), Outcome::Operation { .. }));
    model.rest();
    assert!(model.cluster.running_operations().next().is_none());
}

/// Two named moves wait for their unresponsive target without taking the slots of their source.
/// They once held the slots of all other moves from that node.
#[test]
fn moves_to_an_unresponsive_node_leave_slots_free() {
    let mut model = Model::new(5, 16);
    let (from, target) = (NodeId(1), NodeId(5));
    let shards = model.cluster.topology().unwrap().shards;
    let holds = |shard: &&ShardInfo, node| shard.replicas.iter().any(|at| at.node == node);
    let stuck = |model: &Model| {
        let moves = model.cluster.topology().unwrap().moves;
        moves.iter().filter(|moving| moving.to.is_some_and(|to| to.node == target)).count()
    };
    let movable: Vec<_> = shards.iter().filter(|shard| holds(shard, from) && !holds(shard, target)).collect();
    let named: Vec<OperationId> = movable[..2]
        .iter()
        .map(|shard| match model.start(Intent::Move { planned: PlannedMove { shard: shard.id, from, to: target } }) {
            Outcome::Operation { id, .. } => id,
            other => panic!("{other:?}"),
        })
        .collect();
    model.round(|| false);
    model.down.insert(target);
    model.unresponsive.insert(target);
    for _ in 0..20 {
        model.round(|| false);
    }
    assert_eq!(stuck(&model), 2);
    let other = movable[2];
    let to = (2..=5).map(NodeId).find(|node| *node != target && !holds(&other, *node)).unwrap();
    let planned = PlannedMove { shard: other.id, from, to };
    let Outcome::Operation { id, .. } = model.start(Intent::Move { planned }) else { panic!("it starts") };
    for _ in 0..20 {
        model.round(|| false);
    }
    let runs = |model: &Model, id| model.cluster.running_operations().any(|running| running.id == id);
    assert!(!runs(&model, id), "a slot is free for it");
    assert!(named.iter().all(|id| runs(&model, *id)));
    model.down.clear();
    model.rest();
    assert_eq!(stuck(&model), 0);
    assert!(model.cluster.operations().all(|operation| operation.state == OperationState::Done));
}

/// Moves of the shards that are not on the node to it.
fn moves_to(model: &Model, to: NodeId) -> Vec<PlannedMove> {
    let shards = model.cluster.topology().unwrap().shards;
    let free = shards.iter().filter(|shard| shard.replicas.iter().all(|at| at.node != to));
    free.map(|shard| PlannedMove { shard: shard.id, from: shard.replicas[0].node, to }).collect()
}

/// A move never starts towards a node without room for the replica: it is refused where an operator
/// asks for it, and a running operation waits with the numbers. It starts once there is room.
#[test]
fn moves_wait_for_room() {
    let mut model = Model::new(5, 16);
    let target = NodeId(5);
    let planned = moves_to(&model, target)[0];
    model.room.insert(target, 400 << 20);
    let refusal = check_room(&model.cluster, &model.reports(), planned).unwrap_err();
    assert_eq!(refusal, NoSpace { node: target, needs: SHARD_BYTES, has: 400 << 20 });
    let Outcome::Operation { id, .. } = model.start(Intent::Move { planned }) else { panic!("it starts") };
    for _ in 0..10 {
        model.round(|| false);
    }
    assert_eq!(model.cluster.topology().unwrap().moves, []);
    let waits = plan(&model.cluster, &model.reports(), 0).progress[&id].waits.clone();
    assert!(waits[0].contains("no space on node 5: needs 457 MiB, has 400 MiB"), "{waits:?}");
    model.room.insert(target, SHARD_BYTES);
    assert_eq!(check_room(&model.cluster, &model.reports(), planned), Ok(()));
    model.rest();
    assert!(model.cluster.operations().all(|operation| operation.state == OperationState::Done));
    model.room.insert(target, 0);
    assert_eq!(check_room(&model.cluster, &model.reports(), planned), Ok(()), "the move is done already");
}

/// Moves in motion reduce the room of their target: with room for one replica, one moves there. The
/// replicas of a drained node go to nodes with room.
#[test]
fn replicas_on_their_way_count() {
    let mut model = Model::new(5, 16);
    let target = NodeId(5);
    model.room.insert(target, SHARD_BYTES * 3 / 2);
    for planned in moves_to(&model, target).into_iter().take(2) {
        let Outcome::Operation { .. } = model.start(Intent::Move { planned }) else { panic!("it starts") };
    }
    let to_target = |model: &Model| {
        let moves = model.cluster.topology().unwrap().moves;
        moves.iter().filter(|moving| moving.to.is_some_and(|to| to.node == target)).count()
    };
    for _ in 0..4 {
        model.round(|| false);
        assert_eq!(to_target(&model), 1);
    }

    let mut model = Model::new(5, 16);
    model.room.insert(target, 0);
    let Outcome::Operation { .. } = model.start(Intent::Drain { node: NodeId(1) }) else { panic!("it starts") };
    for _ in 0..60 {
        model.round(|| false);
        assert_eq!(to_target(&model), 0);
    }
    let movable = model.cluster.topology().unwrap().shards.into_iter().filter(|shard| {
        let on = |node| shard.replicas.iter().any(|at| at.node == NodeId(node));
        on(1) && !(2..5).all(on)
    });
    assert_eq!(movable.count(), 0, "the replicas of node 1 went to the other nodes");
}

/// While a node serves users, one replica moves at a time, and a blocked move does not delay the
/// others.
#[test]
fn moves_give_way_to_users() {
    let mut model = Model::new(5, 8);
    model.busy = BTreeMap::from([(NodeId(1), Foreground::Served), (NodeId(3), Foreground::Waits)]);
    let Outcome::Operation { id, .. } = model.start(Intent::Drain { node: NodeId(1) }) else { panic!("it starts") };
    let moving = |model: &Model| {
        let moves = model.cluster.topology().unwrap().moves;
        let shards = moves.iter().filter(|moving| moving.group != GroupId::TOPOLOGY);
        shards.filter_map(|moving| moving.to).map(|to| to.node).collect::<Vec<_>>()
    };
    // The leaders leave first.
    for _ in 0..20 {
        if moving(&model).is_empty() {
            model.round(|| false);
        }
    }
    assert_eq!(moving(&model).len(), 1);
    model.down = moving(&model).into_iter().collect();
    let mut most = 0;
    for _ in 0..20 {
        model.round(|| false);
        most = most.max(moving(&model).len());
    }
    assert_eq!(most, MOVES_PER_NODE_MAX, "the first one is blocked");
    model.down.clear();
    for _ in 0..200 {
        model.round(|| false);
    }
    assert!(model.cluster.running_operations().all(|running| running.id != id), "it is done");
}

/// A recent transfer counts at its target and is not planned again. It once counted at its source,
/// so another transfer made up for it and came back a moment later: one shard had three leaders
/// within 170 ms of a drain.
#[test]
fn recent_transfer_is_not_transferred_again() {
    let mut model = Model::new(3, 8);
    model.rest();
    let transfers = |model: &Model| {
        let steps = plan(&model.cluster, &model.reports(), 0).steps;
        let transfers = steps.into_iter().filter_map(|step| match step {
            Step::Order { group, what: OrderKind::TransferLeader(_), .. } => Some(group),
            _ => None,
        });
        transfers.collect::<BTreeSet<GroupId>>()
    };
    assert_eq!(transfers(&model), BTreeSet::new());
    // Node 1 leads every shard: two leaders leave it, and no other one while these are pending.
    for state in model.groups.values_mut() {
        state.leader = state.members.nodes.iter().find(|(_, node)| **node == NodeId(1)).map(|(id, _)| *id);
    }
    assert_eq!(transfers(&model).len(), 2);
    model.busy = BTreeMap::from([(NodeId(3), Foreground::Served)]);
    assert_eq!(transfers(&model).len(), 1, "a node serves users");
    model.busy.clear();
    let all = model.led_by(1);
    model.transfers = BTreeMap::from([(all[0], NodeId(2)), (all[1], NodeId(3))]);
    assert_eq!(transfers(&model), BTreeSet::new());
    // The leaders are balanced, only the reports do not show it yet: no transfer is planned.
    model.transfers.clear();
    model.rest();
    let (from, to) = (model.led_by(1)[0], model.led_by(2)[0]);
    model.transfers = BTreeMap::from([(from, NodeId(1)), (to, NodeId(2))]);
    for group in [from, to] {
        model.groups.get_mut(&group).unwrap().leader = None;
    }
    assert_eq!(transfers(&model), BTreeSet::new());
}

/// While nodes serve users, no move starts beside a leader transfer. Otherwise the syncs of the
/// election wait for the writes of the copy: a shard once took no write for 76 ms instead of 15.
#[test]
fn no_move_starts_beside_a_leader_transfer() {
    let mut model = Model::new(4, 8);
    model.rest();
    let draining = NodeId(2);
    let Outcome::Operation { .. } = model.start(Intent::Drain { node: draining }) else { panic!("it starts") };
    let begun = |model: &Model, failed_transfers: BTreeSet<GroupId>| {
        let steps = plan(&model.cluster, &Reports { failed_transfers, ..model.reports() }, 0).steps;
        let transfers: Vec<GroupId> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Order { group, what: OrderKind::TransferLeader(_), .. } => Some(*group),
                _ => None,
            })
            .collect();
        let of_shard = |group: GroupId| group != GroupId::TOPOLOGY;
        let starts = |step: &&Step| matches!(step, Step::Propose(Command::StartMove { group, .. }) if of_shard(*group));
        let moves = steps.iter().filter(starts).count();
        (transfers, moves)
    };
    let (transfers, moves) = begun(&model, BTreeSet::new());
    assert!(!transfers.is_empty() && moves > 0, "without users both start");
    model.busy = (1..=4).map(|node| (NodeId(node), Foreground::Served)).collect();
    let (transfers, moves) = begun(&model, BTreeSet::new());
    assert_eq!((transfers.len(), moves), (1, 0));
    // A failed transfer delays nothing: other transfers come first, and then the moves.
    let (others, moves) = begun(&model, transfers.iter().copied().collect());
    assert_ne!(others, transfers);
    assert_eq!(moves, 0);
    let all = model.groups.keys().copied().collect();
    assert!(begun(&model, all).1 > 0);
    let mut led = BTreeMap::<NodeId, usize>::new();
    for state in model.groups.values_mut() {
        let others = state.members.nodes.iter().filter(|(_, node)| **node != draining);
        let (id, node) = others.min_by_key(|(_, node)| led.get(node).copied().unwrap_or_default()).unwrap();
        *led.entry(*node).or_default() += 1;
        state.leader = Some(*id);
    }
    let (transfers, moves) = begun(&model, BTreeSet::new());
    assert!(transfers.is_empty() && moves > 0, "{transfers:?}, {moves}");
}

/// A snapshot that fails, or a target without disk space, is part of the reason. It once read
/// "receiving a snapshot" every time.
#[test]
fn snapshot_failure_is_part_of_the_reason() {
    let mut model = Model::new(4, 1);
    let shard = model.cluster.topology().unwrap().shards[0].clone();
    let to = (1..=4).map(NodeId).find(|node| !shard.replicas.iter().any(|at| at.node == *node)).unwrap();
    let planned = PlannedMove { shard: shard.id, from: shard.replicas[0].node, to };
    let Outcome::Operation { id, .. } = model.start(Intent::Move { planned }) else { panic!("it starts") };
    model.round(|| false);
    model.round(|| false);
    let waits = |model: &Model| plan(&model.cluster, &model.reports(), 0).progress[&id].waits.clone();
    let catching_up = format!("shard {}: catching up on node {to}, 999 entries behind", shard.id);
    assert_eq!(waits(&model).join(", "), catching_up);
    model.failing = Some("the disk is full".to_owned());
    assert_eq!(waits(&model), [format!("{catching_up}; the last snapshot failed: the disk is full")]);
    model.failing = None;
    model.full.insert(to);
    assert_eq!(waits(&model), [format!("{catching_up}; node {to} is out of disk space")]);
}

/// A replica that lost log entries is replaced by a new one on the same node, also where there is
/// no other node.
#[test]
fn doubtful_replica_is_replaced_on_its_node() {
    let mut model = Model::new(3, 8);
    let doubtful = [GroupId::TOPOLOGY, GroupId(1), GroupId(2), GroupId(3)].map(|group| model.doubt(group, 2).unwrap());
    model.rest();
    assert_eq!([1, 2, 3].map(|node| model.replicas_on(node)), [8, 8, 8]);
    assert_eq!(model.voters(), [1, 2, 3]);
    let members: BTreeSet<ReplicaId> =
        model.groups.values().flat_map(|state| state.members.nodes.keys().copied()).collect();
    assert_eq!(members.len(), 9 * 3);
    assert!(doubtful.iter().all(|id| !members.contains(id)), "{members:?}");
}

/// A doubtful voter is not removed while the others have no quorum, and the reason names both
/// nodes.
#[test]
fn doubtful_replica_waits_for_a_quorum_of_the_others() {
    let mut model = Model::new(3, 1);
    let doubtful = model.doubt(GroupId(1), 2).unwrap();
    model.down.insert(NodeId(3));
    model.follow_map();
    for _ in 0..20 {
        model.round(|| false);
    }
    assert!(model.groups[&GroupId(1)].members.voters[0].contains(&doubtful));
    let waits = &plan(&model.cluster, &model.reports(), 0).progress[&OperationId::UPKEEP].waits;
    let reason = "shard 1: it has no leader; nodes down: 3; nodes with a doubtful replica: 2";
    assert!(waits.iter().any(|wait| wait == reason), "{waits:?}");
    model.down.clear();
    model.follow_map();
    model.rest();
    assert!(!model.groups[&GroupId(1)].members.nodes.contains_key(&doubtful));
    assert_eq!([1, 2, 3].map(|node| model.replicas_on(node)), [1, 1, 1]);
}

/// Where its own node is out of disk space, another node gets the new replica.
#[test]
fn doubtful_replica_of_a_full_node_goes_elsewhere() {
    let mut model = Model::new(4, 4);
    let group = model
        .cluster
        .topology()
        .unwrap()
        .shards
        .iter()
        .find_map(|shard| shard.replicas.iter().any(|at| at.node == NodeId(2)).then_some(shard.id.group()));
    let group = group.unwrap();
    let before = model.replicas_on(2);
    model.doubt(group, 2).unwrap();
    model.full.insert(NodeId(2));
    model.rest();
    assert_eq!(model.replicas_on(2), before - 1);
}

#[derive(Clone, Debug)]
enum Event {
    Register(u64),
    /// A node goes down; true if the planner stops waiting for it.
    Kill(u64, bool),
    Revive,
    Drain(u64),
    Undrain(u64),
    RemoveDead(u64),
    Replace(u64, u64),
    Move(u32, u64, u64),
    Cancel(u64),
    /// The replica of a group on a node loses log entries.
    Doubt(u32, u64),
    /// This many rounds; each n-th step is lost.
    Rounds(usize, usize),
}

fn event() -> impl Strategy<Value = Event> {
    let node = 1..8_u64;
    prop_oneof![
        2 => (4..7_u64).prop_map(Event::Register),
        2 => (node.clone(), any::<bool>()).prop_map(|(node, unresponsive)| Event::Kill(node, unresponsive)),
        2 => Just(Event::Revive),
        2 => node.clone().prop_map(Event::Drain),
        1 => node.clone().prop_map(Event::Undrain),
        1 => node.clone().prop_map(Event::RemoveDead),
        1 => (node.clone(), node.clone()).prop_map(|(old, new)| Event::Replace(old, new)),
        1 => (1..9_u32, node.clone(), node).prop_map(|(shard, from, to)| Event::Move(shard, from, to)),
        1 => (1..9_u64).prop_map(Event::Cancel),
        2 => (0..9_u32, 1..8_u64).prop_map(|(group, node)| Event::Doubt(group, node)),
        8 => (1..12_usize, 2..5_usize).prop_map(|(rounds, every)| Event::Rounds(rounds, every)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nodes join, leave and die, and replicas become doubtful, while steps are lost. In the end
    /// every shard has three voters, on distinct nodes that take replicas, and no other members; no
    /// doubtful replica is left.
    #[test]
    fn cluster_comes_to_rest_after_any_events(events in proptest::collection::vec(event(), 1..40)) {
        let mut model = Model::new(3, 8);
        for event in events {
            match event {
                Event::Register(host) => model.register(host),
                // One at a time: with two of three nodes down no step is safe, and nothing moves.
                Event::Kill(node, unresponsive) => {
                    model.down = BTreeSet::from([NodeId(node)]);
                    model.unresponsive = model.down.iter().copied().filter(|_| unresponsive).collect();
                }
                Event::Revive => model.down.clear(),
                Event::Drain(node) => drop(model.start(Intent::Drain { node: NodeId(node) })),
                Event::Undrain(node) => drop(model.start(Intent::Undrain { node: NodeId(node) })),
                Event::RemoveDead(node) if model.down.contains(&NodeId(node)) => {
                    drop(model.start(Intent::Remove { node: NodeId(node), dead: true }));
                }
                Event::RemoveDead(_) => {}
                Event::Replace(old, new) => drop(model.start(Intent::Replace { old: NodeId(old), new: NodeId(new), dead: false })),
                Event::Move(shard, from, to) => {
                    let planned = PlannedMove { shard: ShardId(shard), from: NodeId(from), to: NodeId(to) };
                    drop(model.start(Intent::Move { planned }));
                }
                Event::Cancel(id) => {
                    drop(model.cluster.apply(&Command::CancelOperation { id: OperationId(id), now_ms: 1 }));
                }
                Event::Doubt(group, node) => drop(model.doubt(GroupId(group), node)),
                Event::Rounds(rounds, every) => {
                    let mut count = 0;
                    for _ in 0..rounds {
                        model.follow_map();
                        model.round(|| { count += 1; count % every == 0 });
                    }
                }
            }
            model.follow_map();
        }
        model.down.clear();
        model.follow_map();
        model.rest();
        let topology = model.cluster.topology().unwrap();
        prop_assert!(topology.moves.is_empty(), "{:?}", topology.moves);
        prop_assert_eq!(model.cluster.running_operations().count(), 0);
        for (group, state) in &model.groups {
            let mapped: BTreeSet<ReplicaId> = topology.replicas(*group).map(|at| at.replica).collect();
            prop_assert_eq!(&state.members.voters[0], &mapped, "group {}", group);
            prop_assert_eq!(state.members.nodes.len(), mapped.len(), "no learner is left behind");
            let nodes: BTreeSet<NodeId> = state.members.nodes.values().copied().collect();
            prop_assert_eq!(nodes.len(), mapped.len());
            prop_assert!(*group == GroupId::TOPOLOGY || mapped.len() == 3);
            prop_assert!(mapped.is_disjoint(&model.doubtful), "group {}", group);
            for node in nodes {
                prop_assert_eq!(topology.node(node).unwrap().state, NodeState::Active, "node {}", node);
            }
        }
    }
}
