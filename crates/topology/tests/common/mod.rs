//! Clusters to test with.
#![allow(dead_code, reason = "every test file uses its own part of this")]

use quorate_topology::plan_bootstrap;
use quorate_types::topology::{Bootstrap, ClusterInfo, Command, NodeAddresses, NodeInfo, NodeState, Placement};
use quorate_types::{ClusterId, NodeId, ReplicaId};

pub(crate) fn addresses(host: &str) -> NodeAddresses {
    NodeAddresses { client: format!("{host}:1"), peer: format!("{host}:2"), ops: format!("{host}:3") }
}

pub(crate) fn node(id: u64, zone: &str) -> NodeInfo {
    let addresses = addresses(&format!("host-{id}"));
    NodeInfo { id: NodeId(id), addresses, zone: zone.into(), weight: 100, state: NodeState::Active }
}

pub(crate) fn cluster(replicas: u32, shards: u32) -> ClusterInfo {
    ClusterInfo { id: ClusterId(0xc1), hash_key: [7; 16], replicas, shards }
}

/// Nodes 1 to `count` without zones.
pub(crate) fn nodes(count: u64) -> Vec<NodeInfo> {
    (1..=count).map(|id| node(id, "")).collect()
}

pub(crate) fn bootstrap(bootstrap: Bootstrap) -> Command {
    let shards = quorate_topology::bootstrap_shards(&bootstrap).unwrap();
    Command::Bootstrap(bootstrap, shards)
}

/// The command that bootstraps nodes 1 to `count` with three replicas of each shard.
pub(crate) fn bootstrap_of(count: u64, shards: u32) -> Command {
    bootstrap(plan_bootstrap(&cluster(3, shards), &nodes(count)).unwrap().0)
}

pub(crate) fn placement(replica: u64, node: u64) -> Placement {
    Placement { replica: ReplicaId(replica), node: NodeId(node) }
}
