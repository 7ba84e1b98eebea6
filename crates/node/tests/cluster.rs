//! Three nodes in this process, from nothing to a cluster that serves, through stops and restarts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers, too")]

use quorate_proto::admin::{CompactLogsRequest, HashShardRequest, Intent, StartOperationRequest};
use quorate_types::topology::NodeAddresses;
use quorate_types::{Key, KvAnswer, KvOperation, Outcome, ReadLevel, Rejection, Role};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;

mod support;
use support::{KvStream, RunningNode, config, delete, eventually, get, put, route, value};

/// Nodes sorted by client address, so that the first one bootstraps.
fn start(dirs: &[tempfile::TempDir]) -> Vec<RunningNode> {
    let mut configs: Vec<_> = dirs.iter().map(|dir| config(dir.path())).collect();
    configs.sort_by(|a, b| a.listen.client.cmp(&b.listen.client));
    configs.into_iter().map(RunningNode::start).collect()
}

fn dirs(count: usize) -> Vec<tempfile::TempDir> {
    (0..count).map(|_| tempfile::tempdir().unwrap()).collect()
}

/// Asks the leader of a shard, following hints, until it answers.
async fn at_leader(nodes: &[RunningNode], shard: u32, epoch: u64, operation: &KvOperation) -> support::Answer {
    eventually("a leader that answers", async || {
        for node in nodes {
            let answer = node.stream().await.ask(shard, epoch, operation.clone()).await;
            match answer {
                Err(Rejection::NotLeader { .. } | Rejection::Unavailable { .. }) => {}
                answer => return Ok(answer),
            }
        }
        Err("no node leads")
    })
    .await
}

async fn session_at_leader(nodes: &[RunningNode], shard: u32, epoch: u64) -> quorate_types::SessionId {
    match at_leader(nodes, shard, epoch, &KvOperation::OpenSession).await.unwrap().value {
        KvAnswer::Outcome(Outcome::SessionOpened { session }) => session,
        other => panic!("{other:?}"),
    }
}

