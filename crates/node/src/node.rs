//! One running node, in a cluster or not yet.
//!
//! ```text
//!   alone ──(Bootstrap: an order to bootstrap a cluster that names this node)──┐
//!     │                                                                        ├─→ member,
//!     └─────(join: an existing cluster gave this node an id)───────────────────┘   for good
//! ```

use std::sync::Arc;

use quorate_types::topology::NodeAddresses;
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::cluster_node::ClusterNode;
use crate::config::NodeConfig;
use crate::data_dir::DataDir;
use crate::disk::Disk;
use crate::life::Life;
use crate::peer::Staging;
use crate::refusal::Refusal;

/// One running node.
///
/// # Invariants
/// * A node that is a member stays a member of the same cluster until it closes.
pub(crate) struct Node {
    /// Its configuration.
    pub(crate) config: NodeConfig,
    /// Its addresses as others reach it.
    pub(crate) addresses: NodeAddresses,
    /// Its data directory.
    pub(crate) data: Arc<DataDir>,
    /// The free space there.
    pub(crate) disk: Arc<Disk>,
    /// The directory of snapshots that are being received.
    pub(crate) staging: Staging,
    /// Held while the node decides which cluster it belongs to: bootstrap and joining exclude each
    /// other.
    pub(crate) deciding: Mutex<()>,
    /// The phases of the process, and its tasks.
    pub(crate) life: Arc<Life>,
    entering: Mutex<()>,
    member: watch::Sender<Option<Arc<ClusterNode>>>,
}

impl Node {
    /// A node that is in no cluster yet.
    pub(crate) fn new(config: NodeConfig, addresses: NodeAddresses, data: DataDir) -> Arc<Self> {
        let disk = Arc::new(Disk::new(config.limits.disk_reserve_bytes));
        disk.look(data.path());
        Arc::new(Node {
            config,
            addresses,
            staging: Staging::new(data.staging(), disk.room(data.path().to_owned())),
            data: Arc::new(data),
            disk,
            deciding: Mutex::new(()),
            life: Arc::new(Life::begin()),
            entering: Mutex::new(()),
            member: watch::Sender::new(None),
        })
    }

    /// This node as a member of its cluster; none while it is in no cluster.
    pub(crate) fn cluster_node(&self) -> Option<Arc<ClusterNode>> {
        self.member.borrow().clone()
    }

    /// This node as a member of its cluster, or why it is none now: a node that is opening its data
    /// must not answer that it is in no cluster.
    pub(crate) fn require_member(&self) -> Result<Arc<ClusterNode>, Refusal> {
        self.cluster_node().ok_or_else(|| match self.data.identity() {
            _ if self.life.is_stopping() => Refusal::Stopping,
            Ok(Some(_)) => Refusal::Starting,
            _ => Refusal::NoCluster,
        })
    }

    /// Waits until the node is in a cluster.
    pub(crate) async fn joined(&self) -> Arc<ClusterNode> {
        let mut member = self.member.subscribe();
        let joined = member.wait_for(Option::is_some).await.expect("the node that is borrowed here holds the sender");
        joined.clone().expect("the condition just held")
    }

    /// Excludes other attempts to enter a cluster until the guard is dropped.
    pub(crate) async fn entering(&self) -> MutexGuard<'_, ()> {
        self.entering.lock().await
    }

    /// The node is a member from here on.
    pub(crate) fn enter(&self, member: Arc<ClusterNode>) {
        let before = self.member.send_replace(Some(member));
        assert!(before.is_none(), "a node enters one cluster, once");
    }

    /// Takes the member out, to be closed.
    pub(crate) fn leave(&self) -> Option<Arc<ClusterNode>> {
        self.member.send_replace(None)
    }
}
