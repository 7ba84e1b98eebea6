//! The state machine: pure code that applies committed entries to a replica's state.
//!
//! ```text
//!   entries ─→ ReplicaState<M> ── per entry ─→ M::apply(at, proposal, Draft) ─→ replies
//!                  │                      Draft: the state plus all earlier changes of the batch
//!                  └─ one Batch: all changes + Head (applied index, revision, clock, arc)
//!                                [+ membership]
//! ```
//!
//! Applying is deterministic: no clock, no randomness, no map iteration order. A refusal is a
//! reply; every other failure stops the node. Read `draft` next, then `replica_state`, then `kv`,
//! the machine of a shard.

use bytes::Bytes;
use quorate_types::{LogId, Outcome, topology};

use crate::draft::Draft;
use crate::state::StateError;

/// The meaning of a group's log: a shard's key-value machine or the topology's. The closure passed
/// to [`ReplicaState::open`](crate::ReplicaState::open) creates the instances from the replica's
/// state, so a machine may hold handles to the outside.
///
/// # To be correct
/// * All state that later replies depend on must go through the [`Draft`]: after a crash or a
///   snapshot, the machine is opened from the state alone. Its fields are only a cache of the
///   state.
/// * `apply` returns the same replies and makes the same changes on every replica, regardless of
///   the grouping of entries into batches.
pub trait Machine: Send + Sync + 'static {
    /// Applies the proposal of the entry at `at`. An error is corruption and stops the node.
    fn apply(&mut self, at: LogId, proposal: &Bytes, draft: &mut Draft<'_>) -> Result<Reply, StateError>;

    /// Called after every batch, once its changes are visible to readers; the place to publish
    /// them. Must be short.
    fn written(&mut self) {}
}

impl Machine for Box<dyn Machine> {
    fn apply(&mut self, at: LogId, proposal: &Bytes, draft: &mut Draft<'_>) -> Result<Reply, StateError> {
        (**self).apply(at, proposal, draft)
    }

    fn written(&mut self) {
        (**self).written();
    }
}

/// The reply of a state machine to one proposal. It is returned to the proposer and never stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// From a shard: one outcome per command, in command order.
    Shard(Vec<Outcome>),
    /// From the topology group.
    Topology(topology::Outcome),
}

impl Reply {
    /// The outcomes of a shard's proposal. Panics on a reply of the topology group, because the
    /// proposal's group determines the machine that replied.
    pub fn into_shard(self) -> Vec<Outcome> {
        match self {
            Reply::Shard(outcomes) => outcomes,
            Reply::Topology(outcome) => {
                unreachable!("a shard replied with an outcome of the topology group: {outcome:?}")
            }
        }
    }

    /// The outcome of a proposal to the topology group. Panics on a reply of a shard, because the
    /// proposal's group determines the machine that replied.
    pub fn into_topology(self) -> topology::Outcome {
        match self {
            Reply::Topology(outcome) => outcome,
            Reply::Shard(outcomes) => unreachable!("the topology group replied with outcomes of a shard: {outcomes:?}"),
        }
    }
}