/// The whole life of a cluster: bootstrapped once, written, read at both levels, a node stopped and
/// started, all stopped and started; acknowledged writes stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_nodes_from_nothing_through_restarts() {
    let dirs = dirs(3);
    let mut nodes = start(&dirs);

    // Alone: alive, not ready, and it says why.
    let (code, reasons) = nodes[0].http("/readyz").await;
    assert_eq!(code, 503);
    assert!(reasons.contains("in no cluster yet"), "{reasons}");
    assert_eq!(nodes[0].http("/livez").await.0, 200);
    assert_eq!(nodes[0].status().await.id, 0);
    assert_eq!(nodes[0].stream_to("").await.err().unwrap().code(), Code::FailedPrecondition);

    // Bootstrap: by the first node, once, and nothing else.
    let all: Vec<&RunningNode> = nodes.iter().collect();
    let (code, text) = nodes[1].init(&all, 3, 4).await.unwrap_err();
    assert_eq!(code, Code::FailedPrecondition);
    assert!(text.contains(nodes[0].client_address()), "{text}");
    assert!(!nodes[0].init(&all, 3, 4).await.unwrap());
    assert!(nodes[0].init(&all, 3, 4).await.unwrap(), "the second time it is there already");
    assert!(nodes[2].init(&all, 3, 4).await.unwrap());
    let (code, text) = nodes[0].init(&all, 3, 8).await.unwrap_err();
    assert_eq!(code, Code::AlreadyExists);
    assert!(text.contains("with 3 replicas and 8 shards"), "{text}");
    assert_eq!(nodes[1].init(&all[1..2], 1, 4).await.unwrap_err().0, Code::AlreadyExists);
    for node in &nodes {
        node.wait_ready().await;
    }
    let topology = nodes[0].topology().await;
    assert_eq!((topology.nodes.len(), topology.shards.len()), (3, 4));

    // Writing and reading.
    let key = Key::new("greeting").unwrap();
    let (shard, epoch) = route(&topology, &key);
    let session = session_at_leader(&nodes, shard, epoch).await;
    let written = at_leader(&nodes, shard, epoch, &put(&key, "hello", session, 1)).await.unwrap();
    assert!(matches!(written.value, KvAnswer::Outcome(Outcome::Written { .. })), "{written:?}");
    let read = at_leader(&nodes, shard, epoch, &get(&key, ReadLevel::Strong)).await;
    assert_eq!(value(&read).as_deref(), Some("hello"));
    let by = read.unwrap().by;
    assert_eq!((by.level, by.role, by.shard.0, by.epoch), (ReadLevel::Strong, Role::Leader, shard, epoch));
    assert!(by.revision >= 1 && by.applied > 0);
    for node in &nodes {
        let read = eventually("the value on every replica", async || {
            let read = node.stream().await.ask(shard, epoch, get(&key, ReadLevel::Eventual)).await;
            if read.is_ok() && value(&read).is_some() { Ok(read) } else { Err(format!("{read:?}")) }
        })
        .await;
        assert_eq!(value(&read).as_deref(), Some("hello"));
    }

    // A faulty client.
    let leader = by.node;
    let mut streams: Vec<(u64, KvStream)> = Vec::new();
    let other = shard % 4 + 1;
    for node in &nodes {
        eventually("a replica of the other shard that has caught up", async || {
            match node.stream().await.ask(other, epoch, get(&key, ReadLevel::Eventual)).await {
                Err(Rejection::Unavailable { reason }) => Err(reason),
                answer => Ok(answer),
            }
        })
        .await
        .unwrap_err();
        streams.push((node.status().await.id, node.stream().await));
    }
    for (id, stream) in &mut streams {
        let strong = stream.ask(shard, epoch, get(&key, ReadLevel::Strong)).await;
        if *id != leader.0 {
            assert_eq!(strong, Err(Rejection::NotLeader { leader: Some(leader) }));
        }
        let ahead = stream.ask(shard, epoch + 1, get(&key, ReadLevel::Eventual)).await;
        assert!(matches!(ahead, Err(Rejection::Unavailable { .. })), "{ahead:?}");
        let behind = stream.ask(shard, epoch - 1, get(&key, ReadLevel::Eventual)).await;
        let Err(Rejection::WrongShard { shard: Some(info) }) = behind else { panic!("{behind:?}") };
        assert_eq!((info.id.0, info.epoch), (shard, epoch));
        let misrouted = stream.ask(other, epoch, get(&key, ReadLevel::Eventual)).await;
        assert!(matches!(misrouted, Err(Rejection::Invalid { .. })), "{misrouted:?}");
        let misrouted = stream.ask(other, epoch, put(&key, "astray", session, 9)).await;
        assert!(
            matches!(misrouted, Err(Rejection::Invalid { .. })),
            "acknowledged, no client could read it: {misrouted:?}"
        );
        let nowhere = stream.ask(99, epoch, get(&key, ReadLevel::Eventual)).await;
        assert_eq!(nowhere, Err(Rejection::WrongShard { shard: None }));
    }
    let refused = nodes[0].stream_to("00000000000000000000000000000001").await.err().unwrap();
    assert_eq!(refused.code(), Code::FailedPrecondition);

    // A large frame: it asks for more bytes than one stream's replies may have in flight.
    let at = streams.iter().position(|(id, _)| *id == leader.0).unwrap();
    let big = Key::new("big{greeting}").unwrap();
    let (big_shard, _) = route(&topology, &big);
    let big_session = session_at_leader(&nodes, big_shard, epoch).await;
    at_leader(&nodes, big_shard, epoch, &put(&big, &"x".repeat(1 << 20), big_session, 1)).await.unwrap();
    let levels = [vec![ReadLevel::Eventual; 100], vec![ReadLevel::Strong; 4]].concat();
    let reads = levels.iter().map(|level| get(&big, *level)).collect();
    let answers = streams[at].1.ask_all(big_shard, epoch, reads).await;
    let read = answers.iter().filter(|answer| answer.is_ok());
    let lengths: Vec<usize> = read.map(|answer| value(answer).unwrap().len()).collect();
    assert!(
        lengths.len() == 100 || lengths.len() == 104,
        "strong ones are refused where another node leads: {}",
        lengths.len()
    );
    assert!(lengths.iter().all(|length| *length == 1 << 20));

    // Replicas agree, logs can be compacted, metrics are there.
    let mut hashes = Vec::new();
    for node in &nodes {
        let hash = eventually("equal hashes", async || {
            let hash = node.admin().await.hash_shard(HashShardRequest { shard }).await.unwrap().into_inner();
            if hash.records >= 1 { Ok(hash) } else { Err("no record yet") }
        })
        .await;
        hashes.push((hash.revision, hash.records));
        node.admin().await.compact_logs(CompactLogsRequest {}).await.unwrap();
    }
    assert_eq!(hashes[0].1, hashes[1].1);
    let (_, metrics) = nodes[0].http("/metrics").await;
    for name in ["quorate_group_is_leader", "quorate_disk_free_bytes", "quorate_requests_total"] {
        assert!(metrics.contains(name), "{name} is missing");
    }
    let (code, verbose) = nodes[0].http("/readyz?verbose").await;
    assert_eq!(code, 200);
    assert!(verbose.contains("\"leaders\"") && verbose.contains("\"disk\""), "{verbose}");

    // The leader stops: its streams end, the others continue, and after its restart it has the
    // writes that it missed.
    let gone = nodes.remove(at);
    let mut watching = gone.stream().await;
    let stopped = tokio::spawn(async move { gone.stop().await });
    tokio::time::timeout(support::PATIENCE, watching.end()).await.unwrap();
    let back = stopped.await.unwrap();
    drop(streams);
    let session = session_at_leader(&nodes, shard, epoch).await;
    at_leader(&nodes, shard, epoch, &put(&key, "again", session, 1)).await.unwrap();
    nodes.insert(at, RunningNode::start(back));
    nodes[at].wait_ready().await;
    eventually("the missed value", async || {
        let read = nodes[at].stream().await.ask(shard, epoch, get(&key, ReadLevel::Eventual)).await;
        if read.is_ok() && value(&read).as_deref() == Some("again") { Ok(()) } else { Err(format!("{read:?}")) }
    })
    .await;

    // All stop and start again.
    let mut configs = Vec::new();
    for node in nodes {
        configs.push(node.stop().await);
    }
    let mut nodes: Vec<RunningNode> = configs.into_iter().map(RunningNode::start).collect();
    for node in &nodes {
        node.wait_ready().await;
    }
    let read = at_leader(&nodes, shard, epoch, &get(&key, ReadLevel::Strong)).await;
    assert_eq!(value(&read).as_deref(), Some("again"));

    // A node alone still takes reads, but no writes: its shards lose their leaders.
    let last = nodes.remove(0);
    let ready_for_writes = async |expected| {
        eventually("readiness for writes", async || match last.http("/readyz?for=writes").await {
            (code, body) if code == expected => Ok(body),
            (code, body) => Err(format!("{code} {body}")),
        })
        .await
    };
    assert_eq!(ready_for_writes(200).await, "ok\n");
    assert_eq!(last.http("/readyz?for=reads").await, (400, "'for=reads' is unknown; use for=writes\n".to_owned()));
    for node in nodes {
        node.stop().await;
    }
    let reasons = ready_for_writes(503).await;
    assert!(reasons.contains("\"writes\"") && reasons.contains("0 of 4 shards have a leader"), "{reasons}");
    assert_eq!(last.http("/readyz").await.0, 200);
    last.stop().await;
}

