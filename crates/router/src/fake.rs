//! Nodes for tests: an in-memory network whose nodes follow a script.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use quorate_types::topology::{ClusterInfo, NodeAddresses, NodeInfo, NodeState, Placement, ShardInfo, Topology};
use quorate_types::{
    ClusterId, KvAnswer, KvOperation, KvRequest, NodeId, Outcome, ReadLevel, Rejection, ReplicaId, Role, Served,
    ServedBy, SessionId, ShardId,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{Attempt, Connection, Health, Network, Router, RouterConfig, Target, TopologyUnavailable};

/// How long a request and its reply travel.
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// A scripted node's reaction to a request.
pub(crate) enum Act {
    Answer(KvAnswer),
    Reject(Rejection),
    /// Its reply does not decode.
    Garble,
    /// It never replies.
    Silence,
    /// It ends the connection that the request came on.
    Break,
}

pub(crate) fn written(version: u64) -> Act {
    Act::Answer(KvAnswer::Outcome(Outcome::Written { version, replaced: 0 }))
}

pub(crate) fn outcome(outcome: Outcome) -> Act {
    Act::Answer(KvAnswer::Outcome(outcome))
}

pub(crate) fn not_leader(leader: u64) -> Act {
    Act::Reject(Rejection::NotLeader { leader: (leader != 0).then_some(NodeId(leader)) })
}

pub(crate) fn unavailable() -> Act {
    Act::Reject(Rejection::Unavailable { reason: "no quorum".to_owned() })
}

type Script = Box<dyn FnMut(&KvRequest) -> Act + Send>;

/// One node.
pub(crate) struct FakeNode {
    pub(crate) id: NodeId,
    script: Mutex<Script>,
    requests: Mutex<Vec<KvRequest>>,
    hellos: AtomicU64,
    topologies: AtomicU64,
    /// Refuses connections.
    pub(crate) down: AtomicBool,
}

impl FakeNode {
    /// Sets the script for everything but the opening of sessions, which succeeds.
    pub(crate) fn does(&self, mut script: impl FnMut(&KvRequest) -> Act + Send + 'static) {
        let mut sessions = 100 * self.id.0;
        self.does_all(move |request| match request.operation {
            KvOperation::OpenSession => {
                sessions += 1;
                outcome(Outcome::SessionOpened { session: SessionId(sessions) })
            }
            _ => script(request),
        });
    }

    /// Sets the script, also for the opening of sessions.
    pub(crate) fn does_all(&self, script: impl FnMut(&KvRequest) -> Act + Send + 'static) {
        *lock(&self.script) = Box::new(script);
    }

    /// Sets a script of one act a request. No further request may come.
    pub(crate) fn does_in_order(&self, acts: impl IntoIterator<Item = Act>) {
        let mut acts: VecDeque<Act> = acts.into_iter().collect();
        self.does(move |request| acts.pop_front().unwrap_or_else(|| panic!("unexpected {request:?}")));
    }

    /// The requests that came, without those that open sessions.
    pub(crate) fn requests(&self) -> Vec<KvRequest> {
        let requests = lock(&self.requests);
        requests.iter().filter(|request| request.operation != KvOperation::OpenSession).cloned().collect()
    }

    /// Session and sequence of the writes that came.
    pub(crate) fn stamps(&self) -> Vec<(u64, u64)> {
        let stamp = |request: KvRequest| match request.operation {
            KvOperation::Write { stamp, .. } => Some((stamp.session.0, stamp.sequence)),
            _ => None,
        };
        self.requests().into_iter().filter_map(stamp).collect()
    }

    /// The number of connections that were opened or refused.
    pub(crate) fn hellos(&self) -> u64 {
        self.hellos.load(Ordering::SeqCst)
    }

    /// The number of requests for the topology.
    pub(crate) fn topologies(&self) -> u64 {
        self.topologies.load(Ordering::SeqCst)
    }

    fn by(&self, request: &KvRequest) -> ServedBy {
        let level = match request.operation {
            KvOperation::Get { level, .. } => level,
            _ => ReadLevel::Strong,
        };
        ServedBy {
            level,
            node: self.id,
            role: Role::Leader,
            shard: request.shard,
            epoch: request.epoch,
            revision: 1,
            applied: 1,
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The nodes of one cluster with one shard, whose replicas are on all of them.
pub(crate) struct FakeCluster {
    pub(crate) nodes: Vec<Arc<FakeNode>>,
    pub(crate) topology: Arc<Mutex<Topology>>,
}

impl FakeCluster {
    pub(crate) fn start(count: u64) -> Self {
        let whole = quorate_ring::equal_arcs(1)[0];
        let replicas: Vec<_> = (1..=count).map(|id| Placement { replica: ReplicaId(id), node: NodeId(id) }).collect();
        let shard = ShardInfo { id: ShardId(1), arc: whole, epoch: 1, replicas, initial_replicas: Vec::new() };
        let info = |id| NodeInfo {
            id: NodeId(id),
            addresses: NodeAddresses { client: address(id), ..NodeAddresses::default() },
            zone: String::new(),
            weight: 100,
            state: NodeState::Active,
        };
        let topology = Arc::new(Mutex::new(Topology {
            revision: 1,
            cluster: ClusterInfo { id: ClusterId(0xc1), hash_key: [7; 16], replicas: count as u32, shards: 1 },
            nodes: (1..=count).map(info).collect(),
            shards: vec![shard],
            topology_replicas: Vec::new(),
            moves: Vec::new(),
            paused: false,
        }));
        let node = |id| FakeNode {
            id: NodeId(id),
            script: Mutex::new(Box::new(|_| Act::Silence)),
            requests: Mutex::default(),
            hellos: AtomicU64::new(0),
            topologies: AtomicU64::new(0),
            down: AtomicBool::new(false),
        };
        Self { nodes: (1..=count).map(node).map(Arc::new).collect(), topology }
    }

    pub(crate) fn address(&self, node: u64) -> String {
        address(node)
    }

    /// A router that has not fetched the map.
    pub(crate) fn unconnected(&self, config: RouterConfig) -> Result<Router, crate::Error> {
        Router::new(config, Arc::new(self.network()), 7)
    }

    /// The network between the cluster and its clients.
    pub(crate) fn network(&self) -> impl Network + use<> {
        FakeNetwork { nodes: self.nodes.clone(), topology: Arc::clone(&self.topology) }
    }

    /// A router with the map.
    pub(crate) async fn router(&self) -> Router {
        self.router_with(RouterConfig::new(vec![address(1).parse().unwrap()])).await
    }

    /// A router that is pinned to one node.
    pub(crate) async fn pinned_router(&self, node: u64) -> Router {
        let endpoints = vec![address(node).parse().unwrap()];
        self.router_with(RouterConfig { pinned: true, ..RouterConfig::new(endpoints) }).await
    }

    async fn router_with(&self, config: RouterConfig) -> Router {
        let router = self.unconnected(config).unwrap();
        router.connect(Duration::from_secs(5)).await.unwrap();
        router
    }

    /// The node with that id.
    pub(crate) fn node(&self, id: usize) -> &Arc<FakeNode> {
        &self.nodes[id - 1]
    }
}

fn address(node: u64) -> String {
    format!("node-{node}:7100")
}

struct FakeNetwork {
    nodes: Vec<Arc<FakeNode>>,
    topology: Arc<Mutex<Topology>>,
}

impl Network for FakeNetwork {
    fn connection(&self, target: Target, health: Arc<Health>) -> Arc<dyn Connection> {
        let node = self.nodes.iter().find(|node| node.id == target.node).expect("the map has these nodes only");
        Arc::new(FakeConnection {
            node: Arc::clone(node),
            health,
            open: AtomicBool::new(false),
            outstanding: AtomicUsize::new(0),
        })
    }

    fn topology<'a>(&'a self, endpoint: &'a str, _: Duration) -> BoxFuture<'a, Result<Topology, TopologyUnavailable>> {
        Box::pin(async move {
            sleep(ROUND_TRIP).await;
            let Some(node) = self.nodes.iter().find(|node| address(node.id.0) == endpoint) else {
                return Err(TopologyUnavailable("connection refused".to_owned()));
            };
            node.topologies.fetch_add(1, Ordering::SeqCst);
            if node.down.load(Ordering::SeqCst) {
                return Err(TopologyUnavailable("the node has joined no cluster".to_owned()));
            }
            Ok(lock(&self.topology).clone())
        })
    }
}

struct FakeConnection {
    node: Arc<FakeNode>,
    health: Arc<Health>,
    open: AtomicBool,
    outstanding: AtomicUsize,
}

impl FakeConnection {
    async fn exchange(&self, request: KvRequest, until: Instant) -> Attempt {
        let started = Instant::now();
        if !self.open.swap(true, Ordering::SeqCst) {
            self.node.hellos.fetch_add(1, Ordering::SeqCst);
        }
        sleep(ROUND_TRIP / 2).await;
        if self.node.down.load(Ordering::SeqCst) {
            self.end("down");
            return Attempt::NotSent("down".into());
        }
        lock(&self.node.requests).push(request.clone());
        let act = (lock(&self.node.script))(&request);
        match act {
            Act::Silence => {
                sleep_until(until).await;
                Attempt::Silent { waited: started.elapsed() }
            }
            Act::Break => {
                self.end("the connection ended");
                Attempt::Lost("the connection ended".into())
            }
            Act::Answer(value) => {
                sleep(ROUND_TRIP / 2).await;
                Attempt::Served(Served { value, by: self.node.by(&request) })
            }
            Act::Garble => {
                sleep(ROUND_TRIP / 2).await;
                Attempt::Malformed("the reply has no result".into())
            }
            Act::Reject(rejection) => {
                sleep(ROUND_TRIP / 2).await;
                Attempt::Rejected(rejection)
            }
        }
    }

    fn end(&self, reason: &str) {
        if self.open.swap(false, Ordering::SeqCst) {
            self.health.failure(reason);
        }
    }
}

impl Connection for FakeConnection {
    fn attempt(&self, request: KvRequest, until: Instant) -> BoxFuture<'_, Attempt> {
        Box::pin(async move {
            self.outstanding.fetch_add(1, Ordering::SeqCst);
            let attempt = self.exchange(request, until).await;
            self.outstanding.fetch_sub(1, Ordering::SeqCst);
            attempt
        })
    }

    fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::SeqCst)
    }
}
