//! Stories of operations against scripted nodes (`fake`): the attempts, and the reported outcome.
//! Time is paused, so deadlines are exact.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use quorate_types::topology::NodeState;
use quorate_types::{
    Key, KvAnswer, KvOperation, Mutation, NodeId, Outcome, ReadLevel, Record, Rejection, Served, Value, Write,
};
use tokio::time::Instant;

use crate::fake::{Act, FakeCluster, not_leader, outcome, unavailable, written};
use crate::{Error, Router, RouterConfig, Written};

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(400);
/// Latency of the network, and the jitter of one first pause: less than any further pause.
const SLACK: Duration = Duration::from_millis(25);

fn key() -> Key {
    Key::new("k").unwrap()
}

async fn put_within(router: &Router, within: Duration) -> Result<Served<Written>, Error> {
    let write = Write { key: key(), mutation: Mutation::Put(Value::new("v").unwrap()), condition: None };
    router.write(write, within).await
}

async fn put(router: &Router) -> Result<Served<Written>, Error> {
    put_within(router, LONG).await
}

async fn get(router: &Router, level: ReadLevel) -> Result<Served<Option<Record>>, Error> {
    router.get(key(), level, LONG).await
}

fn found() -> Act {
    Act::Answer(KvAnswer::Found(None))
}

/// A leader hint is followed without a pause, and the leader is known from then on.
#[tokio::test(start_paused = true)]
async fn a_hint_is_followed_and_remembered() {
    let cluster = FakeCluster::start(3);
    cluster.node(1).does_in_order([not_leader(3)]);
    cluster.node(3).does(|_| found());
    let router = cluster.router().await;
    for _ in 0..3 {
        let served = get(&router, ReadLevel::Strong).await.unwrap();
        assert_eq!((served.by.node, served.value), (NodeId(3), None));
    }
    assert_eq!((cluster.node(1).requests().len(), cluster.node(2).requests().len()), (1, 0));
    assert_eq!(cluster.node(3).requests().len(), 3);
}

/// A pinned router uses its node only. An operation that the node does not serve fails immediately,
/// with nothing applied.
#[tokio::test(start_paused = true)]
async fn a_pinned_router_uses_its_node_only() {
    let cluster = FakeCluster::start(3);
    cluster.node(2).does_in_order([not_leader(3), not_leader(3), written(4), found()]);
    let router = cluster.pinned_router(2).await;
    let started = Instant::now();
    for _ in 0..2 {
        let refused = put(&router).await.unwrap_err();
        assert!(matches!(&refused, Error::Unreachable { reason } if reason.contains("pinned")), "{refused}");
    }
    assert!(started.elapsed() < SLACK);
    assert_eq!(put(&router).await.unwrap().by.node, NodeId(2));
    assert_eq!(get(&router, ReadLevel::Eventual).await.unwrap().by.node, NodeId(2));
    assert_eq!((cluster.node(1).hellos(), cluster.node(3).hellos()), (0, 0));
}

/// A replica that was away names a leader that has been removed: the search continues.
#[tokio::test(start_paused = true)]
async fn a_hint_to_a_removed_node_does_not_end_the_search() {
    let cluster = FakeCluster::start(3);
    {
        let mut topology = cluster.topology.lock().unwrap();
        topology.nodes[2].state = NodeState::Removed;
        topology.shards[0].replicas.retain(|at| at.node != NodeId(3));
    }
    cluster.node(1).does(|_| not_leader(3));
    cluster.node(2).does(|_| written(5));
    let router = cluster.router().await;
    assert_eq!(put(&router).await.unwrap().by.node, NodeId(2));
}

/// Without a hint the other replicas are tried. Hints in a circle do not make a busy loop.
#[tokio::test(start_paused = true)]
async fn without_a_leader_replicas_are_tried_until_one_leads() {
    let cluster = FakeCluster::start(3);
    let mut elections = 5;
    cluster.node(1).does(move |_| {
        elections -= 1;
        if elections == 0 { found() } else { not_leader(0) }
    });
    cluster.node(2).does(|_| not_leader(3));
    cluster.node(3).does(|_| not_leader(2));
    let router = cluster.router().await;
    assert_eq!(get(&router, ReadLevel::Strong).await.unwrap().by.node, NodeId(1));
    assert!((1..=10).contains(&cluster.node(2).requests().len()), "{}", cluster.node(2).requests().len());
}

