//! The newest topology that this node knows, from its own replica of the topology group or from
//! another node.

use std::collections::HashMap;
use std::sync::Arc;

use quorate_types::topology::{ShardInfo, Topology};
use quorate_types::{ClusterId, ShardId};
use tokio::sync::watch;
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
    latest: watch::Sender<Option<Arc<ClusterMap>>>,
}

impl TopologyFeed {
    /// An empty feed.
    pub fn new(cluster: ClusterId) -> Self {
        TopologyFeed { cluster, latest: watch::Sender::new(None) }
    }

    /// Takes a topology if it is newer than the latest one. Never blocks: it is called while
    /// entries are applied.
    pub fn offer(&self, topology: Arc<Topology>) {
        if topology.cluster.id != self.cluster {
            error!(own = %self.cluster, other = %topology.cluster.id, "topology of another cluster ignored");
            return;
        }
        self.latest.send_if_modified(|latest| {
            let newer = latest.as_ref().is_none_or(|map| topology.revision > map.topology.revision);
            if newer {
                info!(revision = topology.revision, "topology");
                *latest = Some(Arc::new(ClusterMap::new(topology)));
            }
            newer
        });
    }

    /// The latest topology; none while the cluster is being bootstrapped.
    pub fn latest(&self) -> Option<Arc<ClusterMap>> {
        self.latest.borrow().clone()
    }

    /// A receiver of every newer topology.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<ClusterMap>>> {
        self.latest.subscribe()
    }

    /// Waits for a topology newer than `revision`.
    pub async fn newer_than(&self, revision: u64) -> Arc<ClusterMap> {
        let mut changes = self.latest.subscribe();
        let newer = |map: &Option<Arc<ClusterMap>>| map.as_ref().is_some_and(|map| map.topology.revision > revision);
        let map = changes.wait_for(newer).await.expect("the feed that is borrowed here holds the sender");
        map.clone().expect("the condition just held")
    }

    /// Waits for the first topology.
    pub async fn first(&self) -> Arc<ClusterMap> {
        let mut changes = self.latest.subscribe();
        let map = changes.wait_for(Option::is_some).await.expect("the feed that is borrowed here holds the sender");
        map.clone().expect("the condition just held")
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
