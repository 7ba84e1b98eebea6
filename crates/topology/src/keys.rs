//! The keys of the topology group's records. This table is the contract, and a golden test below
//! holds it.
//!
//! ```text
//!   in Space::Table of the topology group's replica
//!     'c'                 ->  Counters     revision, last ids of nodes, replicas, operations
//!     'f'                 ->  Bootstrap    the order that bootstrapped the cluster, unchanged
//!     'm' | group u32     ->  ReplicaMove  the move of a group in motion
//!     'n' | node u64      ->  NodeInfo
//!     'o' | operation u64 ->  Operation    running, and the last ones that ended
//!     'p'                 ->  bool         whether moves are paused
//!     's' | shard u32     ->  ShardInfo
//!     't'                 ->  [Placement]  the group's own replicas, once they moved
//! ```
//!
//! Integers are big-endian, so that byte order is numeric order. Values are envelopes of
//! `Kind::TopologyRecord`.

use quorate_types::operation::OperationId;
use quorate_types::{GroupId, NodeId, ShardId};

/// The key of the counters.
pub(crate) const COUNTERS: u8 = b'c';
/// The key of the bootstrap.
pub(crate) const BOOTSTRAP: u8 = b'f';
/// The first byte of a move's key.
pub(crate) const MOVE: u8 = b'm';
/// The first byte of a node's key.
pub(crate) const NODE: u8 = b'n';
/// The first byte of an operation's key.
pub(crate) const OPERATION: u8 = b'o';
/// The key of the pause.
pub(crate) const PAUSED: u8 = b'p';
/// The first byte of a shard's key.
pub(crate) const SHARD: u8 = b's';
/// The key of the topology group's replicas.
pub(crate) const TOPOLOGY_REPLICAS: u8 = b't';

/// The key of a group's move.
pub(crate) fn moving(group: GroupId) -> Vec<u8> {
    with_id(MOVE, &group.0.to_be_bytes())
}

/// The key of an operation.
pub(crate) fn operation(operation: OperationId) -> Vec<u8> {
    with_id(OPERATION, &operation.0.to_be_bytes())
}

/// The key of a node.
pub(crate) fn node(node: NodeId) -> Vec<u8> {
    with_id(NODE, &node.0.to_be_bytes())
}

/// The key of a shard.
pub(crate) fn shard(shard: ShardId) -> Vec<u8> {
    with_id(SHARD, &shard.0.to_be_bytes())
}

fn with_id(table: u8, id: &[u8]) -> Vec<u8> {
    [&[table], id].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_frozen_and_sort_by_id() {
        assert_eq!(moving(GroupId(0x0102)), b"m\0\0\x01\x02");
        assert_eq!(operation(OperationId(0x0102)), b"o\0\0\0\0\0\0\x01\x02");
        assert_eq!(node(NodeId(0x0102)), b"n\0\0\0\0\0\0\x01\x02");
        assert_eq!(shard(ShardId(0x0102)), b"s\0\0\x01\x02");
        assert_eq!([COUNTERS, BOOTSTRAP, PAUSED, TOPOLOGY_REPLICAS], *b"cfpt");
        assert!(shard(ShardId(255)) < shard(ShardId(256)));
    }
}
