//! Conversions round-trip, and messages that break a limit are refused.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use quorate_types::topology::{ClusterInfo, NodeAddresses, NodeInfo, NodeState, Placement, ShardInfo, Topology};
use quorate_types::{
    ClusterId, Condition, KEY_BYTES_MAX, Key, KvAnswer, KvOperation, KvRequest, Mutation, NodeId, Outcome, ReadLevel,
    Record, Rejection, ReplicaId, Role, Served, ServedBy, SessionId, SessionStamp, ShardId, Token, TokenArc,
    VALUE_BYTES_MAX, Value, Write,
};

use crate::{admin, kv, reply_from_wire, reply_to_wire, request_from_wire};

fn keys() -> impl Strategy<Value = Key> {
    vec(any::<u8>(), 1..50).prop_map(|bytes| Key::new(bytes).unwrap())
}

fn values() -> impl Strategy<Value = Value> {
    vec(any::<u8>(), 0..50).prop_map(|bytes| Value::new(bytes).unwrap())
}

fn levels() -> impl Strategy<Value = ReadLevel> {
    prop_oneof![Just(ReadLevel::Strong), Just(ReadLevel::Eventual)]
}

fn roles() -> impl Strategy<Value = Role> {
    prop_oneof![
        Just(Role::Leader),
        Just(Role::Follower),
        Just(Role::Candidate),
        Just(Role::Learner),
        Just(Role::Stopped)
    ]
}

fn conditions() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::Absent),
        Just(Condition::Exists),
        any::<u64>().prop_map(Condition::Version),
        values().prop_map(Condition::Value)
    ]
}

fn records() -> impl Strategy<Value = Record> {
    (any::<u64>(), values(), any::<Option<u64>>()).prop_map(|(version, value, expires_at_ms)| Record {
        version,
        value,
        expires_at_ms,
    })
}

fn operations() -> impl Strategy<Value = KvOperation> {
    let mutations = prop_oneof![Just(Mutation::Delete), values().prop_map(Mutation::Put)];
    let stamps = (1..u64::MAX, 1..u64::MAX, 0..1000u64).prop_map(|(session, lowest, ahead)| SessionStamp {
        session: SessionId(session),
        sequence: lowest.saturating_add(ahead),
        lowest,
    });
    prop_oneof![
        Just(KvOperation::OpenSession),
        (keys(), levels()).prop_map(|(key, level)| KvOperation::Get { key, level }),
        (keys(), mutations, option::of(conditions()), stamps).prop_map(|(key, mutation, condition, stamp)| {
            KvOperation::Write { stamp, write: Write { key, mutation, condition } }
        })
    ]
}

fn requests() -> impl Strategy<Value = KvRequest> {
    (any::<u64>(), 1..u32::MAX, any::<u64>(), option::of(1..u32::MAX), operations()).prop_map(
        |(id, shard, epoch, timeout_ms, operation)| KvRequest {
            id,
            shard: ShardId(shard),
            epoch,
            timeout: timeout_ms.map(|ms| Duration::from_millis(ms.into())),
            operation,
        },
    )
}

fn answers() -> impl Strategy<Value = KvAnswer> {
    let outcomes = prop_oneof![
        any::<(u64, u64)>().prop_map(|(version, replaced)| Outcome::Written { version, replaced }),
        (any::<u64>(), option::of(records())).prop_map(|(version, current)| Outcome::Refused { version, current }),
        (1..u64::MAX).prop_map(|session| Outcome::SessionOpened { session: SessionId(session) }),
        Just(Outcome::SessionUnknown),
        Just(Outcome::SequenceForgotten),
        Just(Outcome::SequenceTooFar),
        any::<u64>().prop_map(|epoch| Outcome::WrongEpoch { epoch }),
    ];
    prop_oneof![option::of(records()).prop_map(KvAnswer::Found), outcomes.prop_map(KvAnswer::Outcome)]
}

