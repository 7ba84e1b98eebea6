//! A node as a member of its cluster: its storage, its replicas, its view of the cluster.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use quorate_machine::log::{Log, LogError};
use quorate_machine::rate_limiter::RateLimiter;
use quorate_machine::state::{State, StateError, View};
use quorate_raft::{Groups, LOG_RETAINED_ENTRIES, OpenError, Options, Replica, Shard, Transport};
use quorate_rocks::{LogOptions, RocksLog};
use quorate_rocks::{RocksState, StateOptions};
use quorate_topology::{ClusterState, Published, TopologyMachine, read_cluster};
use quorate_types::clock::SystemClock;
use quorate_types::topology::{Bootstrap, Identity, Topology};
use quorate_types::{GroupId, Rejection, ReplicaId, ShardId};

use tracing::info;

use crate::error::NodeError;
use crate::fatal::fail_stop;
use crate::node::Node;
use crate::peer::PeerTransport;
use crate::reconciler::Reconciler;
use crate::run::only_handle;
use crate::throttle::{Foreground, RATE_BURST, RATE_MAX};
use crate::topology_feed::TopologyFeed;

/// A node as a member of its cluster.
pub(crate) struct Member {
    /// Who it is.
    pub(crate) identity: Identity,
    /// The order that bootstrapped the cluster, on initial nodes.
    pub(crate) bootstrap: Option<Bootstrap>,
    /// What it stores.
    pub(crate) storage: Storage,
    /// Its connections to the others.
    pub(crate) transport: Arc<PeerTransport>,
    /// Its replicas.
    pub(crate) groups: Groups,
    /// The cluster as it knows it.
    pub(crate) feed: Arc<TopologyFeed>,
    /// Its replicas of shards that are open.
    pub(crate) shards: OpenShards,
    /// What it does as the leader of group 0.
    pub(crate) reconciler: Reconciler,
    /// How fast clients are served.
    pub(crate) foreground: Foreground,
    topology_group: ArcSwapOption<Replica>,
}

/// What a node stores. Clones are handles to the same.
#[derive(Clone)]
pub(crate) struct Storage {
    /// The log of all its replicas.
    pub(crate) log: Arc<dyn Log>,
    /// The state of all its replicas.
    pub(crate) state: Arc<dyn State>,
    /// How fast files of snapshots are written.
    pub(crate) export_rate: Arc<RateLimiter>,
}

impl Storage {
    /// Opens both databases. Blocks.
    fn open(log: PathBuf, state: PathBuf) -> Result<Self, NodeError> {
        let log_options = LogOptions { on_fatal: Arc::new(|reason| fail_stop(&reason)), ..LogOptions::default() };
        let log = RocksLog::open(&log, log_options).map_err(log_error)?;
        let export_rate = Arc::new(RateLimiter::new(RATE_MAX, RATE_BURST));
        let state =
            RocksState::open(&state, StateOptions::default().export_rate(export_rate.clone())).map_err(state_error)?;
        sweep(&log, &state).map_err(state_error)?;
        Ok(Storage { log: Arc::new(log), state: Arc::new(state), export_rate })
    }

    /// Makes everything durable and closes the log. Blocks.
    pub(crate) fn close(&self) -> Result<(), StateError> {
        let flushed = self.state.flush();
        self.log.close();
        flushed
    }
}

/// Destroys what a crash left of the states of replicas that were destroyed: a replica has its log before it has a state.
fn sweep(log: &dyn Log, state: &dyn State) -> Result<(), StateError> {
    let live: HashSet<ReplicaId> = log.replicas().into_iter().map(|(replica, _)| replica).collect();
    for orphan in state.replicas()?.into_iter().filter(|replica| !live.contains(replica)) {
        info!(replica = %orphan, "state of a destroyed replica swept");
        state.destroy(orphan)?;
    }
    Ok(())
}

fn log_error(error: LogError) -> NodeError {
    match error {
        LogError::Corrupt { .. } | LogError::Hole { .. } => NodeError::Corrupt(error.to_string()),
        _ => NodeError::Disk(error.to_string()),
    }
}

fn state_error(error: StateError) -> NodeError {
    match error {
        StateError::Corrupt { .. } => NodeError::Corrupt(error.to_string()),
        _ => NodeError::Disk(error.to_string()),
    }
}

impl Member {
    /// Opens what is stored, and the replica of the topology group if this node has one.
    pub(crate) async fn open(node: &Node, identity: Identity) -> Result<Self, NodeError> {
        let bootstrap = node.data.bootstrap()?;
        let cached = node.data.topology()?;
        let (log, state) = (node.data.log(), node.data.state());
        node.data.check_stored()?;
        let opened = tokio::task::spawn_blocking(|| Storage::open(log, state)).await;
        let storage = opened.map_err(|e| NodeError::Disk(format!("opening the storage: {e}")))??;
        node.data.record_stored()?;

        let transport = Arc::new(PeerTransport::new(identity));
        let feed = Arc::new(TopologyFeed::new(identity.cluster));
        match (&cached, &bootstrap) {
            (Some(topology), _) => {
                transport.update(&topology.nodes);
                feed.offer(Arc::new(topology.clone()));
            }
            (None, Some(bootstrap)) => transport.update(&bootstrap.nodes),
            (None, None) => {}
        }
        let options = Options {
            node: identity.node,
            timing: node.config.timing,
            snapshot_dir: node.data.snapshots(),
            log_retained_bytes_per_group: node.config.limits.log_retained_bytes_per_group,
            log_retained_bytes_per_node: node.config.limits.log_retained_bytes_per_node,
            log_retained_entries: LOG_RETAINED_ENTRIES,
            on_fatal: Arc::new(|reason| fail_stop(&reason)),
        };
        let for_raft: Arc<dyn Transport> = transport.clone();
        let groups = Groups::new(options, storage.log.clone(), storage.state.clone(), for_raft, Arc::new(SystemClock));
        let (shards, reconciler, foreground, topology_group) = Default::default();
        let member = Member {
            identity,
            bootstrap,
            storage,
            transport,
            groups,
            feed,
            shards,
            reconciler,
            foreground,
            topology_group,
        };
        if let Some(replica) = member.own_topology_replica(cached.as_ref()) {
            member.open_topology_replica(replica).await.map_err(|error| {
                NodeError::Corrupt(format!("the replica of the topology group does not open: {error}"))
            })?;
        }
        Ok(member)
    }

