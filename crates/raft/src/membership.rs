//! Membership and leadership changes of a group, executed by the replica that leads it.
//!
//! Each order is one step of the reconciler, bounded in time, and harmless if it was executed
//! before. Its effect shows in the leader's next report.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::{ClientWriteResponse, Precondition};
use openraft::{ChangeMembers, LinearizerOption};
use quorate_types::ReplicaId;
use quorate_types::report::{Follower, OrderKind, ReplicaReport, SUCCESSOR_LAG_MAX};
use tokio::time::Instant;

use crate::convert;
use crate::core::Core;
use crate::error::OrderError;
use crate::openraft_types::{Fatal, NodeRef, TypeConfig};
use crate::soft_state::SoftStateCell;

/// Pause between two looks at the group's leader.
const POLL: Duration = Duration::from_millis(5);
/// A follower counts as responsive if it acknowledged a heartbeat within this many milliseconds.
const ANSWERS_MS_MAX: u64 = 1_000;

/// The members of one group, as one replica sees and changes them.
pub(crate) struct Members<'a> {
    core: &'a Core,
    soft_state: &'a SoftStateCell,
}

impl<'a> Members<'a> {
    pub(crate) fn new(core: &'a Core, soft_state: &'a SoftStateCell) -> Self {
        Members { core, soft_state }
    }

    /// The replica's report to the reconciler; a leader reports its followers too.
    pub(crate) fn report(&self) -> ReplicaReport {
        let Core { group, replica, raft, log, progress, .. } = self.core;
        let log = log.state(*replica).unwrap_or_default();
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let acked = metrics.heartbeat.as_ref();
        let answers = |id: &u64| {
            let last = acked.and_then(|acked| acked.get(id)).and_then(|time| time.as_ref());
            last.is_some_and(|time| time.elapsed() < Duration::from_millis(ANSWERS_MS_MAX))
        };
        let others = metrics.replication.iter().flatten().filter(|(id, _)| **id != replica.0);
        ReplicaReport {
            group: *group,
            replica: *replica,
            role: convert::role(metrics.state),
            term: metrics.vote.leader_id.term,
            last_index: log.last.map_or(0, |last| last.index),
            members: convert::our_stored_membership(&metrics.membership_config),
            applied_members: progress.applied().snapshot_meta().membership,
            others: others
                .map(|(id, matched)| Follower {
                    replica: ReplicaId(*id),
                    matched_index: matched.as_ref().map_or(0, |matched| matched.index),
                    answers: answers(id),
                    snapshot_failure: None,
                })
                .collect(),
        }
    }

