//! The records of the topology group's state, and the changes that a command makes to them.

use bytes::Bytes;
use quorate_types::codec::{self, CodecError, Kind};
use quorate_types::operation::{Operation, OperationId, ReplicaMove};
use quorate_types::topology::{Bootstrap, NodeInfo, Placement, ShardInfo};
use quorate_types::{GroupId, NodeId, ReplicaId};

use crate::keys;

/// The revision, and the last ids given out. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// The revision of the topology: grows with every change that a
    /// [`quorate_types::topology::Topology`] shows.
    pub revision: u64,
    /// The last node id given out.
    pub last_node: NodeId,
    /// The last replica id given out.
    pub last_replica: ReplicaId,
    /// The last operation started.
    pub last_operation: OperationId,
}

/// A record of the topology group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The counters.
    Counters(Counters),
    /// The order that bootstrapped the cluster, unchanged.
    Bootstrap(Bootstrap),
    /// The current record of a node.
    Node(NodeInfo),
    /// The map's current entry of a shard.
    Shard(ShardInfo),
    /// The move of a group in motion.
    Move(ReplicaMove),
    /// The current record of an operation.
    Operation(Operation),
    /// Whether moves are paused.
    Paused(bool),
    /// The current replicas of the topology group.
    TopologyReplicas(Vec<Placement>),
}

/// A change of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Puts a record in place of the one with its key, if there is one.
    Put(Record),
    /// Removes the move of this group.
    ForgetMove(GroupId),
    /// Removes the record of an operation that ended long ago.
    ForgetOperation(OperationId),
}

