//! One running node, in a cluster or not yet.
//!
//! ```text
//!   alone ──(Found: an order to found a cluster that names this node)──┐
//!     │                                                                ├─→ member (for good)
//!     └─────(join: an existing cluster gave this node an id)───────────┘
//! ```

use std::sync::Arc;
use std::time::Instant;

use quorate_types::topology::NodeAddresses;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::config::NodeConfig;
use crate::data_dir::DataDir;
use crate::disk::Disk;
use crate::error::NodeError;
use crate::member::Member;
use crate::peer::Staging;
use crate::refusal::Refusal;
use crate::{agent, announce, reconciler, throttle, topology_watch};

/// One running node.
pub(crate) struct Node {
    /// What it was started with.
    pub(crate) config: NodeConfig,
    /// Where others reach it.
    pub(crate) addresses: NodeAddresses,
    /// Its data directory.
    pub(crate) data: DataDir,
    /// The free space there.
    pub(crate) disk: Disk,
    /// Where snapshots come in.
    pub(crate) staging: Staging,
    /// Held while the node decides which cluster it belongs to: bootstrap and joining exclude each other.
    pub(crate) deciding: Mutex<()>,
    entering: Mutex<()>,
    life: Life,
    member: watch::Sender<Option<Arc<Member>>>,
}

/// From start to stop.
struct Life {
    started: Instant,
    stopping: CancellationToken,
    draining: CancellationToken,
    closed: CancellationToken,
    tasks: TaskTracker,
}

impl Node {
    /// A node that is in no cluster yet.
    pub(crate) fn new(config: NodeConfig, addresses: NodeAddresses, data: DataDir) -> Arc<Self> {
        let disk = Disk::new(config.limits.disk_reserve_bytes);
        disk.look(data.path());
        let life = Life {
            started: Instant::now(),
            stopping: CancellationToken::new(),
            draining: CancellationToken::new(),
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let staging = Staging::new(data.staging());
        let member = watch::Sender::new(None);
        Arc::new(Node {
            config,
            addresses,
            data,
            disk,
            staging,
            deciding: Mutex::new(()),
            entering: Mutex::new(()),
            life,
            member,
        })
    }

    /// This node as a member of its cluster; none as long as it is in none.
    pub(crate) fn member(&self) -> Option<Arc<Member>> {
        self.member.borrow().clone()
    }

    /// As [`member`](Self::member), or why there is none: a node that opens its data must not say that it is in no cluster.
    pub(crate) fn require_member(&self) -> Result<Arc<Member>, Refusal> {
        self.member().ok_or_else(|| match self.data.identity() {
            _ if self.is_stopping() => Refusal::Stopping,
            Ok(Some(_)) => Refusal::Starting,
            _ => Refusal::NoCluster,
        })
    }

    /// Waits until the node is in a cluster.
    pub(crate) async fn joined(&self) -> Arc<Member> {
        let mut member = self.member.subscribe();
        let joined = member.wait_for(Option::is_some).await.expect("the node that is borrowed here holds the sender");
        joined.clone().expect("the condition just held")
    }

    /// Enters the cluster that the data directory names: opens what is stored and follows the cluster from here on. Nothing
    /// happens where the directory names none, or where the node is a member already.
    pub(crate) async fn enter_cluster(self: &Arc<Self>) -> Result<(), NodeError> {
        let _entering = self.entering.lock().await;
        let Some(identity) = self.data.identity()? else { return Ok(()) };
        if self.member().is_some() {
            return Ok(());
        }
        let member = Arc::new(Member::open(self, identity).await?);
        info!(cluster = %identity.cluster, node = %identity.node, "node is in its cluster");
        self.member.send_replace(Some(member.clone()));
        self.spawn(agent::run(self.clone(), member.clone()));
        self.spawn(announce::run(self.clone(), member.clone()));
        self.spawn(topology_watch::run(self.clone(), member.clone()));
        self.spawn(throttle::run(member.clone()));
        self.spawn(reconciler::run(self.clone(), member));
        Ok(())
    }

    /// Gives the member up, to be closed.
    pub(crate) fn leave_cluster(&self) -> Option<Arc<Member>> {
        self.member.send_replace(None)
    }

    /// Runs a task until it ends or the node has closed, whichever is first.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let closed = self.life.closed.clone();
        self.life.tasks.spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Milliseconds since the node started.
    pub(crate) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.life.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// From here on the node is not ready; it still serves.
    pub(crate) fn stop(&self) {
        self.life.stopping.cancel();
    }

    /// Whether the node is about to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.life.stopping.is_cancelled()
    }

    /// Waits until the node is about to stop.
    pub(crate) async fn stopping(&self) {
        self.life.stopping.cancelled().await;
    }

    /// From here on nothing new is served: clients' streams end once their requests are answered.
    pub(crate) fn drain(&self) {
        self.life.draining.cancel();
    }

    /// Whether nothing new is served any more.
    pub(crate) fn is_draining(&self) -> bool {
        self.life.draining.is_cancelled()
    }

    /// Waits until nothing new is served any more.
    pub(crate) async fn draining(&self) {
        self.life.draining.cancelled().await;
    }

    /// Ends the streams of other nodes and the node's own tasks, and waits for the latter.
    pub(crate) async fn close(&self) {
        self.life.closed.cancel();
        self.life.tasks.close();
        self.life.tasks.wait().await;
    }

    /// Waits until the node talks to no other any more.
    pub(crate) async fn closed(&self) {
        self.life.closed.cancelled().await;
    }
}
