//! A model of the groups, that carries out the steps of the planner.

use std::collections::{BTreeMap, BTreeSet};

use quorate_topology::{ClusterState, MOVES_PER_NODE_MAX, Reports, Step, plan};
use quorate_types::operation::{Intent, PlannedMove};
use quorate_types::report::{Follower, Foreground, NodeReport, OrderKind, ReplicaReport};
use quorate_types::state::StoredMembership;
use quorate_types::topology::{Command, NodeState, Outcome, Placement};
use quorate_types::{GroupId, LogId, Membership, NodeId, ReplicaId, Role};

use crate::common;

/// Rounds after which nothing may be left to do.
const ROUNDS_MAX: usize = 2_000;

/// The size of every group's state.
pub(crate) const SHARD_BYTES: u64 = 457 << 20;

/// The state of a group in its own log.
pub(crate) struct Group {
    pub(crate) members: Membership,
    pub(crate) index: u64,
    pub(crate) leader: Option<ReplicaId>,
    pub(crate) term: u64,
    /// Learners that have not caught up, and the rounds until they have.
    pub(crate) behind: BTreeMap<ReplicaId, u64>,
}

pub(crate) struct Model {
    pub(crate) cluster: ClusterState,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    /// Replicas that their nodes have created.
    pub(crate) made: BTreeSet<(GroupId, ReplicaId, NodeId)>,
    pub(crate) down: BTreeSet<NodeId>,
    /// Nodes that are down for so long that the planner stops waiting for them.
    pub(crate) unresponsive: BTreeSet<NodeId>,
    /// Nodes that were unresponsive. Moves that started beside moves to them continue beside these
    /// when the nodes return.
    pub(crate) lost: BTreeSet<NodeId>,
    /// Replicas that lost log entries: they take no part in their groups.
    pub(crate) doubtful: BTreeSet<ReplicaId>,
    pub(crate) full: BTreeSet<NodeId>,
    /// Free bytes above the reserve, where they are few.
    pub(crate) room: BTreeMap<NodeId, u64>,
    pub(crate) busy: BTreeMap<NodeId, Foreground>,
    pub(crate) transfers: BTreeMap<GroupId, NodeId>,
    pub(crate) failing: Option<String>,
    pub(crate) now_ms: u64,
}

impl Model {
    pub(crate) fn new(nodes: u64, shards: u32) -> Self {
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
    pub(crate) fn follow_map(&mut self) {
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

    pub(crate) fn reports(&self) -> Reports {
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

    pub(crate) fn report(&self, group: GroupId, replica: ReplicaId) -> ReplicaReport {
        let Group { members, index, leader, term, behind } = &self.groups[&group];
        let at = Some(LogId { term: 1, leader: ReplicaId(0), index: *index });
        let stored = StoredMembership { at, members: members.clone() };
        let leads = *leader == Some(replica);
        let has_state = members.nodes.contains_key(&replica) && behind.get(&replica).is_none_or(|rounds| *rounds == 0);
        let other = |(id, node): (&ReplicaId, &NodeId)| Follower {
            replica: *id,
            matched_index: if behind.get(id).is_some_and(|rounds| *rounds > 0) { 1 } else { 1_000 },
            // Also if it is doubtful: the leader may have heard from it a moment before.
            answers: !self.down.contains(node) && self.made.contains(&(group, *id, *node)),
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
    pub(crate) fn round(&mut self, mut lost: impl FnMut() -> bool) -> bool {
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

    pub(crate) fn take(&mut self, step: Step) {
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
                        assert!(!self.doubtful.contains(&to), "no doubtful replica becomes the leader");
                        state.leader = Some(to);
                        state.term += 1;
                    }
                }
            }
        }
    }

    /// The invariants after every step.
    pub(crate) fn check(&self) {
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

    pub(crate) fn rest(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let caught_up = self.groups.values().all(|group| group.behind.values().all(|rounds| *rounds == 0));
            if !self.round(|| false) && caught_up {
                return;
            }
        }
        let running: Vec<_> = self.cluster.running_operations().collect();
        panic!("no rest: {running:?} {:?}", plan(&self.cluster, &self.reports(), self.now_ms));
    }

    pub(crate) fn start(&mut self, intent: Intent) -> Outcome {
        self.now_ms += 1;
        self.cluster
            .apply(&Command::StartOperation { intent, planned_on: 0, confirm: String::new(), now_ms: self.now_ms })
            .0
    }

    pub(crate) fn register(&mut self, host: u64) {
        let addresses = common::addresses(&format!("late-{host}"));
        self.cluster.apply(&Command::RegisterNode { addresses, zone: String::new(), weight: 100 });
    }

    /// The group's replica on a node becomes doubtful; none if there is none, or if another one of
    /// the group is doubtful: with two of three voters doubtful no step is safe.
    pub(crate) fn doubt(&mut self, group: GroupId, node: u64) -> Option<ReplicaId> {
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

    pub(crate) fn replicas_on(&self, node: u64) -> usize {
        let topology = self.cluster.topology().unwrap();
        topology.shards.iter().flat_map(|shard| &shard.replicas).filter(|at| at.node == NodeId(node)).count()
    }

    pub(crate) fn led_by(&self, node: u64) -> Vec<GroupId> {
        let leads = |(group, state): &(&GroupId, &Group)| {
            **group != GroupId::TOPOLOGY && state.leader.is_some_and(|id| state.members.nodes[&id] == NodeId(node))
        };
        self.groups.iter().filter(leads).map(|(group, _)| *group).collect()
    }

    pub(crate) fn voters(&self) -> Vec<u64> {
        let mut nodes: Vec<u64> =
            self.cluster.topology().unwrap().topology_replicas.iter().map(|at| at.node.0).collect();
        nodes.sort_unstable();
        nodes
    }
}

/// Moves of the shards that are not on the node to it.
pub(crate) fn moves_to(model: &Model, to: NodeId) -> Vec<PlannedMove> {
    let shards = model.cluster.topology().unwrap().shards;
    let free = shards.iter().filter(|shard| shard.replicas.iter().all(|at| at.node != to));
    free.map(|shard| PlannedMove { shard: shard.id, from: shard.replicas[0].node, to }).collect()
}
