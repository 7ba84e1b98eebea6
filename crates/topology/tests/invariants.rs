//! The invariants of the state after any sequence of commands, sensible or not.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use quorate_ring::ArcTable;
use quorate_topology::{Change, ClusterState, Record};
use quorate_types::operation::{Intent, OperationId, PlannedMove, ReplicaMove};
use quorate_types::topology::{Command, NodeState, Outcome, Placement, Topology};
use quorate_types::{GroupId, NodeId, ReplicaId, ShardId};

/// A command that is chosen when the state is known, so that many of them are accepted.
#[derive(Clone, Debug)]
enum Step {
    Register(u8),
    Update(u64, u8),
    Add(u64),
    Drain(u64),
    Undrain(u64),
    Remove(u64, bool),
    Replace(u64, u64),
    Shift(u32, u64, u64),
    Finish(u64),
    Cancel(u64),
    Pause(bool),
    /// Starts to move the replica at a place of a group's list to a node.
    Start {
        group: u32,
        place: usize,
        to: u64,
        operation: u64,
    },
    /// Ends the move of a group.
    End {
        group: u32,
        arrived: bool,
    },
    /// Cancels the move of a group.
    CancelMove(u32),
    /// Ends a move that never started.
    Forge {
        group: u32,
        from: (u64, u64),
        to: (u64, u64),
        arrived: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let node = 1..9_u64;
    let group = 0..5_u32;
    let operation = 0..12_u64;
    prop_oneof![
        2 => (0..6_u8).prop_map(Step::Register),
        1 => (node.clone(), 0..6_u8).prop_map(|(node, host)| Step::Update(node, host)),
        3 => node.clone().prop_map(Step::Add),
        3 => node.clone().prop_map(Step::Drain),
        1 => node.clone().prop_map(Step::Undrain),
        2 => (node.clone(), any::<bool>()).prop_map(|(node, dead)| Step::Remove(node, dead)),
        1 => (node.clone(), node.clone()).prop_map(|(old, new)| Step::Replace(old, new)),
        2 => (group.clone(), node.clone(), node.clone()).prop_map(|(shard, from, to)| Step::Shift(shard, from, to)),
        3 => operation.clone().prop_map(Step::Finish),
        1 => operation.clone().prop_map(Step::Cancel),
        1 => any::<bool>().prop_map(Step::Pause),
        8 => (group.clone(), 0..4_usize, node.clone(), operation)
            .prop_map(|(group, place, to, operation)| Step::Start { group, place, to, operation }),
        8 => (group.clone(), proptest::bool::weighted(0.8)).prop_map(|(group, arrived)| Step::End { group, arrived }),
        2 => group.clone().prop_map(Step::CancelMove),
        1 => (group, (1..40_u64, node.clone()), (1..40_u64, node), any::<bool>())
            .prop_map(|(group, from, to, arrived)| Step::Forge { group, from, to, arrived }),
    ]
}

fn command(step: Step, topology: &Topology) -> Command {
    let addresses = |host: u8| common::addresses(&format!("late-{host}"));
    let intend = |intent| Command::StartOperation { intent, planned_on: 0, confirm: String::new(), now_ms: 1 };
    let end =
        |moving, arrived| if arrived { Command::FinishMove(moving) } else { Command::FinishCancelledMove(moving) };
    let moving = |group| {
        let group = GroupId(group);
        let none = ReplicaMove { group, from: None, to: None, operation: OperationId(0), cancelled: false };
        topology.moves.iter().find(|moving| moving.group == group).copied().unwrap_or(none)
    };
    match step {
        Step::Register(host) => Command::RegisterNode { addresses: addresses(host), zone: "z".into(), weight: 100 },
        Step::Update(node, host) => {
            Command::UpdateNode { id: NodeId(node), addresses: addresses(host), zone: "y".into(), weight: 50 }
        }
        Step::Add(node) => intend(Intent::Add { node: NodeId(node) }),
        Step::Drain(node) => intend(Intent::Drain { node: NodeId(node) }),
        Step::Undrain(node) => intend(Intent::Undrain { node: NodeId(node) }),
        Step::Remove(node, dead) => intend(Intent::Remove { node: NodeId(node), dead }),
        Step::Replace(old, new) => intend(Intent::Replace { old: NodeId(old), new: NodeId(new), dead: false }),
        Step::Shift(shard, from, to) => {
            intend(Intent::Move { planned: PlannedMove { shard: ShardId(shard), from: NodeId(from), to: NodeId(to) } })
        }
        Step::Finish(id) => Command::FinishOperation { id: OperationId(id), now_ms: 2 },
        Step::Cancel(id) => Command::CancelOperation { id: OperationId(id), now_ms: 2 },
        Step::Pause(paused) => Command::PauseMoves { paused },
        Step::Start { group, place, to, operation } => {
            let from = topology.replicas(GroupId(group)).nth(place).map(|at| at.replica);
            // Mostly a move of a shard; the topology group gains and loses voters too.
            let to = (place < 3 || group > 0).then_some(NodeId(to));
            Command::StartMove { group: GroupId(group), from, to, operation: OperationId(operation) }
        }
        Step::End { group, arrived } => end(moving(group), arrived),
        Step::CancelMove(group) => Command::CancelMove(moving(group)),
        Step::Forge { group, from, to, arrived } => {
            let at = |(replica, node)| Some(common::placement(replica, node));
            let operation = OperationId(0);
            end(ReplicaMove { group: GroupId(group), from: at(from), to: at(to), operation, cancelled: false }, arrived)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn commands_keep_the_invariants(steps in proptest::collection::vec(step(), 1..80)) {
        let mut state = ClusterState::default();
        let mut records: BTreeMap<Vec<u8>, Record> = BTreeMap::new();
        // The group and node where each replica id was first seen, and the ids that left the map.
        let mut homes: BTreeMap<ReplicaId, (GroupId, NodeId)> = BTreeMap::new();
        let mut left: BTreeSet<ReplicaId> = BTreeSet::new();
        let mut ids: BTreeSet<NodeId> = BTreeSet::new();

        let bootstrap = common::bootstrap_of(4, 4);
        for step in std::iter::once(None).chain(steps.into_iter().map(Some)) {
            let before = state.topology();
            let command = match (step, &before) {
                (Some(step), Some(topology)) => command(step, topology),
                _ => bootstrap.clone(),
            };
            let (outcome, changes) = state.apply(&command);
            for change in &changes {
                match change {
                    Change::Put(record) => drop(records.insert(record.key(), record.clone())),
                    Change::ForgetMove(group) => {
                        records.retain(|_, record| !matches!(record, Record::Move(moving) if moving.group == *group));
                    }
                    Change::ForgetOperation(id) => {
                        records.retain(|_, record| !matches!(record, Record::Operation(operation) if operation.id == *id));
                    }
                }
            }
            prop_assert_eq!(&ClusterState::from_records(records.values().cloned()), &state, "the records give the state");

            let topology = state.topology().unwrap();
            let revision = before.as_ref().map_or(0, |before| before.revision);
            let same = before.as_ref().is_some_and(|before| Topology { revision: topology.revision, ..before.clone() } == topology);
            prop_assert_eq!(topology.revision, revision + u64::from(!same));
            if matches!(outcome, Outcome::Refused(_)) {
                prop_assert!(same && changes.is_empty());
            }

            if let Outcome::Move(ReplicaMove { to: Some(to), .. }) = &outcome {
                prop_assert!(!homes.contains_key(&to.replica), "replica {} was given out twice", to.replica);
            }
            prop_assert!(ArcTable::new(topology.shards.iter().map(|shard| (shard.id, shard.arc))).is_ok());
            let groups = topology.shards.iter().map(|shard| shard.id.group()).chain([GroupId::TOPOLOGY]);
            for group in groups {
                let all: Vec<Placement> = topology.replicas(group).collect();
                let nodes: BTreeSet<NodeId> = all.iter().map(|at| at.node).collect();
                let replaces = |moving: &&ReplicaMove| moving.group == group && moving.to.is_some_and(|to| moving.from.is_some_and(|from| from.node == to.node));
                let replaced = topology.moves.iter().filter(replaces).count();
                prop_assert_eq!(nodes.len() + replaced, all.len(), "replicas on distinct nodes, one that is replaced in place apart");
                let coming = topology.moves.iter().filter(|moving| moving.group == group && moving.to.is_some()).count();
                prop_assert!(group == GroupId::TOPOLOGY || all.len() == 3 + coming, "three replicas and the one that moves in");
                prop_assert!(!all.is_empty());
                for &Placement { replica, node } in &all {
                    prop_assert_eq!(*homes.entry(replica).or_insert((group, node)), (group, node), "replica {} stays where it is", replica);
                    prop_assert!(!left.contains(&replica), "replica {} came back", replica);
                    prop_assert!(topology.node(node).is_some_and(|node| node.state != NodeState::Removed && node.state != NodeState::Joining));
                }
                if let Some(before) = &before {
                    let gone = before.replicas(group).filter(|at| !all.contains(at));
                    left.extend(gone.map(|at| at.replica));
                }
            }
            prop_assert!(topology.moves.len() <= topology.shards.len() + 1, "one move for each group");
            for node in &topology.nodes {
                ids.insert(node.id);
            }
            prop_assert_eq!(ids.len(), topology.nodes.len(), "no node is ever forgotten");
        }
    }
}
