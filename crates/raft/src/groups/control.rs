//! The groups as the control plane sees them: reports, and orders of the reconciler.

use std::time::Duration;

use quorate_types::report::{OrderKind, ReplicaReport};
use quorate_types::state::StoredMembership;
use quorate_types::{GroupId, ReplicaId, Role};

use super::Groups;
use crate::error::OrderError;
use crate::replica::status::ReplicaStatus;

impl Groups {
    /// Role and progress of every replica, by group.
    pub fn statuses(&self) -> Vec<ReplicaStatus> {
        let mut statuses: Vec<_> = self.shared.replicas.all().iter().map(|replica| replica.status()).collect();
        // A member that receives a snapshot confirms nothing until it has all of it.
        let sends = |group| self.shared.opener.snapshots.is_sending(group);
        statuses.iter_mut().filter(|status| sends(status.group)).for_each(|status| status.stalled.clear());
        statuses.sort_by_key(|status| status.group);
        statuses
    }

    /// Whether a snapshot of any replica is being written or sent.
    pub fn are_sending_snapshots(&self) -> bool {
        self.shared.opener.snapshots.is_sending_any()
    }

    /// The reports of all replicas to the reconciler.
    pub fn reports(&self) -> Vec<ReplicaReport> {
        let mut reports: Vec<_> = self.shared.replicas.all().iter().map(|replica| replica.report()).collect();
        self.shared.opener.snapshots.explain_failures(&mut reports);
        reports.extend(self.doubtful().into_iter().map(|(replica, group)| doubtful_report(group, replica)));
        reports
    }

    /// Executes an order of the reconciler at this node's replica of the group, at most `within`.
    pub async fn execute(&self, group: GroupId, order: OrderKind, within: Duration) -> Result<(), OrderError> {
        match self.shared.replicas.of_group(group) {
            Some(replica) => replica.execute(order, within).await,
            None => Err(OrderError::Refused(format!("no replica of group {group} is here"))),
        }
    }
}

/// The report of a doubtful replica: it knows nothing that counts.
fn doubtful_report(group: GroupId, replica: ReplicaId) -> ReplicaReport {
    ReplicaReport {
        group,
        replica,
        role: Role::Stopped,
        term: 0,
        last_index: 0,
        members: StoredMembership::default(),
        applied_members: StoredMembership::default(),
        doubtful: true,
        others: Vec::new(),
        bytes: 0,
    }
}
