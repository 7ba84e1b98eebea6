//! The parts that the control loops of one node share.

use std::sync::Arc;
use std::time::Duration;

use quorate_topology::{ClusterState, read_cluster};
use quorate_types::Rejection;
use quorate_types::clock::Clock;

use crate::foreground::Foreground;
use crate::host::Host;
use crate::liveness::{Liveness, PingTiming};
use crate::peers::Peers;
use crate::progress::ReconcilerHandle;
use crate::store::Store;
use crate::term_gate::TermGate;

/// How long the confirmation may take that this node leads the topology group.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// The parts that the control loops of one node share. Clones share them.
#[derive(Clone)]
pub struct Plane {
    /// The node's storage and replicas.
    pub store: Arc<Store>,
    /// The other nodes.
    pub peers: Arc<dyn Peers>,
    /// The process.
    pub host: Arc<dyn Host>,
    /// Wall-clock time: it ends operations and stamps commands.
    pub clock: Arc<dyn Clock>,
    /// How fast clients are served.
    pub foreground: Arc<Foreground>,
    /// The results of the last reconciler round.
    pub reconciler: Arc<ReconcilerHandle>,
    /// The signs of life of all nodes.
    pub liveness: Arc<Liveness>,
    /// The newest term in which an order was accepted here.
    pub terms: Arc<TermGate>,
}

impl Plane {
    /// A plane over a store, with nothing measured or reconciled yet.
    pub fn new(store: Arc<Store>, peers: Arc<dyn Peers>, host: Arc<dyn Host>, clock: Arc<dyn Clock>) -> Self {
        let liveness = Arc::new(Liveness::new(store.identity.node, PingTiming::default()));
        Plane {
            store,
            peers,
            host,
            clock,
            foreground: Arc::new(Foreground::default()),
            reconciler: Arc::new(ReconcilerHandle::default()),
            liveness,
            terms: Arc::new(TermGate::default()),
        }
    }

    /// The cluster's state as the leader of the topology group has it: every command committed
    /// before the call is in it. Rejected where this node does not lead the topology group, or if
    /// no quorum confirms that within 2 s.
    pub async fn confirmed_cluster(&self) -> Result<ClusterState, Rejection> {
        let group = self.store.topology_group().ok_or(Rejection::NotLeader { leader: None })?;
        group.confirm(CONFIRM_TIMEOUT).await?;
        let mut cluster = None;
        let read = self.store.state.view(&mut |view| {
            cluster = Some(read_cluster(view, group.id())?);
            Ok(())
        });
        if let Err(error) = read {
            self.host.fail_stop(&error.to_string());
            return Err(Rejection::Unavailable { reason: format!("the state cannot be read: {error}") });
        }
        Ok(cluster.expect("the view called back"))
    }
}