    /// Executes an order of the reconciler, at most `within`.
    pub(crate) async fn execute(&self, order: OrderKind, within: Duration) -> Result<(), OrderError> {
        let executed = async {
            match order {
                OrderKind::AddLearner(at) => {
                    // Not waited for: the reports show its progress.
                    changed(self.core.raft.add_learner(at.replica.0, NodeRef(at.node), false).await)
                }
                OrderKind::RemoveLearner(id) => self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id.0]))).await,
                OrderKind::ChangeVoters { add, remove, seen } => {
                    let add = add.map(|id| ChangeMembers::AddVoterIds(BTreeSet::from([id.0])));
                    let remove = remove.map(|id| ChangeMembers::RemoveVoters(BTreeSet::from([id.0])));
                    let both = ChangeMembers::Batch(add.into_iter().chain(remove).collect());
                    let unchanged =
                        Precondition::LastMembershipLogId { last_membership_log_id: Some(convert::log_id(seen)) };
                    changed(self.core.raft.change_membership_if(both, false, [unchanged]).await)
                }
                // A change of nothing makes openraft leave the joint configuration.
                OrderKind::FinishJoint => self.change(ChangeMembers::AddVoterIds(BTreeSet::new())).await,
                OrderKind::TransferLeader(to) => self.transfer_leader(to).await,
                OrderKind::ConfirmAbsent(id) => self.confirm_absent(id, within).await,
            }
        };
        let late = |_| OrderError::Unknown(format!("not done within {} ms", within.as_millis()));
        tokio::time::timeout(within, executed).await.map_err(late)?
    }

    async fn change(&self, change: ChangeMembers<u64, NodeRef>) -> Result<(), OrderError> {
        changed(self.core.raft.change_membership(change, false).await)
    }

    /// Transfers leadership to a voter that can lead now. openraft never reverts a transfer: if the
    /// voter fails meanwhile, the group holds an election as after a leader crash.
    async fn transfer_leader(&self, to: ReplicaId) -> Result<(), OrderError> {
        self.check_successor(to)?;
        let raft = &self.core.raft;
        let unknown = |fatal: Fatal| OrderError::Unknown(fatal.to_string());
        let term = raft.metrics().borrow_watched().vote.leader_id.term;
        raft.trigger().transfer_leader(to.0).await.map_err(unknown)?;
        self.soft_state.begin_transfer(term);
        loop {
            let (leader, in_term) = {
                let metrics = raft.metrics();
                let metrics = metrics.borrow_watched();
                (metrics.current_leader, metrics.vote.leader_id.term)
            };
            match leader {
                Some(leader) if leader == self.core.replica.0 && in_term != term => {
                    return Err(OrderError::Unknown(format!("replica {leader} was elected again")));
                }
                Some(leader) if leader == to.0 => return Ok(()),
                Some(leader) if leader != self.core.replica.0 => {
                    return Err(OrderError::Unknown(format!("replica {leader} was elected instead of replica {to}")));
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Confirms that a replica is no member. A deposed leader may not know that the replica became
    /// one, so a quorum confirms this leader first, and the check uses the membership that is
    /// applied here after that.
    async fn confirm_absent(&self, id: ReplicaId, within: Duration) -> Result<(), OrderError> {
        let raft = &self.core.raft;
        let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(within);
        let linearizer = raft.get_read_linearizer(option).await;
        let linearizer = linearizer.map_err(|error| OrderError::Unknown(error.to_string()))?;
        linearizer.await_ready(raft).await.map_err(|fatal| OrderError::Unknown(fatal.to_string()))?;
        let ReplicaReport { members, applied_members, .. } = self.report();
        if members.at != applied_members.at {
            return Err(OrderError::Unknown("a change of the members is not committed yet".to_owned()));
        }
        if applied_members.members.nodes.contains_key(&id) {
            return Err(OrderError::Unknown(format!("replica {id} is a member")));
        }
        Ok(())
    }

    /// Refuses a successor that could not lead now.
    fn check_successor(&self, to: ReplicaId) -> Result<(), OrderError> {
        let report = self.report();
        let refused = |reason: String| Err(OrderError::Refused(reason));
        if !report.members.members.voters.iter().all(|voters| voters.contains(&to)) {
            return refused(format!("replica {to} has no vote"));
        }
        if to == self.core.replica {
            return refused(format!("replica {to} leads already"));
        }
        match report.others.iter().find(|other| other.replica == to) {
            Some(other) if !other.answers => refused(format!("replica {to} does not answer")),
            Some(other) if other.matched_index + SUCCESSOR_LAG_MAX < report.last_index => refused(format!(
                "replica {to} lacks {} entries; wait until it has caught up",
                report.last_index - other.matched_index
            )),
            Some(_) => Ok(()),
            None => refused(format!("replica {} does not lead", self.core.replica)),
        }
    }

    /// The first voter by id that has every entry and is responsive.
    fn successor(&self) -> Option<ReplicaId> {
        let report = self.report();
        let voters: BTreeSet<ReplicaId> = report.members.members.voters.iter().flatten().copied().collect();
        let able = report.others.iter().filter(|other| {
            voters.contains(&other.replica) && other.answers && other.matched_index == report.last_index
        });
        able.map(|other| other.replica).min()
    }

    /// Transfers leadership to any voter that can lead now. Returns whether this replica does not
    /// lead afterwards.
    pub(crate) async fn give_up_leadership(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.soft_state.lock().leads() && Instant::now() < deadline {
            let Some(to) = self.successor() else {
                tokio::time::sleep(POLL).await;
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if let Err(reason) = self.execute(OrderKind::TransferLeader(to), left).await {
                tracing::debug!(group = %self.core.group, %reason, "leadership not transferred");
                break;
            }
        }
        !self.soft_state.lock().leads()
    }
}

/// The result of a membership change. An error leaves the outcome unknown.
fn changed(
    result: Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>,
) -> Result<(), OrderError> {
    match result {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
            Err(OrderError::Unknown("it does not lead any more, or hears from no quorum".to_owned()))
        }
        Err(other) => Err(OrderError::Unknown(other.to_string())),
    }
}
