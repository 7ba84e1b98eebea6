//! The connection to one node over gRPC: a [`Link`] that is opened when a request needs it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::future::BoxFuture;
use quorate_proto::kv;
use quorate_router::{Attempt, Connection, Health, Target};
use quorate_types::KvRequest;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::link::{Link, Submitted};
use super::stream::{ConnectError, connect, read};

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
        let mut reader = self.reader.lock().expect("only a broken invariant poisons this lock");
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
