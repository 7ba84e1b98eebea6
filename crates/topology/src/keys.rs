//! The keys of the topology group's records. This table is the contract; the golden test below holds us to it.
//!
//! ```text
//!   in Space::Table of group 0's replica
//!     'a' | replica u64   ->  Allocation   given out and not placed yet
//!     'c'                 ->  Counters     revision, last node id, last replica id
//!     'f'                 ->  Founding     the order that founded the cluster, as it was
//!     'n' | node u64      ->  NodeInfo
//!     's' | shard u32     ->  ShardInfo
//! ```
//!
//! Integers are big-endian, so that byte order is numeric order. Values are envelopes of `Kind::TopologyRecord`.

use quorate_types::{NodeId, ReplicaId, ShardId};

/// The first byte of an allocation's key.
pub(crate) const ALLOCATION: u8 = b'a';
/// The key of the counters.
pub(crate) const COUNTERS: u8 = b'c';
/// The key of the founding.
pub(crate) const FOUNDING: u8 = b'f';
/// The first byte of a node's key.
pub(crate) const NODE: u8 = b'n';
/// The first byte of a shard's key.
pub(crate) const SHARD: u8 = b's';

/// The key of an allocation.
pub(crate) fn allocation(replica: ReplicaId) -> Vec<u8> {
    with_id(ALLOCATION, &replica.0.to_be_bytes())
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
        assert_eq!(allocation(ReplicaId(0x0102)), b"a\0\0\0\0\0\0\x01\x02");
        assert_eq!(node(NodeId(0x0102)), b"n\0\0\0\0\0\0\x01\x02");
        assert_eq!(shard(ShardId(0x0102)), b"s\0\0\x01\x02");
        assert_eq!([COUNTERS, FOUNDING], *b"cf");
        assert!(shard(ShardId(255)) < shard(ShardId(256)));
    }
}
