//! Doubtful replicas are replaced.

use std::collections::BTreeSet;

use quorate_topology::plan;
use quorate_types::operation::OperationId;
use quorate_types::{GroupId, NodeId, ReplicaId};

use crate::model::Model;

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
