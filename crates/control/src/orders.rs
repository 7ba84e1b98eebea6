//! The receiving side of the reconciler's orders and report requests.

use std::time::Duration;

use quorate_raft::OrderError;
use quorate_testpoints::fail_point;
use quorate_types::report::{NodeReport, Order};
use tracing::{Instrument, info_span};

use crate::fail_points;
use crate::peers::PeerError;
use crate::plane::Plane;
use crate::term_gate::Deposed;

/// How long a node works on an order.
pub const ORDER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an order was not executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// A deposed reconciler sent the order: nothing was done.
    #[error(transparent)]
    Deposed(#[from] Deposed),
    /// The replica refused the order, or its outcome is unknown.
    #[error(transparent)]
    Order(#[from] OrderError),
}

impl From<ExecuteError> for PeerError {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::Deposed(_) | ExecuteError::Order(OrderError::Refused(_)) => {
                PeerError::Refused(error.to_string())
            }
            ExecuteError::Order(OrderError::Unknown(reason)) => PeerError::Unanswered(reason),
        }
    }
}

/// This node's report. A node that is about to stop reports no uptime: like a node that has just
/// started, it is given no leadership.
pub fn own_report(plane: &Plane) -> NodeReport {
    let vitals = plane.host.vitals();
    NodeReport {
        node: plane.store.identity.node,
        uptime_ms: if vitals.is_stopping { 0 } else { vitals.uptime_ms },
        disk_free_bytes: vitals.disk_free_bytes,
        disk_room_bytes: vitals.disk_room_bytes,
        disk_full: vitals.disk_full,
        foreground: plane.foreground.state(),
        replicas: plane.store.groups.reports(),
    }
}

/// Executes an order of the reconciler at the replica that leads the group here.
pub async fn execute(plane: &Plane, order: &Order) -> Result<(), ExecuteError> {
    plane.terms.accept(order.term)?;
    let points = fail_points::of_order(order.what);
    fail_point(points.received);
    let span = info_span!("order", node = %plane.store.identity.node, group = %order.group, topology_term = order.term);
    let executed = plane.store.groups.execute(order.group, order.what, ORDER_TIMEOUT).instrument(span).await;
    fail_point(points.done);
    Ok(executed?)
}
