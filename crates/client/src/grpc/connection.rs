//! The connection to one node over gRPC: a [`Link`] that is opened when a request needs it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::future::BoxFuture;
use quorate_proto::kv::kv_client::KvClient;
use quorate_proto::kv::{self, ClientHello, ServerFrame};
use quorate_proto::{MESSAGE_BYTES_MAX, WIRE_VERSION};
use quorate_router::{Attempt, Connection, Health, Target};
use quorate_types::{HostPortError, KvRequest, error_chain};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};
use tracing::debug;

use super::link::{Link, Outbound, Submitted};
use super::transport::transport;

/// The connection to one node. At most one link at a time; a link that ended is replaced when the
/// next request comes.
pub(crate) struct GrpcConnection {
    target: Target,
    health: Arc<Health>,
    connect_timeout: Duration,
    link: ArcSwapOption<Link>,
    /// The task that opens the link and reads its stream. Locked only to open a link.
    reader: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Connection for GrpcConnection {
    fn attempt(&self, request: KvRequest, until: Instant) -> BoxFuture<'_, Attempt> {
        Box::pin(async move {
            let bytes = request.size_bytes();
            let mut request = kv::Request::from(request);
            let mut link = self.link.load_full();
            let ticket = loop {
                match link.unwrap_or_else(|| self.reopen()).submit(request, bytes) {
                    Submitted::Accepted(ticket) => break ticket,
                    Submitted::Closed(returned) => (request, link) = (returned, None),
                    Submitted::Full => return Attempt::Busy,
                }
            };
            ticket.wait(until).await
        })
    }

    fn outstanding(&self) -> usize {
        self.link.load().as_ref().map_or(0, |link| link.outstanding())
    }
}

impl GrpcConnection {
    pub(crate) fn new(target: Target, health: Arc<Health>, connect_timeout: Duration) -> Self {
        Self { target, health, connect_timeout, link: ArcSwapOption::empty(), reader: Mutex::default() }
    }

    /// Opens a link, unless another request has opened one by now. The link takes requests while it
    /// connects.
    fn reopen(&self) -> Arc<Link> {
        let mut reader = self.reader.lock().expect("nothing panics under this lock");
        if let Some(link) = &*self.link.load()
            && !link.is_closed()
        {
            return Arc::clone(link);
        }
        let link = Arc::new(Link::default());
        self.link.store(Some(Arc::clone(&link)));
        let task = run(Arc::clone(&link), self.target.clone(), Arc::clone(&self.health), self.connect_timeout);
        *reader = Some(AbortOnDropHandle::new(tokio::spawn(task)));
        link
    }
}

impl Drop for GrpcConnection {
    fn drop(&mut self) {
        if let Some(link) = self.link.load_full() {
            link.close("the connection is no longer needed");
        }
    }
}

/// The reason why a link could not be opened.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("no connection within {} ms", .0.as_millis())]
    Late(Duration),
    #[error(transparent)]
    Address(#[from] HostPortError),
    #[error("{}", error_chain(.0))]
    Transport(#[from] tonic::transport::Error),
    #[error("{}", message(.0))]
    Status(Status),
    #[error("the node sent no hello")]
    NoHello,
    #[error("it belongs to another cluster, {0}")]
    OtherCluster(String),
    #[error("it uses wire version {0}, this side uses {WIRE_VERSION}")]
    OtherVersion(u32),
    #[error("it is node {0}, not node {1}")]
    OtherNode(u64, u64),
}

/// Runs a link from connecting to its end.
async fn run(link: Arc<Link>, target: Target, health: Arc<Health>, connect_timeout: Duration) {
    let connecting = timeout(connect_timeout, connect(&link, &target, connect_timeout)).await;
    let reason = match connecting.unwrap_or(Err(ConnectError::Late(connect_timeout))) {
        Ok(inbound) => {
            link.open();
            read(&link, inbound).await
        }
        Err(error) => error.to_string(),
    };
    debug!(node = target.node.0, address = target.address, reason, "connection ended");
    // The breaker first: a caller that wakes up must find it up to date.
    health.failure(&reason);
    link.close(&reason);
}

/// Connects and exchanges hellos. The node must be the target.
async fn connect(
    link: &Arc<Link>,
    target: &Target,
    connect_timeout: Duration,
) -> Result<Streaming<ServerFrame>, ConnectError> {
    let channel = transport(&target.address, connect_timeout)?.connect().await?;
    let mut client = KvClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let hello = ClientHello {
        cluster_id: target.cluster.to_string(),
        wire_version_min: WIRE_VERSION,
        wire_version_max: WIRE_VERSION,
    };
    let outbound = Outbound::new(hello, Arc::clone(link));
    let mut inbound = client.exchange(outbound).await.map_err(ConnectError::Status)?.into_inner();
    let first = inbound.message().await.map_err(ConnectError::Status)?;
    let hello = first.and_then(|frame| frame.hello).ok_or(ConnectError::NoHello)?;
    if hello.cluster_id != target.cluster.to_string() {
        return Err(ConnectError::OtherCluster(hello.cluster_id));
    }
    if hello.wire_version != WIRE_VERSION {
        return Err(ConnectError::OtherVersion(hello.wire_version));
    }
    if hello.node != target.node.0 {
        return Err(ConnectError::OtherNode(hello.node, target.node.0));
    }
    Ok(inbound)
}

/// Delivers replies until the stream ends. Returns the reason of its end.
async fn read(link: &Link, mut inbound: Streaming<ServerFrame>) -> String {
    loop {
        match inbound.message().await {
            Ok(Some(frame)) => link.deliver(frame),
            Ok(None) => return "the node ended the connection".to_owned(),
            Err(status) => return message(&status),
        }
    }
}

fn message(status: &Status) -> String {
    match status.message() {
        "" => error_chain(status),
        message => message.to_owned(),
    }
}