fn served() -> impl Strategy<Value = Served<KvAnswer>> {
    let by = (levels(), any::<u64>(), roles(), any::<u32>(), any::<(u64, u64, u64)>()).prop_map(
        |(level, node, role, shard, (epoch, revision, applied))| ServedBy {
            level,
            node: NodeId(node),
            role,
            shard: ShardId(shard),
            epoch,
            revision,
            applied,
        },
    );
    (answers(), by).prop_map(|(value, by)| Served { value, by })
}

fn placements() -> impl Strategy<Value = Vec<Placement>> {
    vec(
        any::<(u64, u64)>().prop_map(|(replica, node)| Placement { replica: ReplicaId(replica), node: NodeId(node) }),
        0..4,
    )
}

fn shards() -> impl Strategy<Value = ShardInfo> {
    (1..u32::MAX, any::<(u64, u64, u64)>(), placements()).prop_map(|(id, (start, end, epoch), replicas)| ShardInfo {
        id: ShardId(id),
        arc: TokenArc { start: Token(start), end: Token(end) },
        epoch,
        replicas,
        initial_replicas: Vec::new(),
    })
}

fn rejections() -> impl Strategy<Value = Rejection> {
    prop_oneof![
        option::of(1..u64::MAX).prop_map(|leader| Rejection::NotLeader { leader: leader.map(NodeId) }),
        option::of(shards()).prop_map(|shard| Rejection::WrongShard { shard }),
        any::<String>().prop_map(|reason| Rejection::Unavailable { reason }),
        any::<u32>().prop_map(|retry_after_ms| Rejection::Overloaded { retry_after_ms }),
        Just(Rejection::DiskFull),
        any::<String>().prop_map(|reason| Rejection::Invalid { reason }),
        any::<String>().prop_map(|reason| Rejection::Unknown { reason }),
    ]
}

fn nodes() -> impl Strategy<Value = NodeInfo> {
    let states = prop_oneof![
        Just(NodeState::Joining),
        Just(NodeState::Active),
        Just(NodeState::Draining),
        Just(NodeState::Removed)
    ];
    (1..u64::MAX, any::<[String; 4]>(), any::<u32>(), states).prop_map(
        |(id, [client, peer, ops, zone], weight, state)| NodeInfo {
            id: NodeId(id),
            addresses: NodeAddresses { client, peer, ops },
            zone,
            weight,
            state,
        },
    )
}

fn topologies() -> impl Strategy<Value = Topology> {
    let clusters = (any::<u128>(), any::<[u8; 16]>(), any::<(u32, u32)>())
        .prop_map(|(id, hash_key, (replicas, shards))| ClusterInfo { id: ClusterId(id), hash_key, replicas, shards });
    (any::<u64>(), clusters, vec(nodes(), 0..4), vec(shards(), 0..4), placements()).prop_map(
        |(revision, cluster, mut nodes, mut shards, topology_replicas)| {
            nodes.sort_by_key(|node| node.id);
            shards.sort_by_key(|shard| shard.arc.start);
            Topology {
                revision,
                cluster,
                nodes,
                shards,
                topology_replicas,
                moves: Vec::new(),
                paused: revision % 2 == 0,
            }
        },
    )
}

/// Encodes and decodes a message, as between two processes.
fn carried<M: Message + Default>(message: &M) -> M {
    M::decode(&*message.encode_to_vec()).unwrap()
}

