//! The receiving side of the reconciler's orders and report requests.

use std::time::Duration;

use quorate_raft::OrderError;
use quorate_testpoints::fail_point;
use quorate_types::report::{NodeReport, Order, OrderKind};
use tracing::{Instrument, info_span};

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

/// This node's report. A node that is about to stop reports no uptime: like a node that has just
/// started, it is given no leadership.
pub fn own_report(plane: &Plane) -> NodeReport {
    let vitals = plane.host.vitals();
    NodeReport {
        node: plane.store.identity.node,
        uptime_ms: if vitals.is_stopping { 0 } else { vitals.uptime_ms },
        disk_free_bytes: vitals.disk_free_bytes,
        disk_full: vitals.disk_full,
        foreground: plane.foreground.state(),
        replicas: plane.store.groups.reports(),
    }
}

/// Executes an order of the reconciler at the replica that leads the group here.
pub async fn execute(plane: &Plane, order: &Order) -> Result<(), ExecuteError> {
    plane.terms.accept(order.term)?;
    let points = FailPoints::of(order.what);
    fail_point(points.received);
    let span = info_span!("order", node = %plane.store.identity.node, group = %order.group, term = order.term);
    let executed = plane.store.groups.execute(order.group, order.what, ORDER_TIMEOUT).instrument(span).await;
    fail_point(points.done);
    Ok(executed?)
}

/// The crash points around an order: before it is sent, when it is received, after it was executed.
pub(crate) struct FailPoints {
    pub(crate) planned: &'static str,
    received: &'static str,
    done: &'static str,
}

impl FailPoints {
    pub(crate) const fn of(what: OrderKind) -> Self {
        let (planned, received, done) = match what {
            OrderKind::AddLearner(_) => ("add-learner-planned", "add-learner-received", "add-learner-done"),
            OrderKind::RemoveLearner(_) => ("remove-learner-planned", "remove-learner-received", "remove-learner-done"),
            OrderKind::ChangeVoters { .. } => ("change-voters-planned", "change-voters-received", "change-voters-done"),
            OrderKind::FinishJoint => ("finish-joint-planned", "finish-joint-received", "finish-joint-done"),
            OrderKind::TransferLeader(_) => {
                ("transfer-leader-planned", "transfer-leader-received", "transfer-leader-done")
            }
            OrderKind::ConfirmAbsent(_) => ("confirm-absent-planned", "confirm-absent-received", "confirm-absent-done"),
        };
        FailPoints { planned, received, done }
    }
}
