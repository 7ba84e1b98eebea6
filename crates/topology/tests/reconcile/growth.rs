//! A cluster grows, shrinks, and replaces a node.

use quorate_types::NodeId;
use quorate_types::operation::{Intent, OperationState};
use quorate_types::topology::{NodeState, Outcome};

use crate::model::Model;

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
