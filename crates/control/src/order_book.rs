//! The orders that one reconciler has sent: those in flight, and the results that planning needs.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::report::OrderKind;
use quorate_types::{GroupId, NodeId, ReplicaId};
use tokio::task::{JoinError, JoinSet};
use tracing::debug;

use crate::orders::ExecuteError;
use crate::peers::PeerError;

/// Why an order failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OrderFailure {
    /// A replica of this node did not execute it.
    #[error(transparent)]
    Here(#[from] ExecuteError),
    /// Another node did not execute it, or did not answer.
    #[error("node {node}: {error}")]
    At { node: NodeId, error: PeerError },
}

/// An executed or failed order.
pub(crate) struct Finished {
    pub(crate) group: GroupId,
    pub(crate) what: OrderKind,
    pub(crate) result: Result<(), OrderFailure>,
}

/// The orders that one reconciler has sent.
///
/// # Invariants
/// * At most one order of a group is in flight.
#[derive(Default)]
pub(crate) struct OrderBook {
    in_flight: JoinSet<Finished>,
    groups: BTreeSet<GroupId>,
    /// Replicas that the leader of their group confirmed to be no members, after their moves were
    /// cancelled.
    absent: BTreeSet<ReplicaId>,
    /// Why the last order of a group failed, until one succeeds.
    failures: BTreeMap<GroupId, OrderFailure>,
}

impl OrderBook {
    /// Whether an order of the group is in flight.
    pub(crate) fn is_in_flight(&self, group: GroupId) -> bool {
        self.groups.contains(&group)
    }

    /// Runs an order of a group that has none in flight.
    pub(crate) fn send(&mut self, group: GroupId, order: impl Future<Output = Finished> + Send + 'static) {
        assert!(self.groups.insert(group), "one order of a group is in flight at a time");
        self.in_flight.spawn(order);
        assert!(self.groups.len() <= self.in_flight.len(), "every group in flight has its task");
    }

    /// Waits until an order ends. Never ready while none is in flight.
    pub(crate) async fn next(&mut self) -> Option<Finished> {
        match self.in_flight.join_next().await {
            Some(joined) => self.close(joined),
            None => std::future::pending().await,
        }
    }

    /// An order that has ended, without waiting. `None`: no order has ended. `Some(None)`: one
    /// ended without a result.
    pub(crate) fn try_next(&mut self) -> Option<Option<Finished>> {
        let joined = self.in_flight.try_join_next()?;
        Some(self.close(joined))
    }

    fn close(&mut self, joined: Result<Finished, JoinError>) -> Option<Finished> {
        let finished = match joined {
            Ok(finished) => finished,
            Err(ended) => {
                // The task does not say which order it was: orders may be sent twice.
                debug!(%ended, "an order ended without a result");
                self.groups.clear();
                return None;
            }
        };
        self.groups.remove(&finished.group);
        match &finished.result {
            Ok(()) => {
                self.failures.remove(&finished.group);
                if let OrderKind::ConfirmAbsent(replica) = finished.what {
                    self.absent.insert(replica);
                }
            }
            Err(failure) => {
                self.failures.insert(finished.group, failure.clone());
            }
        }
        Some(finished)
    }

    /// Whether the replica was confirmed to be no member of its group.
    pub(crate) fn is_absent(&self, replica: ReplicaId) -> bool {
        self.absent.contains(&replica)
    }

    /// Why the last orders failed, of the groups that `is_moving` selects; other failures are
    /// forgotten.
    pub(crate) fn failures(&mut self, is_moving: impl Fn(GroupId) -> bool) -> BTreeMap<GroupId, String> {
        self.failures.retain(|group, _| is_moving(*group));
        self.failures.iter().map(|(group, failure)| (*group, failure.to_string())).collect()
    }
}