    /// This node's replica of the topology group, if it has one.
    pub(crate) fn topology_group(&self) -> Option<Arc<Replica>> {
        self.topology_group.load_full()
    }

    /// The cluster as its leader has it: everything that was committed before is in it. Refused where this node does not lead
    /// the topology group.
    pub(crate) async fn confirmed_cluster(&self, within: Duration) -> Result<ClusterState, Rejection> {
        let group = self.topology_group().ok_or(Rejection::NotLeader { leader: None })?;
        group.confirm(within).await?;
        let mut cluster = None;
        let read = self.storage.state.view(&mut |view| {
            cluster = Some(read_cluster(view, group.id())?);
            Ok(())
        });
        read.unwrap_or_else(|error| fail_stop(&error.to_string()));
        Ok(cluster.expect("the view called back"))
    }

    /// Opens this node's replica of the topology group.
    pub(crate) async fn open_topology_replica(&self, replica: ReplicaId) -> Result<(), OpenError> {
        let feed = self.feed.clone();
        let published = Published::new(move |topology| feed.offer(topology));
        let open = move |replica, view: &dyn View| TopologyMachine::open(replica, view, published.clone());
        let group = self.groups.open(GroupId::TOPOLOGY, replica, open).await?;
        self.topology_group.store(Some(group));
        Ok(())
    }

    /// Destroys a replica that the map does not have any more; durable on return.
    pub(crate) async fn destroy(&self, group: GroupId, replica: ReplicaId) -> Result<(), OpenError> {
        match group.shard() {
            Some(shard) => self.shards.remove(shard, replica),
            None if self.topology_group().is_some_and(|open| open.id() == replica) => {
                self.topology_group.store(None);
            }
            None => {}
        }
        self.groups.destroy(replica).await
    }

    /// The replica of the topology group that this node has, or was bootstrapped with. Of several that are stored, one is on its way
    /// out: the newest is the one.
    fn own_topology_replica(&self, cached: Option<&Topology>) -> Option<ReplicaId> {
        let stored = self.storage.log.replicas().into_iter().filter(|(_, group)| *group == GroupId::TOPOLOGY);
        let bootstrapped = || {
            // Once there was a map, it says who has one.
            let bootstrap = self.bootstrap.as_ref().filter(|_| cached.is_none())?;
            bootstrap.topology_replicas.iter().find(|placement| placement.node == self.identity.node)
        };
        stored.map(|(replica, _)| replica).max().or_else(|| bootstrapped().map(|placement| placement.replica))
    }

    /// Stops the replicas, makes everything durable and lets go of it.
    pub(crate) async fn close(self: Arc<Self>) -> Result<(), StateError> {
        self.shards.clear();
        self.topology_group.store(None);
        self.groups.shutdown().await;
        self.transport.shutdown().await;
        let storage = self.storage.clone();
        let flushing = storage.clone();
        let closed = tokio::task::spawn_blocking(move || flushing.close()).await;
        drop(self);
        only_handle(&storage.log, "log").await;
        only_handle(&storage.state, "state").await;
        let released = tokio::task::spawn_blocking(move || drop(storage)).await;
        let failed = |e: tokio::task::JoinError| StateError::Io(e.to_string().into());
        closed.map_err(failed)?.and(released.map_err(failed))
    }
}

/// The replicas of shards that are open here.
#[derive(Default)]
pub(crate) struct OpenShards {
    groups: ArcSwap<HashMap<ShardId, Shard>>,
    all_stored_are_open: AtomicBool,
}

impl OpenShards {
    /// The shard's replica here, if it is open.
    pub(crate) fn get(&self, shard: ShardId) -> Option<Shard> {
        self.groups.load().get(&shard).cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Arc<HashMap<ShardId, Shard>> {
        self.groups.load_full()
    }

    /// Adds one.
    pub(crate) fn insert(&self, shard: ShardId, group: Shard) {
        self.groups.rcu(|groups| {
            let mut groups = HashMap::clone(groups);
            groups.insert(shard, group.clone());
            groups
        });
    }

    /// Lets go of one, if it is this replica.
    pub(crate) fn remove(&self, shard: ShardId, replica: ReplicaId) {
        self.groups.rcu(|groups| {
            let mut groups = HashMap::clone(groups);
            if groups.get(&shard).is_some_and(|group| group.replica().id() == replica) {
                groups.remove(&shard);
            }
            groups
        });
    }

    /// Lets go of all, so that their tasks end.
    pub(crate) fn clear(&self) {
        self.groups.store(Arc::default());
    }

    /// From here on every replica that was stored when the node started is open.
    pub(crate) fn recovered(&self) {
        self.all_stored_are_open.store(true, Ordering::Release);
    }

    /// Whether every replica that was stored when the node started is open.
    pub(crate) fn is_recovered(&self) -> bool {
        self.all_stored_are_open.load(Ordering::Acquire)
    }
}
