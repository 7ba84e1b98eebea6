//! After any events the cluster comes to rest.

use std::collections::BTreeSet;

use proptest::prelude::*;
use quorate_types::operation::{Intent, OperationId, PlannedMove};
use quorate_types::topology::{Command, NodeState};
use quorate_types::{GroupId, NodeId, ReplicaId, ShardId};

use crate::model::Model;

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
