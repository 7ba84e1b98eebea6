//! The state machine: pure code that applies committed entries to a replica's state.
//!
//! ```text
//!   entries ─→ Replica<M> ── per entry ─→ M::apply(at, proposal, Draft) ─→ replies
//!                  │                          Draft: reads see the state and everything earlier in the batch
//!                  └─ one Batch: all changes + Head (applied index, revision, clock, arc) [+ membership]
//! ```
//!
//! Applying is deterministic: no clock, no randomness, no map iteration order. A refusal is a reply; whatever else goes wrong
//! stops the node.
//! Read `draft` next, then `replica`, then `kv`, the machine of a shard.

use bytes::Bytes;
use quorate_types::{LogId, Outcome, topology};

use crate::draft::Draft;
use crate::state::StateError;

/// What a group's log means. Implemented by the shards' key-value machine and by the topology's. Instances are made by the
/// closure that [`Replica::open`] gets, from the replica's state, so that a machine may hold handles to what is outside.
///
/// # To be correct
/// * Everything that later answers depend on is in the state, through the [`Draft`]: after a crash or a snapshot the machine is
///   opened again from the state alone. What it keeps in memory beside it is a cache of that.
/// * `apply` gives the same replies and the same changes on every replica, whatever the grouping of entries into batches.
pub trait Machine: Send + Sync + 'static {
    /// Applies the proposal of the entry at `at`. An error is corruption and stops the node.
    fn apply(&mut self, at: LogId, proposal: &Bytes, draft: &mut Draft<'_>) -> Result<Reply, StateError>;

    /// Called after every batch, when readers of the state see what was applied: the place to publish it. It must be short.
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
    /// From a shard: one outcome per command, in the order of the commands.
    Shard(Vec<Outcome>),
    /// From the topology group.
    Topology(topology::Outcome),
}

impl Reply {
    /// The outcomes of a shard's proposal. Panics on a reply of the topology group: the group that a proposal went to decides
    /// which machine replied.
    pub fn into_shard(self) -> Vec<Outcome> {
        match self {
            Reply::Shard(outcomes) => outcomes,
            Reply::Topology(outcome) => {
                unreachable!("a shard replied with an outcome of the topology group: {outcome:?}")
            }
        }
    }

    /// The outcome of a proposal to the topology group. Panics on a reply of a shard: the group that a proposal went to decides
    /// which machine replied.
    pub fn into_topology(self) -> topology::Outcome {
        match self {
            Reply::Topology(outcome) => outcome,
            Reply::Shard(outcomes) => unreachable!("the topology group replied with outcomes of a shard: {outcomes:?}"),
        }
    }
}
