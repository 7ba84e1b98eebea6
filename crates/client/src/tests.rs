//! Stories over real connections, between a client and scripted gRPC servers (`fake`). The decisions
//! behind them are tested in `quorate_router`, on paused time.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::join_all;
use quorate_types::{ClusterId, KvAnswer, KvOperation, NodeId, ReadLevel, Record, Rejection, Served};

use crate::fake::{Act, FakeCluster, not_leader, unavailable, written};
use crate::{AdminErrorKind, Client, Error, Written, admin, newest_topology, node_status};

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(400);
/// For a busy machine: far less than a missed deadline or a needless pause would take.
const SLACK: Duration = Duration::from_secs(1);

async fn put(client: &Client) -> Result<Served<Written>, Error> {
    client.put("k", "v").await
}

async fn get(client: &Client, level: ReadLevel) -> Result<Served<Option<Record>>, Error> {
    client.get("k").level(level).await
}

fn found() -> Act {
    Act::Answer(KvAnswer::Found(None))
}

/// A leader hint is followed, and the leader is known from then on.
#[tokio::test]
async fn a_hint_is_followed_and_remembered() {
    let cluster = FakeCluster::start(3).await;
    cluster.node(1).does_in_order([not_leader(3)]);
    cluster.node(3).does(|_| found());
    let client = cluster.client().await;
    for _ in 0..3 {
        let served = get(&client, ReadLevel::Strong).await.unwrap();
        assert_eq!((served.by.node, served.value), (NodeId(3), None));
    }
    assert_eq!((cluster.node(1).requests().len(), cluster.node(2).requests().len()), (1, 0));
    assert_eq!(cluster.node(3).requests().len(), 3);
}

/// A pinned client connects to its node only. An operation that the node does not serve fails
/// immediately, with nothing applied.
#[tokio::test]
async fn a_pinned_client_uses_its_node_only() {
    let cluster = FakeCluster::start(3).await;
    cluster.node(2).does_in_order([not_leader(3), not_leader(3), written(4), found()]);
    let client = cluster.pinned_client(2).await;
    let started = Instant::now();
    for _ in 0..2 {
        let refused = put(&client).await.unwrap_err();
        assert!(matches!(&refused, Error::Unreachable { reason } if reason.contains("pinned")), "{refused}");
    }
    assert!(started.elapsed() < SLACK);
    assert_eq!(put(&client).await.unwrap().by.node, NodeId(2));
    assert_eq!(get(&client, ReadLevel::Eventual).await.unwrap().by.node, NodeId(2));
    assert_eq!((cluster.node(1).hellos(), cluster.node(3).hellos()), (0, 0));
}

/// A write whose stream ended is retried with the same stamp, also at another node, and its outcome
/// is reported.
#[tokio::test]
async fn a_lost_write_is_retried_with_the_same_stamp() {
    let cluster = FakeCluster::start(3).await;
    cluster.node(1).does_in_order([Act::Break]);
    cluster.node(2).does_in_order([Act::Reject(Rejection::Unknown { reason: "lost the lead".into() }), written(9)]);
    cluster.node(3).does(|_| not_leader(2));
    let client = cluster.client().await;
    let served = put(&client).await.unwrap();
    assert_eq!((served.value, served.by.node), (Written { version: 9, replaced: 0 }, NodeId(2)));
    let stamps = [1, 2, 3].map(|node| cluster.node(node).stamps()).concat();
    assert!(stamps.len() >= 3, "{stamps:?}");
    assert!(stamps.iter().all(|stamp| *stamp == stamps[0]), "{stamps:?}");
}

/// A write on a stream that ended, or without a reply, is reported as unknown if no retry finds its
/// outcome.
#[tokio::test]
async fn an_unknown_outcome_is_reported_as_unknown() {
    let cluster = FakeCluster::start(1).await;
    let mut first = true;
    cluster.node(1).does(move |_| if std::mem::take(&mut first) { Act::Break } else { unavailable() });
    let error = cluster.client().await.put("k", "v").deadline(SHORT).await.unwrap_err();
    assert!(error.may_have_applied() && !error.is_retryable(), "{error}");
    let cluster = FakeCluster::start(1).await;
    cluster.node(1).does(|_| Act::Silence);
    let error = cluster.client().await.put("k", "v").deadline(SHORT).await.unwrap_err();
    assert!(error.may_have_applied(), "{error}");
}