/// A node that joins a running cluster gets an id and no shards; after a restart at other addresses
/// the cluster knows them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_joins_and_moves() {
    let dirs = dirs(3);
    let initial_replica = RunningNode::start(config(dirs[0].path()));
    initial_replica.init(&[&initial_replica], 1, 2).await.unwrap();
    initial_replica.wait_ready().await;

    let mut joining = config(dirs[1].path());
    joining.join = vec![initial_replica.client_address().to_owned()];
    joining.zone = "east".to_owned();
    let joined = RunningNode::start(joining);
    joined.wait_ready().await;
    let status = joined.status().await;
    assert_eq!((status.id, status.replicas.len()), (2, 0));
    let known = initial_replica.topology().await.nodes;
    // The reconciler may have admitted it by now.
    assert!(["joining", "active"].contains(&known[1].state.as_str()), "{}", known[1].state);
    assert_eq!(known[1].zone, "east");

    let mut moved = config(dirs[1].path());
    moved.join = vec![initial_replica.client_address().to_owned()];
    joined.stop().await;
    let joined = RunningNode::start(moved);
    eventually("the new addresses", async || {
        let node = initial_replica.topology().await.nodes.remove(1);
        let there = node.client_address == joined.client_address() && node.zone.is_empty();
        if there { Ok(()) } else { Err(format!("{node:?}")) }
    })
    .await;

    // The data directory of a member does not start in another cluster.
    let other = RunningNode::start(config(dirs[2].path()));
    other.init(&[&other], 1, 2).await.unwrap();
    let mut misled = joined.stop().await;
    misled.join = vec![other.client_address().to_owned()];
    let refusal = RunningNode::start(misled).ended().await.unwrap_err();
    assert_eq!(refusal.exit_code(), 65);
    assert!(refusal.to_string().contains("belongs to node 2"), "{refusal}");
    initial_replica.stop().await;
    other.stop().await;
}

