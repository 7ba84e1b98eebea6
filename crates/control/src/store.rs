//! A node's open storage, its replicas, and its view of the cluster.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_machine::log::Log;
use quorate_machine::state::{State, StateError};
use quorate_raft::{Groups, OpenError, Replica};
use quorate_types::topology::{Bootstrap, Identity, Topology};
use quorate_types::{GroupId, ReplicaId, ShardId};
use tracing::{Instrument, info, info_span};

use crate::feed::TopologyFeed;
use crate::shards::OpenShards;
use crate::topology_group::TopologyGroup;

/// A node's open storage, its replicas, and its view of the cluster.
///
/// # Invariants
/// * At most one replica of a group is open here, and it is one that the log has not destroyed. A
///   doubtful one beside it is stored and closed.
/// * A replica's log exists before its state does, so a state without a log is left over from a
///   crash and is destroyed by [`sweep`].
pub struct Store {
    /// The node and its cluster.
    pub identity: Identity,
    /// The bootstrap that this node recorded; initial nodes only.
    pub bootstrap: Option<Bootstrap>,
    /// The log of all replicas.
    pub log: Arc<dyn Log>,
    /// The state of all replicas.
    pub state: Arc<dyn State>,
    /// All replicas.
    pub groups: Groups,
    /// The newest topology known here.
    pub feed: Arc<TopologyFeed>,
    /// The open replicas of shards.
    pub shards: OpenShards,
    topology_group: TopologyGroup,
}

/// The databases of a node. Clones are handles to the same databases.
#[derive(Clone)]
pub struct Databases {
    /// The log of all replicas.
    pub log: Arc<dyn Log>,
    /// The state of all replicas.
    pub state: Arc<dyn State>,
}

/// Destroys the states that have no log: a crash interrupted the destruction of their replicas.
pub fn sweep(log: &dyn Log, state: &dyn State) -> Result<(), StateError> {
    let live: BTreeSet<ReplicaId> = log.replicas().into_iter().map(|(replica, _)| replica).collect();
    for orphan in state.replicas()?.into_iter().filter(|replica| !live.contains(replica)) {
        info!(replica = %orphan, "swept the state of a destroyed replica");
        state.destroy(orphan)?;
    }
    Ok(())
}

impl Store {
    /// A store over open databases. `cached` is the topology that the node last recorded.
    pub fn new(
        identity: Identity,
        bootstrap: Option<Bootstrap>,
        cached: Option<Topology>,
        databases: Databases,
        groups: Groups,
    ) -> Self {
        let feed = Arc::new(TopologyFeed::new(identity.cluster));
        if let Some(topology) = cached {
            feed.offer(Arc::new(topology));
        }
        let Databases { log, state } = databases;
        Store {
            identity,
            bootstrap,
            log,
            state,
            groups,
            feed,
            shards: OpenShards::default(),
            topology_group: TopologyGroup::default(),
        }
    }

    /// Opens this node's replica of the topology group, if it has one. Called once, before the
    /// control loops start.
    pub async fn open_own_topology_replica(&self) -> Result<(), OpenError> {
        match self.own_topology_replica() {
            Some(replica) => self.open_topology_replica(replica).await,
            None => Ok(()),
        }
    }

    /// This node's replica of the topology group, if it has one open.
    pub fn topology_group(&self) -> Option<Arc<Replica>> {
        self.topology_group.get()
    }

    /// Opens this node's replica of the topology group. A doubtful one stays closed until the
    /// topology replaces it.
    pub(crate) async fn open_topology_replica(&self, replica: ReplicaId) -> Result<(), OpenError> {
        match self.topology_group.open(&self.groups, self.feed.clone(), replica).await {
            Err(OpenError::Doubtful(_)) => Ok(()),
            opened => opened,
        }
    }

    /// Opens this node's replica of a shard. A doubtful one stays closed until the topology
    /// replaces it.
    pub(crate) async fn open_shard(&self, shard: ShardId, replica: ReplicaId) -> Result<(), OpenError> {
        let span = info_span!("open", node = %self.identity.node, %shard, %replica);
        let opened = match self.groups.open_shard(shard, replica).instrument(span).await {
            Err(OpenError::Doubtful(_)) => return Ok(()),
            opened => opened?,
        };
        assert_eq!(opened.replica().id(), replica, "a group is opened as the replica that was asked for");
        self.shards.insert(shard, opened);
        Ok(())
    }

    /// Drops the handles to replicas that became doubtful: clients are sent elsewhere, and their
    /// successors can be opened beside them.
    pub(crate) fn release_doubtful(&self) {
        for (replica, group) in self.groups.doubtful() {
            self.release(group, replica);
        }
    }

    /// Drops the handle to a replica.
    fn release(&self, group: GroupId, replica: ReplicaId) {
        match group.shard() {
            Some(shard) => self.shards.remove(shard, replica),
            None if self.topology_group().is_some_and(|open| open.id() == replica) => self.topology_group.close(),
            None => {}
        }
    }

    /// Destroys a replica that the topology no longer has; durable on return.
    pub(crate) async fn destroy(&self, group: GroupId, replica: ReplicaId) -> Result<(), OpenError> {
        self.release(group, replica);
        self.groups.destroy(replica).await?;
        assert!(
            !self.log.replicas().iter().any(|(stored, _)| *stored == replica),
            "a destroyed replica has no log, so it can never open again"
        );
        Ok(())
    }

    /// The replica of the topology group that is stored here, or that this node was bootstrapped
    /// with. Several are stored while one is being replaced: the newest is the valid one.
    fn own_topology_replica(&self) -> Option<ReplicaId> {
        let stored = self.log.replicas().into_iter().filter(|(_, group)| *group == GroupId::TOPOLOGY);
        let bootstrapped = || {
            // A topology supersedes the bootstrap: its list of replicas is newer.
            let bootstrap = self.bootstrap.as_ref().filter(|_| self.feed.latest().is_none())?;
            bootstrap.topology_replicas.iter().find(|placement| placement.node == self.identity.node)
        };
        stored.map(|(replica, _)| replica).max().or_else(|| bootstrapped().map(|placement| placement.replica))
    }

    /// Stops the replicas. The databases stay open: their owner flushes and closes them.
    pub async fn stop(&self) {
        self.release_replicas();
        self.groups.shutdown().await;
    }

    /// Drops the handles to the replicas, so that their batching tasks end.
    pub fn release_replicas(&self) {
        self.shards.clear();
        self.topology_group.close();
    }
}