/// Deadlines of reads and writes hold even when the node is silent.
#[tokio::test]
async fn deadlines_hold() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client().await;
    for within in [1, 50, 700].map(Duration::from_millis) {
        for level in [ReadLevel::Strong, ReadLevel::Eventual] {
            let started = Instant::now();
            let error = client.get("k").level(level).deadline(within).await.unwrap_err();
            assert!(matches!(error, Error::Unreachable { .. }), "{error}");
            assert!(started.elapsed() < within + SLACK, "{:?}", started.elapsed());
        }
        let started = Instant::now();
        let error = client.put("k", "v").deadline(within).await.unwrap_err();
        assert!(started.elapsed() < within + SLACK, "{:?}", started.elapsed());
        assert!(matches!(error, Error::Unknown { .. } | Error::Unreachable { .. }), "{error}");
    }
}

/// A write that is dropped frees its sequence: the stamp of the next write no longer counts it as
/// outstanding.
#[tokio::test]
async fn a_dropped_write_frees_its_sequence() {
    let cluster = FakeCluster::start(1).await;
    cluster.node(1).does(|_| Act::Silence);
    let client = cluster.client().await;
    for _ in 0..3 {
        assert!(tokio::time::timeout(Duration::from_millis(50), put(&client)).await.is_err());
    }
    cluster.node(1).does(|_| written(1));
    put(&client).await.unwrap();
    let KvOperation::Write { stamp, .. } = cluster.node(1).requests().pop().unwrap().operation else { panic!() };
    assert_eq!((stamp.sequence, stamp.lowest), (4, 4));
}

/// An eventual read falls to another replica, without a pause, when one is not ready or cannot be
/// reached.
#[tokio::test]
async fn an_eventual_read_falls_to_the_next_replica() {
    let cluster = FakeCluster::start(3).await;
    cluster.node(1).does(|_| unavailable());
    cluster.node(2).down.store(true, Ordering::SeqCst);
    cluster.node(3).does(|_| found());
    let client = cluster.client().await;
    for _ in 0..20 {
        let started = Instant::now();
        let served = get(&client, ReadLevel::Eventual).await.unwrap();
        assert_eq!((served.by.node, served.by.level), (NodeId(3), ReadLevel::Eventual));
        assert!(started.elapsed() < SLACK, "{:?}", started.elapsed());
    }
}

/// Eventual reads are spread over replicas by their outstanding requests.
#[tokio::test]
async fn eventual_reads_are_spread() {
    let cluster = FakeCluster::start(3).await;
    for node in &cluster.nodes {
        node.does(|_| found());
    }
    let client = cluster.client().await;
    for result in join_all((0..90).map(|_| get(&client, ReadLevel::Eventual))).await {
        result.unwrap();
    }
    for node in &cluster.nodes {
        assert!((10..=60).contains(&node.requests().len()), "{}", node.requests().len());
    }
}

/// A node that keeps failing is not connected to over and over, and is used again soon after it has
/// recovered.
#[tokio::test]
async fn a_breaker_opens_and_recovers() {
    let cluster = FakeCluster::start(2).await;
    let client = cluster.client().await;
    cluster.node(1).down.store(true, Ordering::SeqCst);
    cluster.node(1).does(|_| found());
    cluster.node(2).does(|_| found());
    for _ in 0..200 {
        assert_eq!(get(&client, ReadLevel::Eventual).await.unwrap().by.node, NodeId(2));
    }
    assert!(cluster.node(1).hellos() < 10, "{}", cluster.node(1).hellos());
    cluster.node(1).down.store(false, Ordering::SeqCst);
    let back = async {
        while get(&client, ReadLevel::Eventual).await.unwrap().by.node != NodeId(1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3), back).await.expect("the node is used again");
}

/// Concurrent requests leave in one frame.
#[tokio::test]
async fn requests_leave_in_batches() {
    let cluster = FakeCluster::start(1).await;
    cluster.node(1).does(|_| found());
    let client = cluster.client().await;
    for _ in 0..4 {
        for result in join_all((0..256).map(|_| get(&client, ReadLevel::Strong))).await {
            result.unwrap();
        }
    }
    let frames = cluster.node(1).frames();
    assert_eq!(frames.iter().sum::<usize>(), 1024);
    assert!(frames.len() <= 16, "{frames:?}");
}

