//! The plan of a bootstrap, and its refusals.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::collections::BTreeSet;

use common::{cluster, node, nodes};
use proptest::prelude::*;
use quorate_ring::ArcTable;
use quorate_topology::{BootstrapError, ClusterState, SHARDS_MAX, bootstrap_shards, plan_bootstrap};
use quorate_types::operation::OperationId;
use quorate_types::topology::{Command, NodeInfo, NodeState, Outcome, ShardInfo};
use quorate_types::{GroupId, NodeId, ReplicaId};

fn voters(nodes: &[NodeInfo]) -> Vec<u64> {
    let (bootstrap, _) = plan_bootstrap(&cluster(1, 1), nodes).unwrap();
    bootstrap.topology_replicas.iter().map(|placement| placement.node.0).collect()
}

fn zoned(zones: &[&str]) -> Vec<NodeInfo> {
    (1..).zip(zones).map(|(id, zone)| node(id, zone)).collect()
}

#[test]
fn the_topology_has_one_three_or_five_voters_in_distinct_zones() {
    assert_eq!(voters(&nodes(1)), [1]);
    assert_eq!(voters(&nodes(2)), [1]);
    assert_eq!(voters(&nodes(3)), [1, 2, 3]);
    assert_eq!(voters(&nodes(4)), [1, 2, 3]);
    assert_eq!(voters(&nodes(9)), [1, 2, 3, 4, 5]);
    assert_eq!(voters(&zoned(&["a", "a", "b", "c"])), [1, 3, 4]);
    assert_eq!(voters(&zoned(&["a", "a", "a", "b", "b", "c", "c"])), [1, 2, 4, 5, 6]);
}

