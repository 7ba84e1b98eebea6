//! A move that waits says why.

use quorate_topology::{Progress, plan};
use quorate_types::operation::{Intent, PlannedMove};
use quorate_types::topology::{Command, Outcome};
use quorate_types::{GroupId, NodeId};

use crate::model::Model;

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