/// Asks a node to remove another one as dead.
async fn remove_dead(at: &RunningNode, node: u64, confirm: &str, dry_run: bool) -> Result<u64, (Code, String)> {
    let intent = Intent { kind: "remove".to_owned(), node, dead: true, ..Intent::default() };
    let request = StartOperationRequest { intent: Some(intent), dry_run, confirm: confirm.to_owned(), planned_on: 0 };
    let started = at.admin().await.start_operation(request).await;
    started.map(|started| started.into_inner().operation).map_err(|status| (status.code(), status.message().to_owned()))
}

/// Every node pings all others. A node whose pings the others receive is not removed as dead, by
/// any address; a few seconds after it stopped, it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_is_removed_as_dead_only_without_its_pings() {
    let dirs = dirs(4);
    let mut nodes = start(&dirs);
    nodes[0].init(&nodes.iter().collect::<Vec<_>>(), 3, 2).await.unwrap();
    for node in &nodes {
        node.wait_ready().await;
    }
    let victim = nodes.pop().unwrap();
    let (id, address) = (victim.status().await.id, victim.client_address().to_owned());
    eventually("a refusal of the living node's removal", async || {
        match remove_dead(&nodes[0], id, &address, false).await {
            Err((Code::FailedPrecondition, reason)) if reason.contains(&format!("node {id} is alive: nodes")) => Ok(()),
            // The leader of the topology group is new.
            Err((Code::Aborted, reason)) => Err(reason),
            other => panic!("{other:?}"),
        }
    })
    .await;
    let (code, reason) = remove_dead(&nodes[0], id, "127.0.0.1:1", false).await.unwrap_err();
    assert_eq!(code, Code::FailedPrecondition);
    assert!(reason.contains(&format!("node {id} is at {address}, not at")), "{reason}");
    let mut leaders = 0;
    for node in &nodes {
        let status = node.status().await;
        assert!(status.pings.iter().any(|ping| ping.from == id), "{:?}", status.pings);
        let judged = status.judged.iter().find(|judged| judged.node == id);
        leaders += usize::from(judged.is_some_and(|judged| judged.received_by_count == 3));
        if judged.is_some() {
            let (code, reason) = remove_dead(node, id, "", true).await.unwrap_err();
            assert_eq!(code, Code::FailedPrecondition, "{reason}");
        }
    }
    leaders += usize::from(!victim.status().await.judged.is_empty());
    assert_eq!(leaders, 1, "the leader of the topology group judges");

    victim.stop().await;
    let operation =
        eventually("the removal of the dead node", async || match remove_dead(&nodes[0], id, "", false).await {
            Err((Code::Aborted | Code::FailedPrecondition | Code::Unavailable, reason)) => Err(reason),
            other => Ok(other.unwrap()),
        })
        .await;
    assert_ne!(operation, 0);
    eventually("the node's removal", async || {
        let state = nodes[0].topology().await.nodes.into_iter().find(|node| node.id == id).unwrap().state;
        if state == "removed" { Ok(()) } else { Err(state) }
    })
    .await;
    for node in nodes {
        node.stop().await;
    }
}

/// Below the reserve of free disk puts are refused, deletes and reads are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_puts_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.limits.disk_reserve_bytes = Some(u64::MAX);
    let node = RunningNode::start(config);
    node.init(&[&node], 1, 1).await.unwrap();
    node.wait_ready().await;
    let key = Key::new("k").unwrap();
    let mut stream = node.stream().await;
    let session = eventually("a session", async || stream.open_session(1, 1).await).await;
    let frame = vec![put(&key, "v", session, 1), delete(&key, session, 2), get(&key, ReadLevel::Strong)];
    let answers = stream.ask_all(1, 1, frame).await;
    assert_eq!(answers[0], Err(Rejection::DiskFull));
    assert!(matches!(answers[1].as_ref().unwrap().value, KvAnswer::Outcome(Outcome::Written { .. })));
    assert_eq!(value(&answers[2]), None);
    node.stop().await;
}

