//! One node as the router reaches it: its circuit breaker, and the link that is opened when a request needs it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use quorate_proto::kv::ClientHello;
use quorate_proto::kv::ServerFrame;
use quorate_proto::kv::kv_client::KvClient;
use quorate_proto::{MESSAGE_BYTES_MAX, WIRE_VERSION, kv, reply_from_wire};
use quorate_types::{ClusterId, KvAnswer, KvRequest, NodeId, Rejection, Served};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;
use tracing::debug;

use crate::breaker::Breaker;
use crate::config::{explain, transport};
use crate::link::{Delivery, Link, Outbound, Submitted};

/// A node that does not answer within less than this is not blamed for it: the caller was in a hurry.
const SILENCE_MIN: Duration = Duration::from_millis(250);

/// What became of one try at one node.
#[derive(Debug)]
pub(crate) enum Try {
    /// The node served it.
    Served(Served<KvAnswer>),
    /// The node did not serve it, and said why.
    Rejected(Rejection),
    /// It did not leave this process.
    NotSent(String),
    /// It did not leave this process: too much waits for the node already.
    Busy,
    /// It left, and what became of it is not known.
    Lost(String),
}

/// Which node of which cluster an address belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) address: String,
    pub(crate) connect_timeout: Duration,
}

/// One node as the router reaches it.
pub(crate) struct Node {
    target: Target,
    health: Arc<Health>,
    link: ArcSwapOption<Link>,
    /// What reads the link's stream. Locked only to open a link.
    reader: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Node {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, health: Arc::default(), link: ArcSwapOption::empty(), reader: Mutex::default() }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Whether the breaker would let a request through.
    pub(crate) fn is_available(&self) -> bool {
        self.health.would_admit()
    }

    /// Why the breaker opened, for a message.
    pub(crate) fn trouble(&self) -> String {
        self.health.trouble()
    }

    /// Requests that wait or are unanswered.
    pub(crate) fn outstanding(&self) -> usize {
        self.link.load().as_ref().map_or(0, |link| link.outstanding())
    }

    /// Sends a request and waits until then for what becomes of it.
    pub(crate) async fn attempt(&self, request: KvRequest, until: Instant) -> Try {
        if !self.health.admit() {
            return Try::NotSent(format!("left alone for a while after: {}", self.trouble()));
        }
        let bytes = request.size_bytes();
        let mut request = kv::Request::from(request);
        let started = Instant::now();
        let mut link = self.link.load_full();
        let ticket = loop {
            match link.unwrap_or_else(|| self.reopen()).submit(request, bytes) {
                Submitted::Accepted(ticket) => break ticket,
                Submitted::Closed(returned) => (request, link) = (returned, None),
                Submitted::Full => return Try::Busy,
            }
        };
        match ticket.wait(until).await {
            Delivery::Replied(reply) => {
                self.health.success();
                match reply_from_wire(reply) {
                    Ok(Ok(served)) => Try::Served(served),
                    Ok(Err(rejection)) => Try::Rejected(rejection),
                    Err(error) => Try::Lost(error.to_string()),
                }
            }
            Delivery::NotSent(reason) => Try::NotSent(reason.to_string()),
            Delivery::Lost(reason) => Try::Lost(reason.to_string()),
            Delivery::Silent => {
                let waited = started.elapsed();
                let reason = format!("no reply within {} ms", waited.as_millis());
                if waited >= SILENCE_MIN {
                    self.health.failure(&reason);
                }
                Try::Lost(reason)
            }
        }
    }

    /// A new link, unless another request has opened one by now. It takes requests while it is connecting.
    fn reopen(&self) -> Arc<Link> {
        let mut reader = self.reader.lock().expect("nothing panics under this lock");
        if let Some(link) = &*self.link.load()
            && !link.is_closed()
        {
            return Arc::clone(link);
        }
        let link = Arc::new(Link::default());
        self.link.store(Some(Arc::clone(&link)));
        let task = run(Arc::clone(&link), self.target.clone(), Arc::clone(&self.health));
        *reader = Some(AbortOnDropHandle::new(tokio::spawn(task)));
        link
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(link) = self.link.load_full() {
            link.close("the connection is not needed any more");
        }
    }
}

/// A link's life, from connecting to its end.
async fn run(link: Arc<Link>, target: Target, health: Arc<Health>) {
    let reason = match timeout(target.connect_timeout, connect(&link, &target)).await {
        Err(_) => format!("no connection within {} ms", target.connect_timeout.as_millis()),
        Ok(Err(reason)) => reason,
        Ok(Ok(inbound)) => {
            link.open();
            read(&link, inbound).await
        }
    };
    debug!(node = target.node.0, address = target.address, reason, "connection ended");
    // First the breaker, so that those who are woken find it as it is.
    health.failure(&reason);
    link.close(&reason);
}

async fn connect(link: &Arc<Link>, target: &Target) -> Result<Streaming<ServerFrame>, String> {
    let transport = transport(&target.address, target.connect_timeout).map_err(|error| error.to_string())?;
    let channel = transport.connect().await.map_err(|error| explain(&error))?;
    let mut client = KvClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let hello = ClientHello {
        cluster_id: target.cluster.to_string(),
        wire_version_min: WIRE_VERSION,
        wire_version_max: WIRE_VERSION,
    };
    let mut inbound = client
        .exchange(Outbound::new(hello, Arc::clone(link)))
        .await
        .map_err(|status| status_text(&status))?
        .into_inner();
    let first = inbound.message().await.map_err(|status| status_text(&status))?;
    let hello = first.and_then(|frame| frame.hello).ok_or("the node did not say who it is")?;
    if hello.cluster_id != target.cluster.to_string() {
        return Err(format!("it belongs to another cluster, {}", hello.cluster_id));
    }
    if hello.wire_version != WIRE_VERSION {
        return Err(format!("it speaks wire version {}, this side speaks {WIRE_VERSION}", hello.wire_version));
    }
    if hello.node != target.node.0 {
        return Err(format!("it is node {}, not node {}", hello.node, target.node));
    }
    Ok(inbound)
}

/// Delivers replies until the stream ends; returns why it did.
async fn read(link: &Link, mut inbound: Streaming<ServerFrame>) -> String {
    loop {
        match inbound.message().await {
            Ok(Some(frame)) => link.deliver(frame),
            Ok(None) => return "the node ended the connection".to_owned(),
            Err(status) => return status_text(&status),
        }
    }
}

fn status_text(status: &tonic::Status) -> String {
    match status.message() {
        "" => explain(status),
        message => message.to_owned(),
    }
}

/// A node's breaker, and a way around its lock for a node that is well.
#[derive(Default)]
struct Health {
    troubled: AtomicBool,
    state: Mutex<(Breaker, String)>,
}

impl Health {
    fn would_admit(&self) -> bool {
        !self.troubled.load(Ordering::Acquire) || self.lock().0.would_admit(Instant::now())
    }

    fn admit(&self) -> bool {
        !self.troubled.load(Ordering::Acquire) || self.lock().0.admit(Instant::now())
    }

    fn success(&self) {
        if self.troubled.load(Ordering::Acquire) {
            let mut state = self.lock();
            state.0.success();
            self.troubled.store(!state.0.is_pristine(), Ordering::Release);
        }
    }

    fn failure(&self, reason: &str) {
        let mut state = self.lock();
        state.0.failure(Instant::now());
        reason.clone_into(&mut state.1);
        self.troubled.store(true, Ordering::Release);
    }

    fn trouble(&self) -> String {
        self.lock().1.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Breaker, String)> {
        self.state.lock().expect("nothing panics under this lock")
    }
}
