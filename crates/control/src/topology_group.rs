//! This node's replica of the topology group.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use quorate_machine::state::View;
use quorate_raft::{Groups, OpenError, Replica};
use quorate_topology::{Published, TopologyMachine};
use quorate_types::{GroupId, ReplicaId};

use crate::feed::TopologyFeed;

/// This node's replica of the topology group, if it has one open.
#[derive(Default)]
pub(crate) struct TopologyGroup(ArcSwapOption<Replica>);

impl TopologyGroup {
    /// Opens the replica; `feed` receives the topologies that it applies.
    pub(crate) async fn open(
        &self,
        groups: &Groups,
        feed: Arc<TopologyFeed>,
        replica: ReplicaId,
    ) -> Result<(), OpenError> {
        let published = Published::new(move |topology| feed.offer(topology));
        let open = move |replica, view: &dyn View| TopologyMachine::open(replica, view, published.clone());
        let opened = groups.open(GroupId::TOPOLOGY, replica, open).await?;
        assert_eq!(opened.id(), replica, "a group is opened as the replica that was asked for");
        self.0.store(Some(opened));
        Ok(())
    }

    /// The replica, if it is open.
    pub(crate) fn get(&self) -> Option<Arc<Replica>> {
        self.0.load_full()
    }

    /// Drops the handle to the replica.
    pub(crate) fn close(&self) {
        self.0.store(None);
    }
}
