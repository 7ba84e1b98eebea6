//! The newest topology that this node knows, from its own replica of the topology group or from
//! another node.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use quorate_types::topology::{ShardInfo, Topology};
use quorate_types::{ClusterId, ShardId};
use tokio::sync::Notify;
use tracing::{error, info};

/// A topology with an index of its shards.
#[derive(Debug)]
pub struct ClusterMap {
    /// The topology.
    pub topology: Arc<Topology>,
    places: HashMap<ShardId, usize>,
}

impl ClusterMap {
    fn new(topology: Arc<Topology>) -> Self {
        let places = topology.shards.iter().enumerate().map(|(place, shard)| (shard.id, place)).collect();
        ClusterMap { topology, places }
    }

    /// The shard with this id.
    pub fn shard(&self, id: ShardId) -> Option<&ShardInfo> {
        self.places.get(&id).map(|&place| &self.topology.shards[place])
    }
}

/// The newest topology that this node knows. The node's replica of the topology group offers each
/// topology that it applies; other topologies come from other nodes.
///
/// # Invariants
/// * The revision only grows, and the cluster is always the node's own.
pub struct TopologyFeed {
    cluster: ClusterId,
    latest: ArcSwapOption<ClusterMap>,
    /// Held while a topology is compared with the latest one.
    offering: Mutex<()>,
    /// Wakes waiters in the order in which they wait, unlike a watch channel: simulated runs
    /// repeat.
    changed: Notify,
}

impl TopologyFeed {
    /// An empty feed.
    pub fn new(cluster: ClusterId) -> Self {
        TopologyFeed { cluster, latest: ArcSwapOption::empty(), offering: Mutex::new(()), changed: Notify::new() }
    }

    /// Takes a topology if it is newer than the latest one. Never blocks for long: it is called
    /// while entries are applied.
    pub fn offer(&self, topology: Arc<Topology>) {
        if topology.cluster.id != self.cluster {
            error!(own = %self.cluster, other = %topology.cluster.id, "topology of another cluster ignored");
            return;
        }
        // The guarded unit cannot be left inconsistent by a panic.
        let offering = self.offering.lock().unwrap_or_else(PoisonError::into_inner);
        if self.revision() >= Some(topology.revision) {
            return;
        }
        info!(revision = topology.revision, "topology");
        self.latest.store(Some(Arc::new(ClusterMap::new(topology))));
        drop(offering);
        self.changed.notify_waiters();
    }

    /// The latest topology; none while the cluster is being bootstrapped.
    pub fn latest(&self) -> Option<Arc<ClusterMap>> {
        self.latest.load_full()
    }

    /// The revision of the latest topology.
    fn revision(&self) -> Option<u64> {
        self.latest.load().as_ref().map(|map| map.topology.revision)
    }

    /// Waits for a topology newer than `revision`; with `None`, for any.
    async fn after(&self, revision: Option<u64>) -> Arc<ClusterMap> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Before the check, so that no change between check and wait is missed.
            changed.as_mut().enable();
            if let Some(map) = self.latest().filter(|map| Some(map.topology.revision) > revision) {
                return map;
            }
            changed.await;
        }
    }

    /// Waits for a topology newer than `revision`.
    pub async fn newer_than(&self, revision: u64) -> Arc<ClusterMap> {
        let map = self.after(Some(revision)).await;
        assert!(map.topology.revision > revision, "the revision of a feed only grows");
        map
    }

    /// Waits for the first topology.
    pub async fn first(&self) -> Arc<ClusterMap> {
        self.after(None).await
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::topology::ClusterInfo;

    use super::*;

    fn topology(cluster: u128, revision: u64) -> Arc<Topology> {
        let cluster = ClusterInfo { id: ClusterId(cluster), hash_key: [0; 16], replicas: 1, shards: 1 };
        let topology = Topology {
            revision,
            cluster,
            nodes: vec![],
            shards: vec![],
            topology_replicas: vec![],
            moves: vec![],
            paused: false,
        };
        Arc::new(topology)
    }

    #[tokio::test]
    async fn only_newer_topologies_of_the_own_cluster_are_taken() {
        let feed = TopologyFeed::new(ClusterId(1));
        feed.offer(topology(2, 9));
        assert!(feed.latest().is_none());
        feed.offer(topology(1, 5));
        feed.offer(topology(1, 4));
        assert_eq!(feed.first().await.topology.revision, 5);
        let waiting = feed.newer_than(5);
        feed.offer(topology(1, 6));
        assert_eq!(waiting.await.topology.revision, 6);
    }
}
