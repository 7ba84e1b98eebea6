//! Stories of operations against scripted nodes (`fake`): what is tried where, and what is said in the end.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::join_all;
use quorate_types::topology::NodeState;
use quorate_types::{
    ClusterId, Key, KvAnswer, KvOperation, Mutation, NodeId, Outcome, ReadLevel, Record, Rejection, Served, Value,
    Write,
};

use crate::fake::{Act, FakeCluster, not_leader, outcome, unavailable, written};
use crate::{AdminError, Error, Router, RouterConfig, Written, admin};

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(400);
/// For a busy machine: far less than what a missed deadline or a pause too many would take.
const SLACK: Duration = Duration::from_secs(1);

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

/// A hint is followed at once, and the leader is known from then on.
#[tokio::test]
async fn a_hint_is_followed_and_remembered() {
    let cluster = FakeCluster::start(3).await;
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

/// A pinned router asks its node every time, and never another: what that one does not serve fails at once, with nothing applied.
#[tokio::test]
async fn a_pinned_router_asks_its_node_only() {
    let cluster = FakeCluster::start(3).await;
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

/// A replica that was away names a leader that was removed meanwhile: that is no reason to give up.
#[tokio::test]
async fn a_hint_to_a_removed_node_is_not_the_end() {
    let cluster = FakeCluster::start(3).await;
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

/// Without a hint the other replicas are tried; a node that points to itself or in a circle does not make a busy loop.
#[tokio::test]
async fn without_a_leader_replicas_are_tried_until_one_leads() {
    let cluster = FakeCluster::start(3).await;
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

/// A write whose reply was lost is sent again with the same stamp, also to another node, and its outcome is reported.
#[tokio::test]
async fn a_lost_reply_is_asked_for_again_with_the_same_stamp() {
    let cluster = FakeCluster::start(3).await;
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

/// Whatever the later tries say, a write that may have been applied is never reported as a failure.
#[tokio::test]
async fn an_unknown_outcome_is_reported_as_unknown() {
    for later in [
        unavailable,
        || not_leader(0),
        || Act::Reject(Rejection::DiskFull),
        || Act::Reject(Rejection::Invalid { reason: "no".into() }),
        || Act::Reject(Rejection::Overloaded { retry_after_ms: 1 }),
    ] {
        let cluster = FakeCluster::start(1).await;
        let mut first = true;
        cluster.node(1).does(move |_| if std::mem::take(&mut first) { Act::Break } else { later() });
        let router = cluster.router().await;
        let error = put_within(&router, SHORT).await.unwrap_err();
        assert!(error.may_have_applied() && !error.is_retryable(), "{error}");
    }
    let cluster = FakeCluster::start(1).await;
    cluster.node(1).does(|_| Act::Silence);
    let error = put_within(&cluster.router().await, SHORT).await.unwrap_err();
    assert!(error.may_have_applied(), "{error}");
}

/// When every try was certainly in vain the error says that nothing was applied, what was tried, and comes inside the deadline.
#[tokio::test]
async fn a_certain_failure_is_not_reported_as_unknown() {
    let cluster = FakeCluster::start(2).await;
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

/// A deadline holds even when the node is silent, for reads and writes.
#[tokio::test]
async fn the_deadline_is_kept() {
    let cluster = FakeCluster::start(3).await;
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

/// A session that the shard has forgotten is replaced if this write was certainly never applied in it.
#[tokio::test]
async fn an_unknown_session_is_replaced_when_nothing_is_in_doubt() {
    let cluster = FakeCluster::start(1).await;
    cluster.node(1).does_in_order([written(1), unavailable(), outcome(Outcome::SessionUnknown), written(2)]);
    let router = cluster.router().await;
    assert_eq!(put(&router).await.unwrap().value.version, 1);
    assert_eq!(put(&router).await.unwrap().value.version, 2);
    assert_eq!(cluster.node(1).stamps(), [(101, 1), (101, 2), (101, 2), (102, 1)]);
}

/// If an earlier try may have been applied, another stamp could apply it twice: the outcome is unknown.
#[tokio::test]
async fn an_unknown_session_ends_a_write_in_doubt() {
    let cluster = FakeCluster::start(1).await;
    cluster.node(1).does_in_order([Act::Break, outcome(Outcome::SessionUnknown), written(5)]);
    let router = cluster.router().await;
    let error = put(&router).await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
    assert_eq!(put(&router).await.unwrap().value.version, 5);
    assert_eq!(cluster.node(1).stamps(), [(101, 1), (101, 1), (102, 1)]);
}

/// Many writes that find no session open exactly one.
#[tokio::test]
async fn a_session_is_opened_once_for_all() {
    let cluster = FakeCluster::start(1).await;
    cluster.node(1).does(|_| written(1));
    let router = cluster.router().await;
    for result in join_all((0..100).map(|_| put(&router))).await {
        result.unwrap();
    }
    let mut stamps = cluster.node(1).stamps();
    stamps.sort_unstable();
    assert_eq!(stamps, (1..=100).map(|sequence| (101, sequence)).collect::<Vec<_>>());
}

/// A write that is dropped in mid-air frees its sequence: the next one says that nobody waits for it any more.
#[tokio::test]
async fn a_dropped_write_does_not_hold_up_the_others() {
    let cluster = FakeCluster::start(1).await;
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

/// An eventual read goes to another replica, at once, when one breaks off, is not ready, or cannot be reached.
#[tokio::test]
async fn an_eventual_read_falls_to_the_next_replica() {
    let cluster = FakeCluster::start(3).await;
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

/// Eventual reads take turns among replicas that are equally free.
#[tokio::test]
async fn eventual_reads_are_spread() {
    let cluster = FakeCluster::start(3).await;
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

/// A node that keeps failing is left alone, and used again soon after it is back, with nobody's help.
#[tokio::test]
async fn a_breaker_opens_and_recovers() {
    let cluster = FakeCluster::start(2).await;
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

/// What callers ask for at the same time leaves in one frame.
#[tokio::test]
async fn requests_leave_in_batches() {
    let cluster = FakeCluster::start(1).await;
    cluster.node(1).does(|_| found());
    let router = cluster.router().await;
    for _ in 0..4 {
        for result in join_all((0..256).map(|_| get(&router, ReadLevel::Strong))).await {
            result.unwrap();
        }
    }
    let frames = cluster.node(1).frames();
    assert_eq!(frames.iter().sum::<usize>(), 1024);
    assert!(frames.len() <= 16, "{frames:?}");
}

/// A node that knows a newer entry of the map tells it, and the operation goes on with it.
#[tokio::test]
async fn a_newer_entry_is_taken_over() {
    let cluster = FakeCluster::start(2).await;
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

/// When the map has proved wrong it is fetched again: once for all who find out together.
#[tokio::test]
async fn a_wrong_map_is_fetched_again() {
    let cluster = FakeCluster::start(2).await;
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

/// Refusals are reported as what they are, at once.
#[tokio::test]
async fn refusals_are_reported_at_once() {
    let cluster = FakeCluster::start(1).await;
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

/// A node that has too much to do is asked again after its pause; if that goes on to the deadline, the error says so.
#[tokio::test]
async fn an_overloaded_node_is_asked_again_later() {
    let cluster = FakeCluster::start(1).await;
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

/// A node of another cluster, or another node at the address, gets no request.
#[tokio::test]
async fn a_stranger_at_the_address_gets_no_request() {
    let cluster = FakeCluster::start(2).await;
    let router = cluster.router().await;
    cluster.topology.lock().unwrap().cluster.id = ClusterId(0xbad);
    let error = put_within(&router, SHORT).await.unwrap_err();
    let Error::Unreachable { reason } = &error else { panic!("{error}") };
    assert!(reason.contains("another cluster"), "{reason}");

    let cluster = FakeCluster::start(2).await;
    {
        let mut topology = cluster.topology.lock().unwrap();
        let first = topology.nodes[0].addresses.clone();
        topology.nodes[0].addresses = std::mem::replace(&mut topology.nodes[1].addresses, first);
    }
    let error = put_within(&cluster.router().await, SHORT).await.unwrap_err();
    assert!(error.to_string().contains("it is node "), "{error}");
    assert!(cluster.nodes.iter().all(|node| node.requests().is_empty()));
}

/// Connecting needs one endpoint that knows the map; without one the error names them all and why.
#[tokio::test]
async fn connecting_needs_one_endpoint_that_knows_the_map() {
    let cluster = FakeCluster::start(2).await;
    cluster.node(1).down.store(true, Ordering::SeqCst);
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let connect = async |endpoints: Vec<String>| {
        let router = Router::new(RouterConfig::new(endpoints)).unwrap();
        router.connect(Duration::from_secs(2)).await.map(|()| router)
    };
    let router = connect(vec![free.clone(), cluster.address(1), cluster.address(2)]).await.unwrap();
    assert_eq!(router.topology().unwrap().nodes.len(), 2);
    let error = connect(vec![free.clone(), cluster.address(1)]).await.unwrap_err().to_string();
    assert!(error.contains(&free) && error.contains("refused") && error.contains("has joined no cluster"), "{error}");
    let invalid = Router::new(RouterConfig::new(vec!["nonsense".into()])).unwrap_err();
    assert!(matches!(invalid, Error::Invalid { .. }), "{invalid}");
    assert!(matches!(Router::new(RouterConfig::new(Vec::new())), Err(Error::Invalid { .. })));
}

/// An operator's requests have deadlines, and their errors say what to do next.
#[tokio::test]
async fn operators_get_errors_sorted_by_what_to_do() {
    let cluster = FakeCluster::start(1).await;
    let client = admin(&cluster.address(1), LONG).await.unwrap();
    assert_eq!(client.node(LONG).await.unwrap().id, 1);
    assert_eq!(client.topology(LONG).await.unwrap().nodes.len(), 1);
    let conflict = client.init_cluster(Default::default(), LONG).await.unwrap_err();
    assert!(matches!(conflict, AdminError::Conflict { .. }), "{conflict}");
    assert!(matches!(client.hash_shard(Default::default(), LONG).await, Err(AdminError::Invalid { .. })));
    let late = client.compact_logs(Default::default(), Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(late, AdminError::Unreachable { .. }), "{late}");
    assert!(matches!(admin("nonsense", LONG).await, Err(AdminError::Invalid { .. })));
}
