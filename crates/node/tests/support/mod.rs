//! Nodes in this process, on real ports and real data directories, and a raw client of the Kv
//! stream.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use quorate_node::{NodeConfig, NodeError, run};
use quorate_proto::admin::admin_client::AdminClient;
use quorate_proto::admin::{GetNodeRequest, GetTopologyRequest, InitClusterRequest, NodeStatus, Topology};
use quorate_proto::kv::kv_client::KvClient;
use quorate_proto::kv::{ClientFrame, ClientHello, ServerFrame};
use quorate_proto::{WIRE_VERSION, reply_from_wire};
use quorate_types::topology::NodeAddresses;
use quorate_types::{
    Key, KvAnswer, KvOperation, KvRequest, Mutation, Outcome, ReadLevel, Rejection, Served, SessionId, SessionStamp,
    ShardId, Value, Write,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Within this time everything that must happen has happened, on a slow and busy machine, too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A node that runs in this process.
pub(crate) struct RunningNode {
    pub(crate) config: NodeConfig,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), NodeError>>,
}

/// A configuration with this data directory and ports of its own.
pub(crate) fn config(data_dir: &Path) -> NodeConfig {
    let mut config = NodeConfig::new(data_dir);
    config.listen = NodeAddresses { client: free_address(), peer: free_address(), ops: free_address() };
    config
}

/// An unused address. Its port is none that the system gives to outgoing connections, and this
/// process gets it only once.
fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const PORTS: u16 = 12_000;
    let start = u16::try_from(std::process::id() % u32::from(PORTS)).unwrap();
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap().to_string();
        }
    }
}

impl RunningNode {
    pub(crate) fn start(config: NodeConfig) -> Self {
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let running = run(config.clone(), shutdown);
        let ended = tokio::spawn(async { running.await.inspect_err(|error| eprintln!("node ended: {error}")) });
        RunningNode { config, stop, ended }
    }

    /// Stops it as SIGTERM would; gives its configuration.
    pub(crate) async fn stop(self) -> NodeConfig {
        // An error says that it has ended by itself, which the next line reports.
        let _ = self.stop.send(());
        self.ended.await.unwrap().unwrap();
        self.config
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(self) -> Result<(), NodeError> {
        self.ended.await.unwrap()
    }

    pub(crate) fn client_address(&self) -> &str {
        &self.config.listen.client
    }

    async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.client_address())).unwrap();
        eventually("a connection", async || endpoint.connect().await.map_err(|e| e.to_string())).await
    }

    pub(crate) async fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel().await)
    }

    pub(crate) async fn status(&self) -> NodeStatus {
        self.admin().await.get_node(GetNodeRequest {}).await.unwrap().into_inner()
    }

    pub(crate) async fn topology(&self) -> Topology {
        self.admin().await.get_topology(GetTopologyRequest {}).await.unwrap().into_inner()
    }

    pub(crate) async fn init(
        &self,
        nodes: &[&RunningNode],
        replicas: u32,
        shards: u32,
    ) -> Result<bool, (Code, String)> {
        let nodes = nodes.iter().map(|node| node.client_address().to_owned()).collect();
        let request = InitClusterRequest { nodes, replicas, shards };
        let answer = self.admin().await.init_cluster(request).await;
        answer.map(|answer| answer.into_inner().already).map_err(|status| (status.code(), status.message().to_owned()))
    }

    /// Asks the ops port; gives the status code and the body.
    pub(crate) async fn http(&self, path: &str) -> (u16, String) {
        let mut stream = eventually("the ops port", async || {
            tokio::net::TcpStream::connect(&self.config.listen.ops).await.map_err(|e| e.to_string())
        })
        .await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub(crate) async fn wait_ready(&self) {
        eventually("a ready node", async || match self.http("/readyz").await {
            (200, _) => Ok(()),
            (code, reasons) => Err(format!("{code} {reasons}")),
        })
        .await;
    }

    pub(crate) async fn stream(&self) -> KvStream {
        self.stream_to("").await.unwrap()
    }

    /// Opens a Kv stream as a client that expects this cluster.
    pub(crate) async fn stream_to(&self, cluster_id: &str) -> Result<KvStream, Status> {
        let (requests, body) = mpsc::channel(16);
        let hello = ClientHello {
            cluster_id: cluster_id.into(),
            wire_version_min: WIRE_VERSION,
            wire_version_max: WIRE_VERSION,
        };
        requests.send(ClientFrame { hello: Some(hello), requests: vec![] }).await.unwrap();
        let mut client = KvClient::new(self.channel().await);
        let mut replies = client.exchange(ReceiverStream::new(body)).await?.into_inner();
        let first = replies.message().await?.expect("the stream begins with a hello");
        assert_eq!(first.hello.unwrap().wire_version, WIRE_VERSION);
        Ok(KvStream { requests, replies, next: 1 })
    }
}

