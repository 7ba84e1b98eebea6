//! Nodes for tests: gRPC servers on loopback that follow a script.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::{Stream, StreamExt};
use quorate_proto::admin::admin_server::{Admin, AdminServer};
use quorate_proto::kv::kv_server::{Kv, KvServer};
use quorate_proto::kv::{ClientFrame, ServerFrame, ServerHello};
use quorate_proto::{WIRE_VERSION, admin, reply_to_wire, request_from_wire};
use quorate_types::topology::{ClusterInfo, NodeAddresses, NodeInfo, NodeState, Placement, ShardInfo, Topology};
use quorate_types::{
    ClusterId, KvAnswer, KvOperation, KvRequest, NodeId, Outcome, ReadLevel, Rejection, ReplicaId, Role, Served,
    ServedBy, SessionId, ShardId,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::{Client, ClientBuilder};

/// A scripted node's reaction to a request.
pub(crate) enum Act {
    Answer(KvAnswer),
    Reject(Rejection),
    /// It never replies.
    Silence,
    /// It ends the stream that the request came on.
    Break,
}

pub(crate) fn written(version: u64) -> Act {
    Act::Answer(KvAnswer::Outcome(Outcome::Written { version, replaced: 0 }))
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
    topology: Arc<Mutex<Topology>>,
    script: Mutex<Script>,
    requests: Mutex<Vec<KvRequest>>,
    frames: Mutex<Vec<usize>>,
    hellos: AtomicU64,
    /// Refuses everything.
    pub(crate) down: AtomicBool,
}

impl FakeNode {
    /// Sets the script for everything but the opening of sessions, which succeeds.
    pub(crate) fn does(&self, mut script: impl FnMut(&KvRequest) -> Act + Send + 'static) {
        let mut sessions = 100 * self.id.0;
        *lock(&self.script) = Box::new(move |request| match request.operation {
            KvOperation::OpenSession => {
                sessions += 1;
                Act::Answer(KvAnswer::Outcome(Outcome::SessionOpened { session: SessionId(sessions) }))
            }
            _ => script(request),
        });
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

    /// The number of requests in each frame.
    pub(crate) fn frames(&self) -> Vec<usize> {
        lock(&self.frames).clone()
    }

    /// The number of streams that were opened or refused.
    pub(crate) fn hellos(&self) -> u64 {
        self.hellos.load(Ordering::SeqCst)
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
    pub(crate) async fn start(count: u64) -> Self {
        let whole = quorate_ring::equal_arcs(1)[0];
        let replicas: Vec<_> = (1..=count).map(|id| Placement { replica: ReplicaId(id), node: NodeId(id) }).collect();
        let shard = ShardInfo { id: ShardId(1), arc: whole, epoch: 1, replicas, initial_replicas: Vec::new() };
        let topology = Arc::new(Mutex::new(Topology {
            revision: 1,
            cluster: ClusterInfo { id: ClusterId(0xc1), hash_key: [7; 16], replicas: count as u32, shards: 1 },
            nodes: Vec::new(),
            shards: vec![shard],
            topology_replicas: Vec::new(),
            moves: Vec::new(),
            paused: false,
        }));
        let mut nodes = Vec::new();
        for id in 1..=count {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            lock(&topology).nodes.push(NodeInfo {
                id: NodeId(id),
                addresses: NodeAddresses { client: address, ..NodeAddresses::default() },
                zone: String::new(),
                weight: 100,
                state: NodeState::Active,
            });
            let node = Arc::new(FakeNode {
                id: NodeId(id),
                topology: Arc::clone(&topology),
                script: Mutex::new(Box::new(|_| Act::Silence)),
                requests: Mutex::default(),
                frames: Mutex::default(),
                hellos: AtomicU64::new(0),
                down: AtomicBool::new(false),
            });
            nodes.push(Arc::clone(&node));
            let server = tonic::transport::Server::builder()
                .add_service(KvServer::new(Service(Arc::clone(&node))))
                .add_service(AdminServer::new(Service(node)));
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        }
        Self { nodes, topology }
    }

    pub(crate) fn address(&self, node: usize) -> String {
        lock(&self.topology).nodes[node - 1].addresses.client.clone()
    }

    /// A client with the map.
    pub(crate) async fn client(&self) -> Client {
        self.client_with(Client::builder().endpoints([self.address(1)])).await
    }

    /// A client that is pinned to one node.
    pub(crate) async fn pinned_client(&self, node: usize) -> Client {
        self.client_with(Client::builder().endpoints([self.address(node)]).pinned()).await
    }

    async fn client_with(&self, builder: ClientBuilder) -> Client {
        builder.deadline(std::time::Duration::from_secs(10)).connect().await.unwrap()
    }

    /// The node with that id.
    pub(crate) fn node(&self, id: usize) -> &Arc<FakeNode> {
        &self.nodes[id - 1]
    }
}

struct Service(Arc<FakeNode>);

#[tonic::async_trait]
impl Kv for Service {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<ServerFrame, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<ClientFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let node = Arc::clone(&self.0);
        node.hellos.fetch_add(1, Ordering::SeqCst);
        if node.down.load(Ordering::SeqCst) {
            return Err(Status::unavailable("down"));
        }
        let mut inbound = request.into_inner();
        let (replies, outbound) = mpsc::channel(16);
        let hello = ServerHello {
            cluster_id: lock(&node.topology).cluster.id.to_string(),
            wire_version: WIRE_VERSION,
            node: node.id.0,
        };
        tokio::spawn(async move {
            _ = replies.send(Ok(ServerFrame { hello: Some(hello), replies: Vec::new() })).await;
            while let Some(Ok(frame)) = inbound.next().await {
                if !frame.requests.is_empty() {
                    lock(&node.frames).push(frame.requests.len());
                }
                let mut answers = Vec::new();
                for request in frame.requests {
                    let request = request_from_wire(request).unwrap();
                    let act = (lock(&node.script))(&request);
                    let (id, by) = (request.id, node.by(&request));
                    lock(&node.requests).push(request);
                    match act {
                        Act::Answer(value) => answers.push(reply_to_wire(id, Ok(Served { value, by }))),
                        Act::Reject(rejection) => answers.push(reply_to_wire(id, Err(rejection))),
                        Act::Silence => {}
                        Act::Break => return,
                    }
                }
                _ = replies.send(Ok(ServerFrame { hello: None, replies: answers })).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outbound))))
    }
}

#[tonic::async_trait]
impl Admin for Service {
    async fn get_topology(&self, _: Request<admin::GetTopologyRequest>) -> Result<Response<admin::Topology>, Status> {
        if self.0.down.load(Ordering::SeqCst) {
            return Err(Status::failed_precondition("the node has joined no cluster"));
        }
        Ok(Response::new(lock(&self.0.topology).clone().into()))
    }

    async fn get_node(&self, _: Request<admin::GetNodeRequest>) -> Result<Response<admin::NodeStatus>, Status> {
        Ok(Response::new(admin::NodeStatus { id: self.0.id.0, ..Default::default() }))
    }

    async fn init_cluster(
        &self,
        _: Request<admin::InitClusterRequest>,
    ) -> Result<Response<admin::InitClusterResponse>, Status> {
        Err(Status::already_exists("another set"))
    }

    async fn hash_shard(
        &self,
        _: Request<admin::HashShardRequest>,
    ) -> Result<Response<admin::HashShardResponse>, Status> {
        Err(Status::not_found("no replica of that shard is here"))
    }

    async fn compact_logs(
        &self,
        _: Request<admin::CompactLogsRequest>,
    ) -> Result<Response<admin::CompactLogsResponse>, Status> {
        std::future::pending().await
    }
    async fn start_operation(
        &self,
        _: Request<admin::StartOperationRequest>,
    ) -> Result<Response<admin::StartOperationResponse>, Status> {
        Err(unfaked())
    }

    async fn cancel_operation(
        &self,
        _: Request<admin::CancelOperationRequest>,
    ) -> Result<Response<admin::CancelOperationResponse>, Status> {
        Err(unfaked())
    }

    async fn list_operations(
        &self,
        _: Request<admin::ListOperationsRequest>,
    ) -> Result<Response<admin::ListOperationsResponse>, Status> {
        Err(unfaked())
    }

    async fn pause_moves(
        &self,
        _: Request<admin::PauseMovesRequest>,
    ) -> Result<Response<admin::PauseMovesResponse>, Status> {
        Err(unfaked())
    }

    async fn plan_moves(
        &self,
        _: Request<admin::PlanMovesRequest>,
    ) -> Result<Response<admin::PlanMovesResponse>, Status> {
        Err(unfaked())
    }

    async fn transfer_leader(
        &self,
        _: Request<admin::TransferLeaderRequest>,
    ) -> Result<Response<admin::TransferLeaderResponse>, Status> {
        Err(unfaked())
    }
}

fn unfaked() -> Status {
    Status::unimplemented("no test asks for this")
}