/// A write whose reply was lost is retried with the same stamp, also at another node, and its
/// outcome is reported.
#[tokio::test(start_paused = true)]
async fn a_lost_write_is_retried_with_the_same_stamp() {
    let cluster = FakeCluster::start(3);
    cluster.node(1).does_in_order([Act::Break]);
    cluster.node(2).does_in_order([Act::Reject(Rejection::Unknown { reason: "lost the lead".into() }), written(9)]);
    cluster.node(3).does(|_| not_leader(2));
    let router = cluster.router().await;
    let served = put(&router).await.unwrap();
    assert_eq!((served.value, served.by.node), (Written { version: 9, replaced: 0 }, NodeId(2)));
    let stamps = [1, 2, 3].map(|node| cluster.node(node).stamps()).concat();
    assert!(stamps.len() >= 3, "{stamps:?}");
    assert!(stamps.iter().all(|stamp| *stamp == stamps[0]), "{stamps:?}");
}

/// A write that may have been applied is never reported as a failure, however later attempts fail.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_reported_as_unknown() {
    for later in [
        unavailable,
        || not_leader(0),
        || Act::Reject(Rejection::DiskFull),
        || Act::Reject(Rejection::Invalid { reason: "no".into() }),
        || Act::Reject(Rejection::Overloaded { retry_after_ms: 1 }),
    ] {
        let cluster = FakeCluster::start(1);
        let mut first = true;
        cluster.node(1).does(move |_| if std::mem::take(&mut first) { Act::Break } else { later() });
        let router = cluster.router().await;
        let error = put_within(&router, SHORT).await.unwrap_err();
        assert!(error.may_have_applied() && !error.is_retryable(), "{error}");
    }
    let cluster = FakeCluster::start(1);
    cluster.node(1).does(|_| Act::Silence);
    let error = put_within(&cluster.router().await, SHORT).await.unwrap_err();
    assert!(error.may_have_applied(), "{error}");
}

/// When every attempt certainly failed, the error says that nothing was applied, names the
/// attempts, and comes within the deadline.
#[tokio::test(start_paused = true)]
async fn a_certain_failure_is_not_reported_as_unknown() {
    let cluster = FakeCluster::start(2);
    cluster.node(1).does(|_| unavailable());
    cluster.node(2).does(|_| not_leader(0));
    let router = cluster.router().await;
    let started = Instant::now();
    let error = put_within(&router, SHORT).await.unwrap_err();
    assert!(started.elapsed() < SHORT + SLACK);
    let Error::Unreachable { reason } = &error else { panic!("{error}") };
    assert!(reason.contains("no quorum") && reason.contains(&cluster.address(2)), "{reason}");
    assert!(!error.may_have_applied() && error.is_retryable());
}

/// Deadlines of reads and writes hold even when the node is silent.
#[tokio::test(start_paused = true)]
async fn deadlines_hold() {
    let cluster = FakeCluster::start(3);
    let router = cluster.router().await;
    for within in [1, 50, 700].map(Duration::from_millis) {
        for level in [ReadLevel::Strong, ReadLevel::Eventual] {
            let started = Instant::now();
            let error = router.get(key(), level, within).await.unwrap_err();
            assert!(matches!(error, Error::Unreachable { .. }), "{error}");
            assert!(started.elapsed() < within + SLACK, "{:?}", started.elapsed());
        }
        let started = Instant::now();
        let error = put_within(&router, within).await.unwrap_err();
        assert!(started.elapsed() < within + SLACK, "{:?}", started.elapsed());
        assert!(matches!(error, Error::Unknown { .. } | Error::Unreachable { .. }), "{error}");
    }
}

/// A session that the shard has forgotten is replaced if the write was certainly not applied in it.
#[tokio::test(start_paused = true)]
async fn an_unknown_session_is_replaced_when_nothing_is_in_doubt() {
    let cluster = FakeCluster::start(1);
    cluster.node(1).does_in_order([written(1), unavailable(), outcome(Outcome::SessionUnknown), written(2)]);
    let router = cluster.router().await;
    assert_eq!(put(&router).await.unwrap().value.version, 1);
    assert_eq!(put(&router).await.unwrap().value.version, 2);
    assert_eq!(cluster.node(1).stamps(), [(101, 1), (101, 2), (101, 2), (102, 1)]);
}

