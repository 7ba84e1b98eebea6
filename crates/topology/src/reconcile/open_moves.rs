//! The moves that a running operation still needs.

use std::collections::BTreeSet;

use quorate_ring::{Move, MoveReason};
use quorate_types::ShardId;
use quorate_types::operation::{Intent, Operation, PlannedMove};

use super::reports::Reports;
use super::targets::redirect;
use crate::state::{ClusterState, plans};

/// The moves that an operation still needs, including those in motion.
pub(super) fn open_moves(
    cluster: &ClusterState,
    reports: &Reports,
    operation: &Operation,
    balancing: &[Move],
) -> Vec<PlannedMove> {
    let planned = |wanted: &Move| PlannedMove { shard: wanted.shard, from: wanted.from, to: wanted.to };
    match &operation.intent {
        Intent::Add { .. } => {
            // Balance does not undo the moves that an operator asked for by name.
            let named = named_shards(cluster);
            let even = balancing.iter().filter(|wanted| wanted.reason != MoveReason::Leaves);
            even.map(planned).filter(|planned| !named.contains(&planned.shard)).collect()
        }
        Intent::Drain { node } | Intent::Remove { node, .. } | Intent::Replace { old: node, .. } => {
            let prefer = match operation.intent {
                Intent::Replace { new, .. } => Some(new),
                _ => None,
            };
            let leaving = balancing.iter().filter(|wanted| wanted.from == *node).map(planned);
            leaving.map(|planned| redirect(cluster, reports, planned, prefer)).collect()
        }
        Intent::Undrain { .. } => Vec::new(),
        Intent::Move { .. } | Intent::Rebalance { .. } => {
            plans::pending(cluster, operation.intent.planned_moves()).collect()
        }
    }
}

/// The shards that running operations still move by name.
pub(super) fn named_shards(cluster: &ClusterState) -> BTreeSet<ShardId> {
    let running = cluster.running_operations();
    let pending = running.flat_map(|running| plans::pending(cluster, running.intent.planned_moves()));
    pending.map(|planned| planned.shard).collect()
}