impl Record {
    /// The record's key in [`quorate_machine::keys::Space::Table`].
    pub fn key(&self) -> Vec<u8> {
        match self {
            Record::Counters(_) => vec![keys::COUNTERS],
            Record::Bootstrap(_) => vec![keys::BOOTSTRAP],
            Record::Node(node) => keys::node(node.id),
            Record::Shard(shard) => keys::shard(shard.id),
            Record::Move(moving) => keys::moving(moving.group),
            Record::Operation(operation) => keys::operation(operation.id),
            Record::Paused(_) => vec![keys::PAUSED],
            Record::TopologyReplicas(_) => vec![keys::TOPOLOGY_REPLICAS],
        }
    }

    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        const KIND: Kind = Kind::TopologyRecord;
        match self {
            Record::Counters(Counters { revision, last_node, last_replica, last_operation }) => {
                codec::encode(KIND, &(*revision, *last_node, *last_replica, *last_operation))
            }
            Record::Bootstrap(bootstrap) => codec::encode(KIND, bootstrap),
            Record::Node(node) => codec::encode(KIND, node),
            Record::Shard(shard) => codec::encode(KIND, shard),
            Record::Move(moving) => codec::encode(KIND, moving),
            Record::Operation(operation) => codec::encode(KIND, operation),
            Record::Paused(paused) => codec::encode(KIND, paused),
            Record::TopologyReplicas(replicas) => codec::encode(KIND, replicas),
        }
    }

    /// Reads a record back. An error is corruption: a replica that meets one stops.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        const KIND: Kind = Kind::TopologyRecord;
        let malformed = |reason: &str| {
            let key = Bytes::copy_from_slice(key);
            CodecError::Malformed { kind: KIND, reason: format!("{reason} {key:?}") }
        };
        let record = match key.first() {
            Some(&keys::COUNTERS) => {
                let (revision, last_node, last_replica, last_operation) = codec::decode(KIND, value)?;
                Record::Counters(Counters { revision, last_node, last_replica, last_operation })
            }
            Some(&keys::BOOTSTRAP) => Record::Bootstrap(codec::decode(KIND, value)?),
            Some(&keys::NODE) => Record::Node(codec::decode(KIND, value)?),
            Some(&keys::SHARD) => Record::Shard(codec::decode(KIND, value)?),
            Some(&keys::MOVE) => Record::Move(codec::decode(KIND, value)?),
            Some(&keys::OPERATION) => Record::Operation(codec::decode(KIND, value)?),
            Some(&keys::PAUSED) => Record::Paused(codec::decode(KIND, value)?),
            Some(&keys::TOPOLOGY_REPLICAS) => Record::TopologyReplicas(codec::decode(KIND, value)?),
            _ => return Err(malformed("unknown key")),
        };
        if record.key() != key {
            return Err(malformed("the record belongs to another key than"));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::operation::{Intent, OperationState};
    use quorate_types::topology::{ClusterInfo, NodeAddresses, NodeState};
    use quorate_types::{ClusterId, ShardId, Token, TokenArc};

    use super::*;

    fn samples() -> [Record; 8] {
        let placement = Placement { replica: ReplicaId(7), node: NodeId(2) };
        let addresses = NodeAddresses { client: "a:1".into(), peer: "a:2".into(), ops: "a:3".into() };
        let node = NodeInfo { id: NodeId(2), addresses, zone: "z".into(), weight: 100, state: NodeState::Draining };
        let cluster = ClusterInfo { id: ClusterId(1), hash_key: [9; 16], replicas: 3, shards: 16 };
        [
            Record::Counters(Counters {
                revision: 5,
                last_node: NodeId(3),
                last_replica: ReplicaId(51),
                last_operation: OperationId(4),
            }),
            Record::Bootstrap(Bootstrap { cluster, nodes: vec![node.clone()], topology_replicas: vec![placement] }),
            Record::Node(node),
            Record::Shard(ShardInfo {
                id: ShardId(4),
                arc: TokenArc { start: Token(1), end: Token(2) },
                epoch: 1,
                replicas: vec![placement],
                initial_replicas: vec![],
            }),
            Record::Move(ReplicaMove {
                group: GroupId(4),
                from: Some(placement),
                to: None,
                operation: OperationId(6),
                cancelled: true,
            }),
            Record::Operation(Operation {
                id: OperationId(6),
                intent: Intent::Remove { node: NodeId(2), dead: true },
                state: OperationState::Cancelled,
                started_ms: 1,
                ended_ms: 2,
                moved: 3,
                node_was: Some(NodeState::Draining),
            }),
            Record::Paused(true),
            Record::TopologyReplicas(vec![placement]),
        ]
    }

    #[test]
    fn records_round_trip_by_their_keys() {
        for record in samples() {
            assert_eq!(Record::decode(&record.key(), &record.encode()), Ok(record));
        }
    }

    #[test]
    fn a_record_under_another_key_is_corruption() {
        let [counters, _, node, ..] = samples();
        for key in [&b""[..], b"x", b"n\0\0\0\0\0\0\0\x03", &counters.key()] {
            assert!(Record::decode(key, &node.encode()).is_err(), "{key:?}");
        }
    }

    /// The payloads on disk, written out: a change of them breaks every data directory.
    #[test]
    fn the_bytes_of_records_are_frozen() {
        let hex = |record: &Record| {
            record.encode()[codec::ENVELOPE_BYTES..].iter().map(|b| format!("{b:02x}")).collect::<String>()
        };
        let [counters, bootstrap, node, shard, moving, operation, paused, replicas] = samples();
        let placement = "07000000000000000200000000000000";
        let addresses = "0300000000000000613a310300000000000000613a320300000000000000613a33";
        let node_hex = format!("0200000000000000{addresses}01000000000000007a6400000002000000");
        let cluster = format!("01{}{}0300000010000000", "00".repeat(15), "09".repeat(16));
        let one = "0100000000000000";
        assert_eq!(hex(&counters), "0500000000000000030000000000000033000000000000000400000000000000");
        assert_eq!(hex(&node), node_hex);
        assert_eq!(hex(&bootstrap), format!("{cluster}{one}{node_hex}{one}{placement}"));
        assert_eq!(hex(&shard), format!("04000000{one}0200000000000000{one}{one}{placement}{}", "00".repeat(8)));
        assert_eq!(hex(&moving), format!("0400000001{placement}00060000000000000001"));
        let times = "0100000000000000020000000000000003000000";
        assert_eq!(
            hex(&operation),
            format!("060000000000000003000000{}0102000000{times}0102000000", "0200000000000000")
        );
        assert_eq!((hex(&paused), hex(&replicas)), ("01".to_owned(), format!("{one}{placement}")));
    }
}