proptest! {
    #[test]
    fn requests_come_back(request in requests()) {
        let wire = carried(&kv::Request::from(request.clone()));
        prop_assert_eq!(request_from_wire(wire), Ok(request));
    }

    #[test]
    fn replies_come_back(id: u64, served in served()) {
        let wire = carried(&reply_to_wire(id, Ok(served.clone())));
        prop_assert_eq!(wire.id, id);
        prop_assert_eq!(reply_from_wire(wire), Ok(Ok(served)));
    }

    #[test]
    fn rejections_come_back(id: u64, rejection in rejections()) {
        let wire = carried(&reply_to_wire(id, Err(rejection.clone())));
        prop_assert_eq!(wire.id, id);
        prop_assert_eq!(reply_from_wire(wire), Ok(Err(rejection)));
    }

    #[test]
    fn maps_come_back(topology in topologies()) {
        let wire = carried(&admin::Topology::from(topology.clone()));
        prop_assert_eq!(Topology::try_from(wire), Ok(topology));
    }

    /// Any bytes are a message or an error, never a panic.
    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(request) = kv::Request::decode(&*bytes) {
            _ = request_from_wire(request);
        }
        if let Ok(reply) = kv::Reply::decode(&*bytes) {
            _ = reply_from_wire(reply);
        }
        if let Ok(topology) = admin::Topology::decode(&*bytes) {
            _ = Topology::try_from(topology);
        }
    }
}

fn put(key: usize, value: usize) -> kv::Request {
    let write = kv::Write {
        key: vec![b'k'; key].into(),
        value: Some(vec![b'v'; value].into()),
        condition: None,
        session: 1,
        sequence: 2,
        lowest: 1,
    };
    kv::Request { id: 1, shard: 1, operation: Some(kv::request::Operation::Write(write)), ..Default::default() }
}

fn changed(change: impl FnOnce(&mut kv::Write)) -> kv::Request {
    let mut request = put(1, 1);
    let Some(kv::request::Operation::Write(write)) = &mut request.operation else { unreachable!() };
    change(write);
    request
}

#[test]
fn broken_limits_are_refused_with_a_reason() {
    assert!(request_from_wire(put(KEY_BYTES_MAX, VALUE_BYTES_MAX)).is_ok());
    let get = |level| kv::Request {
        shard: 1,
        operation: Some(kv::request::Operation::Get(kv::Get { key: "k".into(), level })),
        ..Default::default()
    };
    let cases = [
        (put(0, 1), "empty"),
        (put(KEY_BYTES_MAX + 1, 1), "4096"),
        (put(1, VALUE_BYTES_MAX + 1), "1048576"),
        (kv::Request { shard: 0, ..put(1, 1) }, "shard"),
        (kv::Request { operation: None, ..put(1, 1) }, "operation"),
        (changed(|write| write.session = 0), "session"),
        (changed(|write| write.lowest = 0), "lowest"),
        (changed(|write| write.lowest = 3), "lowest"),
        (changed(|write| write.condition = Some(kv::Condition { condition: None })), "condition"),
        (
            changed(|write| {
                let wire = kv::condition::Condition::Value(vec![0; VALUE_BYTES_MAX + 1].into());
                write.condition = Some(kv::Condition { condition: Some(wire) });
            }),
            "1048576",
        ),
        (get(0), "level"),
        (get(9), "unknown level 9"),
    ];
    for (request, reason) in cases {
        let error = request_from_wire(request).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn values_are_shared_and_not_copied() {
    let value = Value::new(vec![1; 1000]).unwrap();
    let address = value.as_bytes().as_ptr();
    let record = Record { version: 1, value, expires_at_ms: None };
    let back = Record::try_from(kv::Record::from(record)).unwrap();
    assert_eq!(back.value.as_bytes().as_ptr(), address);
}

#[test]
fn a_timeout_is_never_rounded_down_to_none() {
    let request = |timeout| KvRequest {
        id: 1,
        shard: ShardId(1),
        epoch: 1,
        timeout: Some(timeout),
        operation: KvOperation::OpenSession,
    };
    assert_eq!(kv::Request::from(request(Duration::ZERO)).timeout_ms, 1);
    assert_eq!(kv::Request::from(request(Duration::from_micros(1500))).timeout_ms, 2);
    assert_eq!(kv::Request::from(request(Duration::MAX)).timeout_ms, u32::MAX);
}