/// Repeats until it succeeds.
pub(crate) async fn eventually<T, E: std::fmt::Display>(
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(e) if tokio::time::Instant::now() > deadline => panic!("no {what} in time: {e}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A raw client of one node's Kv stream.
pub(crate) struct KvStream {
    requests: mpsc::Sender<ClientFrame>,
    replies: Streaming<ServerFrame>,
    next: u64,
}

pub(crate) type Answer = Result<Served<KvAnswer>, Rejection>;

impl KvStream {
    /// Sends one frame of operations and waits for all answers. Returns them in the order of the
    /// operations.
    pub(crate) async fn ask_all(&mut self, shard: u32, epoch: u64, operations: Vec<KvOperation>) -> Vec<Answer> {
        let first = self.next;
        self.next += operations.len() as u64;
        let request = |(id, operation)| {
            KvRequest { id, shard: ShardId(shard), epoch, timeout: Some(Duration::from_secs(5)), operation }.into()
        };
        let count = operations.len();
        let requests = (first..).zip(operations).map(request).collect();
        self.requests.send(ClientFrame { hello: None, requests }).await.unwrap();
        let mut answers: Vec<Option<Answer>> = vec![None; count];
        while answers.iter().any(Option::is_none) {
            let frame = self.replies.message().await.unwrap().expect("the stream stays open");
            for reply in frame.replies {
                let place = usize::try_from(reply.id - first).unwrap();
                assert!(answers[place].replace(reply_from_wire(reply).unwrap()).is_none(), "one answer a request");
            }
        }
        answers.into_iter().flatten().collect()
    }

    pub(crate) async fn ask(&mut self, shard: u32, epoch: u64, operation: KvOperation) -> Answer {
        self.ask_all(shard, epoch, vec![operation]).await.remove(0)
    }

    /// Waits until the node ends the stream.
    pub(crate) async fn end(&mut self) {
        while let Ok(Some(_)) = self.replies.message().await {}
    }

    pub(crate) async fn open_session(&mut self, shard: u32, epoch: u64) -> Result<SessionId, Rejection> {
        match self.ask(shard, epoch, KvOperation::OpenSession).await?.value {
            KvAnswer::Outcome(Outcome::SessionOpened { session }) => Ok(session),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn get(key: &Key, level: ReadLevel) -> KvOperation {
    KvOperation::Get { key: key.clone(), level }
}

pub(crate) fn put(key: &Key, value: &str, session: SessionId, sequence: u64) -> KvOperation {
    let stamp = SessionStamp { session, sequence, lowest: sequence };
    let mutation = Mutation::Put(Value::new(value.to_owned()).unwrap());
    KvOperation::Write { stamp, write: Write { key: key.clone(), mutation, condition: None } }
}

pub(crate) fn delete(key: &Key, session: SessionId, sequence: u64) -> KvOperation {
    let stamp = SessionStamp { session, sequence, lowest: sequence };
    KvOperation::Write { stamp, write: Write { key: key.clone(), mutation: Mutation::Delete, condition: None } }
}

/// The value that a get found.
pub(crate) fn value(answer: &Answer) -> Option<String> {
    match &answer.as_ref().unwrap().value {
        KvAnswer::Found(record) => {
            record.as_ref().map(|record| String::from_utf8(record.value.as_bytes().to_vec()).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

/// Where a key lives: shard and epoch.
pub(crate) fn route(topology: &Topology, key: &Key) -> (u32, u64) {
    let hash_key: [u8; 16] = topology.hash_key.as_ref().try_into().unwrap();
    let topology = quorate_types::topology::Topology::try_from(topology.clone()).unwrap();
    let token = quorate_ring::token(&hash_key, key);
    let shard = topology.shards.iter().find(|shard| shard.arc.contains(token)).unwrap();
    (shard.id.0, shard.epoch)
}
