//! Targets that are full or unresponsive are exchanged, and delay no other move.

use quorate_topology::{MOVES_PER_NODE_MAX, plan, possible_moves};
use quorate_types::operation::{Intent, OperationId, OperationState, PlannedMove};
use quorate_types::topology::{Command, Outcome, Placement, ShardInfo};
use quorate_types::{GroupId, NodeId};

use crate::model::Model;

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
