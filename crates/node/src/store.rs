//! Opens the storage of a node that is in a cluster.

use std::sync::Arc;

use quorate_control::Store;
use quorate_machine::rate_limiter::RateLimiter;
use quorate_raft::{Groups, LOG_RETAINED_ENTRIES, Options, Room, Transport};
use quorate_types::clock::SystemClock;
use quorate_types::topology::Identity;

use crate::config::NodeConfig;
use crate::data_dir::DataDir;
use crate::databases;
use crate::error::NodeError;
use crate::fatal::fail_stop;
use crate::peer::PeerTransport;

/// A node's open storage, with its connections to other nodes.
pub(crate) struct Opened {
    /// The storage.
    pub(crate) store: Store,
    /// The connections.
    pub(crate) transport: Arc<PeerTransport>,
    /// How fast the files of snapshots are written.
    pub(crate) export_rate: Arc<RateLimiter>,
}

/// Opens the databases of the data directory, whose disk has this room, and this node's replica of
/// the topology group if it has one.
pub(crate) async fn open(
    config: &NodeConfig,
    data: &DataDir,
    room: Room,
    identity: Identity,
) -> Result<Opened, NodeError> {
    let bootstrap = data.bootstrap()?;
    let cached = data.topology()?;
    let (log, state) = (data.log(), data.state());
    data.check_stored()?;
    let opened = tokio::task::spawn_blocking(|| databases::open(log, state)).await;
    let (databases, export_rate) = opened.map_err(|e| NodeError::Disk(format!("opening the storage: {e}")))??;
    data.record_stored()?;

    let transport = Arc::new(PeerTransport::new(identity));
    if let Some(nodes) = cached.as_ref().map(|map| &map.nodes).or(bootstrap.as_ref().map(|bootstrap| &bootstrap.nodes))
    {
        transport.update(nodes);
    }
    let options = Options {
        node: identity.node,
        timing: config.timing,
        snapshot_dir: data.snapshots(),
        room,
        log_retained_bytes_per_group: config.limits.log_retained_bytes_per_group,
        log_retained_bytes_per_node: config.limits.log_retained_bytes_per_node,
        log_retained_entries: LOG_RETAINED_ENTRIES,
        on_fatal: Arc::new(|reason| fail_stop(&reason)),
    };
    let for_raft: Arc<dyn Transport> = transport.clone();
    let groups = Groups::new(options, databases.log.clone(), databases.state.clone(), for_raft, Arc::new(SystemClock));
    let store = Store::new(identity, bootstrap, cached, databases, groups);
    store
        .open_own_topology_replica()
        .await
        .map_err(|error| NodeError::Corrupt(format!("the replica of the topology group does not open: {error}")))?;
    Ok(Opened { store, transport, export_rate })
}