/// If an earlier attempt may have been applied, another stamp could apply the write twice: the
/// outcome is unknown.
#[tokio::test(start_paused = true)]
async fn an_unknown_session_ends_a_write_in_doubt() {
    let cluster = FakeCluster::start(1);
    cluster.node(1).does_in_order([Act::Break, outcome(Outcome::SessionUnknown), written(5)]);
    let router = cluster.router().await;
    let error = put(&router).await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
    assert_eq!(put(&router).await.unwrap().value.version, 5);
    assert_eq!(cluster.node(1).stamps(), [(101, 1), (101, 1), (102, 1)]);
}

/// Concurrent writes without a session open exactly one.
#[tokio::test(start_paused = true)]
async fn concurrent_writes_open_one_session() {
    let cluster = FakeCluster::start(1);
    cluster.node(1).does(|_| written(1));
    let router = cluster.router().await;
    for result in join_all((0..100).map(|_| put(&router))).await {
        result.unwrap();
    }
    let mut stamps = cluster.node(1).stamps();
    stamps.sort_unstable();
    assert_eq!(stamps, (1..=100).map(|sequence| (101, sequence)).collect::<Vec<_>>());
}

/// A write that is dropped frees its sequence: the stamp of the next write no longer counts it as
/// outstanding.
#[tokio::test(start_paused = true)]
async fn a_dropped_write_frees_its_sequence() {
    let cluster = FakeCluster::start(1);
    cluster.node(1).does(|_| Act::Silence);
    let router = cluster.router().await;
    for _ in 0..3 {
        assert!(tokio::time::timeout(Duration::from_millis(50), put(&router)).await.is_err());
    }
    cluster.node(1).does(|_| written(1));
    put(&router).await.unwrap();
    let KvOperation::Write { stamp, .. } = cluster.node(1).requests().pop().unwrap().operation else { panic!() };
    assert_eq!((stamp.sequence, stamp.lowest), (4, 4));
}

/// An eventual read falls to another replica, without a pause, when one ends the connection, is not
/// ready, or cannot be reached.
#[tokio::test(start_paused = true)]
async fn an_eventual_read_falls_to_the_next_replica() {
    let cluster = FakeCluster::start(3);
    cluster.node(1).does(|_| unavailable());
    cluster.node(2).down.store(true, Ordering::SeqCst);
    cluster.node(3).does(|_| found());
    let router = cluster.router().await;
    for _ in 0..20 {
        let started = Instant::now();
        let served = get(&router, ReadLevel::Eventual).await.unwrap();
        assert_eq!((served.by.node, served.by.level), (NodeId(3), ReadLevel::Eventual));
        assert!(started.elapsed() < SLACK, "{:?}", started.elapsed());
    }
}

/// Eventual reads take turns among replicas with equal load.
#[tokio::test(start_paused = true)]
async fn eventual_reads_are_spread() {
    let cluster = FakeCluster::start(3);
    for node in &cluster.nodes {
        node.does(|_| found());
    }
    let router = cluster.router().await;
    for result in join_all((0..90).map(|_| get(&router, ReadLevel::Eventual))).await {
        result.unwrap();
    }
    for node in &cluster.nodes {
        assert!((10..=60).contains(&node.requests().len()), "{}", node.requests().len());
    }
}

/// A node that keeps failing gets no requests, and is used again soon after it has recovered.
#[tokio::test(start_paused = true)]
async fn a_breaker_opens_and_recovers() {
    let cluster = FakeCluster::start(2);
    let router = cluster.router().await;
    cluster.node(1).down.store(true, Ordering::SeqCst);
    cluster.node(1).does(|_| found());
    cluster.node(2).does(|_| found());
    for _ in 0..200 {
        assert_eq!(get(&router, ReadLevel::Eventual).await.unwrap().by.node, NodeId(2));
    }
    assert!(cluster.node(1).hellos() < 10, "{}", cluster.node(1).hellos());
    cluster.node(1).down.store(false, Ordering::SeqCst);
    let back = async {
        while get(&router, ReadLevel::Eventual).await.unwrap().by.node != NodeId(1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3), back).await.expect("the node is used again");
}