/// A node of another cluster, or another node at the address, gets no request.
#[tokio::test]
async fn a_stranger_at_the_address_gets_no_request() {
    let cluster = FakeCluster::start(2).await;
    let client = cluster.client().await;
    cluster.topology.lock().unwrap().cluster.id = ClusterId(0xbad);
    let error = client.put("k", "v").deadline(SHORT).await.unwrap_err();
    let Error::Unreachable { reason } = &error else { panic!("{error}") };
    assert!(reason.contains("another cluster"), "{reason}");

    let cluster = FakeCluster::start(2).await;
    {
        let mut topology = cluster.topology.lock().unwrap();
        let first = topology.nodes[0].addresses.clone();
        topology.nodes[0].addresses = std::mem::replace(&mut topology.nodes[1].addresses, first);
    }
    let error = cluster.client().await.put("k", "v").deadline(SHORT).await.unwrap_err();
    assert!(error.to_string().contains("it is node "), "{error}");
    assert!(cluster.nodes.iter().all(|node| node.requests().is_empty()));
}

/// Connecting needs one endpoint with the map. Without one the error names every endpoint.
#[tokio::test]
async fn connecting_needs_one_endpoint_with_the_map() {
    let cluster = FakeCluster::start(2).await;
    cluster.node(1).down.store(true, Ordering::SeqCst);
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let connect = async |endpoints: Vec<String>| {
        Client::builder().endpoints(endpoints).deadline(Duration::from_secs(2)).connect().await
    };
    let client = connect(vec![free.clone(), cluster.address(1), cluster.address(2)]).await.unwrap();
    assert_eq!(client.router().topology().unwrap().nodes.len(), 2);
    let error = connect(vec![free.clone(), cluster.address(1)]).await.unwrap_err().to_string();
    assert!(error.contains(&free) && error.contains("refused") && error.contains("has joined no cluster"), "{error}");
    assert!(matches!(connect(vec!["nonsense".into()]).await, Err(Error::Invalid { .. })));
    assert!(matches!(connect(Vec::new()).await, Err(Error::Invalid { .. })));
}

/// Operators' requests have time-outs, and their errors are sorted by the next step.
#[tokio::test]
async fn admin_errors_are_sorted_by_the_next_step() {
    let cluster = FakeCluster::start(1).await;
    let client = admin(&cluster.address(1), LONG).await.unwrap();
    assert_eq!(client.node(LONG).await.unwrap().id, 1);
    assert_eq!(client.topology(LONG).await.unwrap().nodes.len(), 1);
    let conflict = client.init_cluster(Default::default(), LONG).await.unwrap_err();
    assert_eq!(conflict.kind, AdminErrorKind::Conflict, "{conflict}");
    let invalid = client.hash_shard(Default::default(), LONG).await.unwrap_err();
    assert_eq!(invalid.kind, AdminErrorKind::Invalid, "{invalid}");
    let late = client.compact_logs(Default::default(), Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(late.kind, AdminErrorKind::Unanswered, "{late}");
    assert_eq!(admin("nonsense", LONG).await.unwrap_err().kind, AdminErrorKind::Invalid);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let unreachable = node_status(&free, LONG).await.unwrap_err();
    assert_eq!(unreachable.kind, AdminErrorKind::Unreachable, "{unreachable}");
    assert!(unreachable.to_string().contains(&free), "{unreachable}");
}

/// The newest topology is the answer of any node that answers; without one, every node's error is
/// returned.
#[tokio::test]
async fn newest_topology_needs_one_answer() {
    let cluster = FakeCluster::start(2).await;
    cluster.node(1).down.store(true, Ordering::SeqCst);
    let endpoints = [cluster.address(1), cluster.address(2)];
    assert_eq!(newest_topology(&endpoints, LONG).await.unwrap().revision, 1);
    let errors = newest_topology(&endpoints[..1], LONG).await.unwrap_err();
    assert_eq!(errors.iter().map(|error| error.kind).collect::<Vec<_>>(), [AdminErrorKind::Refused]);
}
