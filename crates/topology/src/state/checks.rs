//! The invariants of the cluster's state, checked after every command.

use std::collections::BTreeSet;

use quorate_types::GroupId;
use quorate_types::topology::NodeState;

use super::cluster::ClusterState;
use super::held::Held;
use crate::record::{Change, Counters, Record};

/// Holds the counters to their invariant: they only grow, one id at a time after the bootstrap.
pub(super) fn check_counters(before: Counters, after: Counters) {
    assert!(after.revision >= before.revision, "the revision went back from {}", before.revision);
    assert!(after.last_node >= before.last_node, "node ids went back from {}", before.last_node);
    assert!(after.last_replica >= before.last_replica, "replica ids went back from {}", before.last_replica);
    assert!(after.last_operation.0 <= before.last_operation.0 + 1, "an operation id was skipped");
}

/// Holds the state to the invariants that a change could break, after all changes of its command.
pub(super) fn check_change(state: &ClusterState, change: &Change) {
    match change {
        Change::Put(Record::Shard(shard)) => check_group(state, shard.id.group()),
        Change::Put(Record::Move(moving)) => check_group(state, moving.group),
        Change::Put(Record::Bootstrap(_) | Record::TopologyReplicas(_)) => check_group(state, GroupId::TOPOLOGY),
        Change::Put(Record::Node(node)) if node.state == NodeState::Removed => {
            assert_eq!(Held::by(state, node.id).total(), 0, "node {} was removed with replicas", node.id);
        }
        _ => {}
    }
}

/// A group has its number of replicas, on distinct nodes that are not removed, the replica that
/// moves to it included, unless that one replaces another on its own node.
fn check_group(state: &ClusterState, group: GroupId) {
    let replicas = state.replicas(group).expect("a change of a group that the map has");
    assert!(!replicas.is_empty(), "group {group} has no replica");
    if group != GroupId::TOPOLOGY {
        assert_eq!(replicas.len(), state.replicas_per_shard() as usize, "group {group} lost or gained a replica");
    }
    let moving = state.moves.get(&group);
    let coming = moving.and_then(|moving| moving.to);
    let leaving = moving.and_then(|moving| moving.from).filter(|from| coming.is_some_and(|to| to.node == from.node));
    let mut nodes = BTreeSet::new();
    for at in replicas.iter().chain(&coming) {
        let is_replaced = Some(*at) == leaving;
        assert!(is_replaced || nodes.insert(at.node), "group {group} has two replicas on node {}", at.node);
        assert!(at.replica <= state.counters.last_replica, "replica {} was never given out", at.replica);
        let node = state.nodes.get(&at.node).expect("a replica on a node that the cluster knows");
        assert!(node.state != NodeState::Removed, "group {group} has a replica on removed node {}", at.node);
    }
}