/// A follower without space for a snapshot refuses it before the leader writes any file, and lives;
/// the leader counts the refusals. With space it catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn follower_without_space_refuses_a_snapshot_before_it_is_written() {
    let dirs = dirs(3);
    let mut nodes = start(&dirs);
    let all: Vec<&RunningNode> = nodes.iter().collect();
    nodes[0].init(&all, 3, 1).await.unwrap();
    for node in &nodes {
        node.wait_ready().await;
    }
    let key = Key::new("k").unwrap();
    let session = session_at_leader(&nodes, 1, 1).await;
    let written = at_leader(&nodes, 1, 1, &put(&key, "v", session, 1)).await.unwrap();
    let mut leads = Vec::new();
    for node in &nodes {
        leads.push(node.status().await.id == written.by.node.0);
    }
    let mut away = nodes.remove(leads.iter().position(|leads| !leads).unwrap()).stop().await;
    // The leader may have changed when the other node stopped.
    let written = at_leader(&nodes, 1, 1, &put(&key, "v", session, 2)).await.unwrap();
    let at = if nodes[0].status().await.id == written.by.node.0 { 0 } else { 1 };
    let mut stream = nodes[at].stream().await;
    for sequence in 3..600 {
        stream.ask(1, 1, put(&key, "v", session, sequence)).await.unwrap();
    }
    for node in &nodes {
        let purged = node.admin().await.compact_logs(CompactLogsRequest {}).await.unwrap();
        assert!(purged.into_inner().purged_entries > 0);
    }

    away.limits.disk_reserve_bytes = Some(u64::MAX);
    let full = RunningNode::start(away);
    let refused = "quorate_snapshots_refused_total{reason=\"no_space\"}";
    eventually("refusals", async || {
        let (_, metrics) = nodes[at].http("/metrics").await;
        if metrics.contains(refused) { Ok(()) } else { Err("none is counted") }
    })
    .await;
    let files = |name: &str| -> usize {
        let dirs = dirs.iter().map(|dir| dir.path().join(name));
        dirs.map(|dir| std::fs::read_dir(dir).unwrap().count()).sum()
    };
    assert_eq!((files("snapshots"), files("staging")), (0, 0));
    assert_eq!(full.http("/livez").await.0, 200);
    let installed =
        async |node: &RunningNode| node.status().await.replicas.iter().map(|at| at.snapshots_installed).sum();
    let count: u64 = installed(&full).await;
    assert_eq!(count, 0);

    let mut away = full.stop().await;
    away.limits.disk_reserve_bytes = None;
    let back = RunningNode::start(away);
    eventually("an installed snapshot", async || match installed(&back).await {
        0_u64 => Err("none"),
        _ => Ok(()),
    })
    .await;
    for node in nodes.into_iter().chain([back]) {
        node.stop().await;
    }
}

/// One initial node is unreachable for the others at first, so that the bootstrap is on record at
/// two of three; one of these stops and starts again. The same call finishes the bootstrap, and
/// makes no second cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn interrupted_bootstrap_is_finished_by_the_same_call() {
    let dirs = dirs(3);
    let mut configs: Vec<_> = dirs.iter().map(|dir| config(dir.path())).collect();
    configs.sort_by(|a, b| a.listen.client.cmp(&b.listen.client));
    let actual = configs[2].listen.peer.clone();
    let promised = config(dirs[2].path()).listen.peer;
    configs[2].advertise = NodeAddresses { peer: promised.clone(), ..NodeAddresses::default() };
    let mut nodes: Vec<RunningNode> = configs.into_iter().map(RunningNode::start).collect();

    let all: Vec<&RunningNode> = nodes.iter().collect();
    let (code, text) = all[0].init(&all, 3, 2).await.unwrap_err();
    assert_eq!(code, Code::Unavailable);
    assert!(text.contains(&promised) && text.contains("run the same command again"), "{text}");
    let cluster_id = nodes[1].status().await.cluster_id;
    assert_eq!(nodes[0].status().await.cluster_id, cluster_id);
    assert_eq!(nodes[2].status().await.cluster_id, "");
    assert_eq!(nodes[0].http("/readyz").await.0, 503, "on record is not bootstrapped");
    let again = nodes.remove(0).stop().await;
    nodes.insert(0, RunningNode::start(again));

    tokio::spawn(forward(TcpListener::bind(promised).await.unwrap(), actual));
    let all: Vec<&RunningNode> = nodes.iter().collect();
    assert!(all[0].init(&all, 3, 2).await.unwrap(), "it was on record already");
    for node in &nodes {
        node.wait_ready().await;
        assert_eq!(node.status().await.cluster_id, cluster_id);
    }
    for node in nodes {
        node.stop().await;
    }
}

/// Passes connections on.
async fn forward(listener: TcpListener, to: String) {
    while let Ok((mut from, _)) = listener.accept().await {
        let to = to.clone();
        tokio::spawn(async move {
            let mut to = TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
        });
    }
}
