//! The topology group's machine: the cluster state over a replica's records.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use quorate_machine::keys::Space;
use quorate_machine::state::{StateError, View};
use quorate_machine::{Draft, Machine, Reply};
use quorate_types::topology::Command;
use quorate_types::{LogId, ReplicaId};

use crate::keys;
use crate::publish::Published;
use crate::record::{Change, Record};
use crate::state::ClusterState;

/// The state machine of the topology group. A proposal is one encoded [`Command`], and its reply an
/// [`Outcome`](quorate_types::topology::Outcome).
///
/// # Invariants
/// * The cluster state in memory equals the records, with the changes of the batch that is being
///   applied.
/// * A topology is published only after its batch is in the state.
#[derive(Debug)]
pub struct TopologyMachine {
    cluster: ClusterState,
    published: Arc<Published>,
}

impl TopologyMachine {
    /// Reads the machine from a replica's state and publishes its topology if the cluster is
    /// bootstrapped. Call it in the closure given to `quorate_machine::ReplicaState::open`, with
    /// one `published` for the whole life of the replica.
    pub fn open(replica: ReplicaId, view: &dyn View, published: Arc<Published>) -> Result<Self, StateError> {
        let mut machine = TopologyMachine { cluster: read_cluster(view, replica)?, published };
        machine.written();
        Ok(machine)
    }

    /// The cluster state as applied.
    pub fn cluster(&self) -> &ClusterState {
        &self.cluster
    }
}

impl Machine for TopologyMachine {
    fn apply(&mut self, _at: LogId, proposal: &Bytes, draft: &mut Draft<'_>) -> Result<Reply, StateError> {
        let replica = draft.replica();
        let command = Command::decode(proposal).map_err(|source| StateError::Corrupt { replica, source })?;
        let (outcome, changes) = self.cluster.apply(&command);
        for change in changes {
            match change {
                Change::Put(record) => draft.put(Space::Table, record.key(), record.encode()),
                Change::ForgetMove(group) => draft.delete(Space::Table, keys::moving(group)),
                Change::ForgetOperation(id) => draft.delete(Space::Table, keys::operation(id)),
            }
        }
        draft.head_mut().revision = self.cluster.counters().revision;
        Ok(Reply::Topology(outcome))
    }

    fn written(&mut self) {
        let published = self.published.latest().map(|topology| topology.revision);
        if published >= Some(self.cluster.counters().revision) {
            return;
        }
        if let Some(topology) = self.cluster.topology() {
            self.published.publish(topology);
        }
    }
}

/// The cluster state that a replica of the topology group has applied. An error is corruption or
/// failed I/O: the node stops.
pub fn read_cluster(view: &dyn View, replica: ReplicaId) -> Result<ClusterState, StateError> {
    let mut records = Ok(Vec::new());
    view.scan(replica, Space::Table, &[], &mut |key, value| {
        let Ok(read) = &mut records else { return ControlFlow::Break(()) };
        match Record::decode(key, value) {
            Ok(record) => read.push(record),
            Err(source) => records = Err(StateError::Corrupt { replica, source }),
        }
        ControlFlow::Continue(())
    })?;
    Ok(ClusterState::from_records(records?))
}