/// Every initial node of a cluster computes these lines, so they are frozen.
#[test]
fn bootstrap_plan_is_frozen() {
    let (bootstrap, shards) = plan_bootstrap(&cluster(3, 4), &zoned(&["a", "a", "b", "c"])).unwrap();
    let line = |at: &[quorate_types::topology::Placement]| {
        at.iter().map(|at| format!("{}@{}", at.replica, at.node)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line(&bootstrap.topology_replicas), "1@1 2@3 3@4");
    let shards: Vec<_> =
        shards.iter().map(|shard| format!("{} {} {}", shard.id, shard.arc, line(&shard.replicas))).collect();
    assert_eq!(
        shards,
        [
            "1 0000000000000000..4000000000000000 4@3 5@4 6@2",
            "2 4000000000000000..8000000000000000 7@2 8@4 9@3",
            "3 8000000000000000..c000000000000000 10@1 11@4 12@3",
            "4 c000000000000000..0000000000000000 13@4 14@2 15@3"
        ]
    );
}

#[test]
fn initial_nodes_may_come_in_any_order_and_are_active() {
    let mut shuffled = zoned(&["a", "b", "c", "d"]);
    shuffled.rotate_left(2);
    shuffled.iter_mut().for_each(|node| node.state = NodeState::Joining);
    let plan = plan_bootstrap(&cluster(3, 16), &zoned(&["a", "b", "c", "d"])).unwrap();
    assert_eq!(plan_bootstrap(&cluster(3, 16), &shuffled).unwrap(), plan);
    assert!(plan.0.nodes.iter().all(|node| node.state == NodeState::Active));
}

#[test]
fn impossible_bootstraps_are_refused_by_name() {
    let refusal = |replicas, shards, nodes: &[NodeInfo]| plan_bootstrap(&cluster(replicas, shards), nodes).unwrap_err();
    assert_eq!(refusal(2, 16, &nodes(3)), BootstrapError::Replicas(2));
    assert_eq!(refusal(3, 0, &nodes(3)), BootstrapError::Shards(0));
    assert_eq!(refusal(3, SHARDS_MAX + 1, &nodes(3)), BootstrapError::Shards(SHARDS_MAX + 1));
    assert_eq!(refusal(3, 16, &nodes(2)).to_string(), "3 replicas need 3 nodes with a weight above 0; there are 2");
    let gap = BootstrapError::NodeId { expected: NodeId(2), found: NodeId(3) };
    assert_eq!(refusal(1, 1, &[node(1, ""), node(3, "")]), gap);
    let twin = NodeInfo { addresses: node(1, "").addresses, ..node(2, "") };
    assert_eq!(
        refusal(1, 1, &[node(1, ""), twin]),
        BootstrapError::SharedAddress { node: NodeId(2), address: "host-1:1".into() }
    );
    let mut nameless = node(1, "");
    nameless.addresses.peer.clear();
    assert_eq!(refusal(1, 1, &[nameless]).to_string(), "node 1: the peer address '' is not host:port");
}

/// A bootstrap command with other records than its plan is refused, and the cluster stays without a
/// bootstrap.
#[test]
fn forged_bootstrap_is_refused() {
    let (bootstrap, shards) = plan_bootstrap(&cluster(3, 4), &nodes(4)).unwrap();
    let mut swapped = shards.clone();
    swapped[0].replicas.swap(0, 1);
    let mut elsewhere = bootstrap.clone();
    elsewhere.topology_replicas[0].node = NodeId(4);
    let mut joining = bootstrap.clone();
    joining.nodes[0].state = NodeState::Joining;
    let mut even = bootstrap.clone();
    even.cluster.replicas = 2;
    for (bootstrap, shards, reason) in [
        (&bootstrap, &swapped, "the shards are not those that follow from the bootstrap"),
        (&bootstrap, &shards[1..].to_vec(), "the shards are not those that follow from the bootstrap"),
        (&elsewhere, &shards, "the initial nodes and their topology replicas are not as planned from the same nodes"),
        (&joining, &shards, "the initial nodes and their topology replicas are not as planned from the same nodes"),
        (&even, &shards, "2 replicas are not possible; choose 1, 3 or 5"),
    ] {
        let mut state = ClusterState::default();
        let (outcome, changes) = state.apply(&Command::Bootstrap(bootstrap.clone(), shards.clone()));
        assert_eq!((outcome, changes), (Outcome::Refused(reason.into()), vec![]));
        assert_eq!(state.topology(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every plan gives each replica an id of its own, counted from 1, covers the ring, and is
    /// accepted by the state machine.
    #[test]
    fn every_planned_bootstrap_is_accepted(zones in proptest::collection::vec("[abc]", 1..9), replicas in 0..3_u32, shards in 1..40_u32) {
        let replicas = 2 * replicas + 1;
        prop_assume!(zones.len() >= replicas as usize);
        let zones: Vec<&str> = zones.iter().map(String::as_str).collect();
        let (bootstrap, shards) = plan_bootstrap(&cluster(replicas, shards), &zoned(&zones)).unwrap();
        prop_assert_eq!(&bootstrap_shards(&bootstrap).unwrap(), &shards);

        let of_shards = shards.iter().flat_map(|shard| &shard.replicas);
        let ids: Vec<u64> = bootstrap.topology_replicas.iter().chain(of_shards).map(|at| at.replica.0).collect();
        prop_assert_eq!(&ids, &(1..=ids.len() as u64).collect::<Vec<_>>());
        prop_assert!(ArcTable::new(shards.iter().map(|shard| (shard.id, shard.arc))).is_ok());
        for ShardInfo { epoch, replicas: at, initial_replicas, .. } in &shards {
            let nodes: BTreeSet<NodeId> = at.iter().map(|at| at.node).collect();
            prop_assert_eq!((nodes.len() as u32, *epoch, at), (replicas, 1, initial_replicas));
        }

        let mut state = ClusterState::default();
        prop_assert_eq!(state.apply(&Command::Bootstrap(bootstrap, shards.clone())).0, Outcome::Done);
        prop_assert_eq!(state.topology().unwrap().shards, shards);
        let next = Command::StartMove { group: GroupId::TOPOLOGY, from: Some(ReplicaId(1)), to: None, operation: OperationId::UPKEEP };
        if state.topology().unwrap().topology_replicas.len() > 1 {
            prop_assert!(matches!(state.apply(&next).0, Outcome::Move(_)));
        }
        prop_assert_eq!(state.counters().last_replica, ReplicaId(ids.len() as u64));
    }
}
