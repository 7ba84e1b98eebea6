//! Membership and leadership changes of a group, executed by the replica that leads it.
//!
//! Each order is one step of the reconciler, bounded in time, and harmless if it was executed
//! before. Its effect shows in the leader's next report.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::Precondition;
use openraft::{ChangeMembers, LinearizerOption};
use quorate_types::ReplicaId;
use quorate_types::report::{OrderKind, ReplicaReport};
use tracing::{Instrument, info_span};

use super::Replica;
use super::leadership::transfer_leader;
use crate::convert;
use crate::error::OrderError;
use crate::openraft_types::{NodeRef, WriteError};

impl Replica {
    /// Executes an order of the reconciler, at most `within`.
    pub(crate) async fn execute(&self, order: OrderKind, within: Duration) -> Result<(), OrderError> {
        let span = info_span!("order", node = %self.core.node, group = %self.group(), replica = %self.id(), term = self.soft_state.lock().term);
        let raft = &self.core.raft;
        let executed = async {
            match order {
                OrderKind::AddLearner(at) => {
                    // Not waited for: the reports show its progress.
                    changed(raft.add_learner(at.replica.0, NodeRef(at.node), false).await)
                }
                OrderKind::RemoveLearner(id) => {
                    changed(raft.change_membership(ChangeMembers::RemoveNodes(BTreeSet::from([id.0])), false).await)
                }
                OrderKind::ChangeVoters { add, remove, seen } => {
                    let add = add.map(|id| ChangeMembers::AddVoterIds(BTreeSet::from([id.0])));
                    let remove = remove.map(|id| ChangeMembers::RemoveVoters(BTreeSet::from([id.0])));
                    let both = ChangeMembers::Batch(add.into_iter().chain(remove).collect());
                    let unchanged =
                        Precondition::LastMembershipLogId { last_membership_log_id: Some(convert::log_id(seen)) };
                    changed(raft.change_membership_if(both, false, [unchanged]).await)
                }
                // A change of nothing makes openraft leave the joint configuration.
                OrderKind::FinishJoint => {
                    changed(raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::new()), false).await)
                }
                OrderKind::TransferLeader(to) => transfer_leader(self, to).await,
                OrderKind::ConfirmAbsent(id) => confirm_absent(self, id, within).await,
            }
        };
        let done = tokio::time::timeout(within, executed.instrument(span)).await;
        done.map_err(|_late| OrderError::late(within))?
    }
}

/// Confirms that a replica is no member. A deposed leader may not know that the replica became
/// one, so a quorum confirms this leader first, and the check uses the membership that is
/// applied here after that.
async fn confirm_absent(replica: &Replica, id: ReplicaId, within: Duration) -> Result<(), OrderError> {
    let raft = &replica.core.raft;
    let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(within);
    let linearizer = raft.get_read_linearizer(option).await;
    let linearizer = linearizer.map_err(|error| OrderError::Unknown(error.to_string()))?;
    linearizer.await_ready(raft).await.map_err(|fatal| OrderError::Unknown(fatal.to_string()))?;
    let ReplicaReport { members, applied_members, .. } = replica.report();
    if members.at != applied_members.at {
        return Err(OrderError::Unknown("a change of the members is not committed yet".to_owned()));
    }
    if applied_members.members.nodes.contains_key(&id) {
        return Err(OrderError::Unknown(format!("replica {id} is a member")));
    }
    Ok(())
}

/// The result of a membership change. An error leaves the outcome unknown.
fn changed<T>(result: Result<T, WriteError>) -> Result<(), OrderError> {
    match result {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
            Err(OrderError::Unknown("it no longer leads, or no quorum answers".to_owned()))
        }
        Err(other) => Err(OrderError::Unknown(other.to_string())),
    }
}
