//! A move needs room at its target.

use quorate_topology::{NoSpace, check_room, plan};
use quorate_types::NodeId;
use quorate_types::operation::{Intent, OperationState};
use quorate_types::topology::Outcome;

use crate::model::{Model, SHARD_BYTES, moves_to};

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