/// A node with a newer entry of the map returns it, and the operation uses it. The node, which led
/// the shard and has no replica any longer, is not tried again.
#[tokio::test(start_paused = true)]
async fn a_newer_entry_is_merged() {
    let cluster = FakeCluster::start(2);
    let router = cluster.router().await;
    let mut entry = cluster.topology.lock().unwrap().shards[0].clone();
    entry.epoch = 2;
    entry.replicas.remove(0);
    cluster.node(1).does_in_order([Act::Reject(Rejection::WrongShard { shard: Some(entry) })]);
    cluster.node(2).does(|_| written(4));
    assert_eq!(put(&router).await.unwrap().by.epoch, 2);
    assert_eq!(cluster.node(2).requests()[0].epoch, 2);
    assert_eq!(cluster.node(1).topologies(), 1, "no need to fetch the map");
}

/// A map that proved wrong is fetched again, once for all operations that find out together.
#[tokio::test(start_paused = true)]
async fn a_wrong_map_is_fetched_again() {
    let cluster = FakeCluster::start(2);
    let router = cluster.router().await;
    {
        let mut topology = cluster.topology.lock().unwrap();
        topology.revision = 2;
        topology.shards[0].epoch = 7;
    }
    cluster.node(1).does(|request| match request.epoch {
        7 => written(4),
        _ => outcome(Outcome::WrongEpoch { epoch: 7 }),
    });
    for result in join_all((0..50).map(|_| put(&router))).await {
        assert_eq!(result.unwrap().by.epoch, 7);
    }
    assert_eq!(router.topology().unwrap().revision, 2);
    assert!(cluster.nodes.iter().map(|node| node.topologies()).sum::<u64>() <= 3);
}

/// Refusals are reported immediately.
#[tokio::test(start_paused = true)]
async fn refusals_are_reported_immediately() {
    let cluster = FakeCluster::start(1);
    let current = Record { version: 3, value: Value::new("x").unwrap(), expires_at_ms: None };
    cluster.node(1).does_in_order([
        outcome(Outcome::Refused { version: 3, current: Some(current.clone()) }),
        Act::Reject(Rejection::DiskFull),
        Act::Reject(Rejection::Invalid { reason: "too long".into() }),
    ]);
    let router = cluster.router().await;
    assert_eq!(put(&router).await, Err(Error::Refused { version: 3, current: Some(current) }));
    assert_eq!(put(&router).await, Err(Error::DiskFull));
    assert_eq!(put(&router).await, Err(Error::Invalid { reason: "too long".into() }));
}

/// An overloaded node is retried after the pause it asked for. At the deadline the error is
/// `Overloaded`.
#[tokio::test(start_paused = true)]
async fn an_overloaded_node_is_retried_after_its_pause() {
    let cluster = FakeCluster::start(1);
    let overloaded = || Act::Reject(Rejection::Overloaded { retry_after_ms: 30 });
    cluster.node(1).does_in_order([overloaded(), overloaded(), written(1)]);
    let router = cluster.router().await;
    let started = Instant::now();
    put(&router).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(60));
    cluster.node(1).does(move |_| overloaded());
    let error = put_within(&router, SHORT).await.unwrap_err();
    assert!(matches!(error, Error::Overloaded { .. }), "{error}");
}

/// Connecting needs one endpoint with the map. Without one the error names every endpoint.
#[tokio::test(start_paused = true)]
async fn connecting_needs_one_endpoint_with_the_map() {
    let cluster = FakeCluster::start(2);
    cluster.node(1).down.store(true, Ordering::SeqCst);
    let connect = async |endpoints: Vec<String>| {
        let endpoints = endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect();
        let router = cluster.unconnected(RouterConfig::new(endpoints)).unwrap();
        router.connect(Duration::from_secs(2)).await.map(|()| router)
    };
    let free = "nowhere:1".to_owned();
    let router = connect(vec![free.clone(), cluster.address(1), cluster.address(2)]).await.unwrap();
    assert_eq!(router.topology().unwrap().nodes.len(), 2);
    let error = connect(vec![free.clone(), cluster.address(1)]).await.unwrap_err().to_string();
    assert!(error.contains(&free) && error.contains("refused") && error.contains("has joined no cluster"), "{error}");
    let none = cluster.unconnected(RouterConfig::new(Vec::new()));
    assert!(matches!(none, Err(Error::Invalid { .. })));
}
