//! How a group's members change, told to the replica that leads it. Each order is one step of the reconciler's, harmless when it
//! is done already, and bounded in time; what came of it shows in the next report.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::BoxFuture;
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::Precondition;
use openraft::{ChangeMembers, LinearizerOption};
use quorate_machine::Machine;
use quorate_types::ReplicaId;
use quorate_types::report::{Follower, OrderKind, ReplicaReport, SUCCESSOR_LAG_MAX};
use tokio::time::Instant;

use crate::convert;
use crate::group::Inner;
use crate::openraft_types::{Fatal, NodeRef, TypeConfig};

/// How often the wait for another leader looks again.
const POLL: Duration = Duration::from_millis(5);
/// A follower that answered within this many milliseconds counts as one that answers.
const ANSWERS_MS_MAX: u64 = 1_000;

/// Why an order was not seen to be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Nothing was begun, and nothing is changed.
    #[error("{0}")]
    Refused(String),
    /// It may have begun: it may still come true, or have come to another end.
    #[error("{0}")]
    Unknown(String),
}

impl<M: Machine> Inner<M> {
    /// What the replica says of itself, and, where it leads, of the others.
    pub(crate) fn reports(&self) -> ReplicaReport {
        let log = self.log.state(self.replica).unwrap_or_default();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let acked = metrics.heartbeat.as_ref();
        let answers = |id: &u64| {
            let last = acked.and_then(|acked| acked.get(id)).and_then(|time| time.as_ref());
            last.is_some_and(|time| time.elapsed() < Duration::from_millis(ANSWERS_MS_MAX))
        };
        let others = metrics.replication.iter().flatten().filter(|(id, _)| **id != self.replica.0);
        ReplicaReport {
            group: self.group,
            replica: self.replica,
            role: convert::role(metrics.state),
            term: metrics.vote.leader_id.term,
            last_index: log.last.map_or(0, |last| last.index),
            members: convert::our_stored_membership(&metrics.membership_config),
            applied_members: self.progress.applied().snapshot_meta().membership,
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

    /// Does what the reconciler orders, or says why it could not, at most `within`.
    pub(crate) fn execute_order(&self, what: OrderKind, within: Duration) -> BoxFuture<'_, Result<(), OrderError>> {
        Box::pin(async move {
            let executed = async {
                let done = match what {
                    OrderKind::AddLearner(at) => {
                        // Not waited for: how far it is shows in the reports.
                        self.change(self.raft.add_learner(at.replica.0, NodeRef(at.node), false)).await
                    }
                    OrderKind::RemoveLearner(id) => {
                        let gone = ChangeMembers::RemoveNodes(BTreeSet::from([id.0]));
                        self.change(self.raft.change_membership(gone, false)).await
                    }
                    OrderKind::ChangeVoters { add, remove, seen } => {
                        let add = add.map(|id| ChangeMembers::AddVoterIds(BTreeSet::from([id.0])));
                        let remove = remove.map(|id| ChangeMembers::RemoveVoters(BTreeSet::from([id.0])));
                        let both = ChangeMembers::Batch(add.into_iter().chain(remove).collect());
                        let unchanged =
                            Precondition::LastMembershipLogId { last_membership_log_id: Some(convert::log_id(seen)) };
                        self.change(self.raft.change_membership_if(both, false, [unchanged])).await
                    }
                    OrderKind::FinishJoint => {
                        let nothing = ChangeMembers::AddVoterIds(BTreeSet::new());
                        self.change(self.raft.change_membership(nothing, false)).await
                    }
                    OrderKind::TransferLeader(to) => return self.transfer(to).await,
                    OrderKind::ConfirmAbsent(id) => self.confirm_absent(id, within).await,
                };
                done.map_err(OrderError::Unknown)
            };
            match tokio::time::timeout(within, executed).await {
                Ok(result) => result,
                Err(_) => Err(OrderError::Unknown(format!("not done within {} ms", within.as_millis()))),
            }
        })
    }

    async fn change<T>(
        &self,
        changing: impl Future<Output = Result<T, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>>,
    ) -> Result<(), String> {
        changing.await.map(drop).map_err(|error| match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
                "it does not lead any more, or hears from no quorum".to_owned()
            }
            other => other.to_string(),
        })
    }

    /// Hands leadership to a voter that can take it at once. openraft never takes a transfer back: if the voter fails after
    /// all, the group elects as it does when a leader dies.
    async fn transfer(&self, to: ReplicaId) -> Result<(), OrderError> {
        if let Some(reason) = self.cannot_lead(to) {
            return Err(OrderError::Refused(reason));
        }
        let unknown = |fatal: Fatal| OrderError::Unknown(fatal.to_string());
        let term = self.raft.metrics().borrow_watched().vote.leader_id.term;
        self.raft.trigger().transfer_leader(to.0).await.map_err(unknown)?;
        self.promise(term);
        loop {
            let (leader, in_term) = {
                let metrics = self.raft.metrics();
                let metrics = metrics.borrow_watched();
                (metrics.current_leader, metrics.vote.leader_id.term)
            };
            match leader {
                Some(leader) if leader == self.replica.0 && in_term != term => {
                    return Err(OrderError::Unknown(format!("replica {leader} was elected again")));
                }
                Some(leader) if leader == to.0 => return Ok(()),
                Some(leader) if leader != self.replica.0 => {
                    return Err(OrderError::Unknown(format!("replica {leader} was elected instead of replica {to}")));
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// A leader of old may not know yet that somebody else made the replica a member. So a quorum confirms this one first, and
    /// what it had committed by then is applied here: that membership is looked at.
    async fn confirm_absent(&self, id: ReplicaId, within: Duration) -> Result<(), String> {
        let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(within);
        let linearizer = self.raft.get_read_linearizer(option).await.map_err(|error| error.to_string())?;
        linearizer.await_ready(&self.raft).await.map_err(|fatal| fatal.to_string())?;
        let ReplicaReport { members, applied_members, .. } = self.reports();
        if members.at != applied_members.at {
            return Err("a change of the members is not committed yet".to_owned());
        }
        match applied_members.members.nodes.contains_key(&id) {
            true => Err(format!("replica {id} is a member")),
            false => Ok(()),
        }
    }

    fn cannot_lead(&self, to: ReplicaId) -> Option<String> {
        let report = self.reports();
        if !report.members.members.voters.iter().all(|voters| voters.contains(&to)) {
            return Some(format!("replica {to} has no vote"));
        }
        if to == self.replica {
            return Some(format!("replica {to} leads already"));
        }
        match report.others.iter().find(|other| other.replica == to) {
            Some(other) if !other.answers => Some(format!("replica {to} does not answer")),
            Some(other) if other.matched_index + SUCCESSOR_LAG_MAX < report.last_index => Some(format!(
                "replica {to} lacks {} entries; wait until it has caught up",
                report.last_index - other.matched_index
            )),
            Some(_) => None,
            None => Some(format!("replica {} does not lead", self.replica)),
        }
    }

    /// A voter that has every entry and answered a moment ago.
    fn successor(&self) -> Option<ReplicaId> {
        let report = self.reports();
        let voters: BTreeMap<ReplicaId, ()> =
            report.members.members.voters.iter().flatten().map(|id| (*id, ())).collect();
        let able = report.others.iter().filter(|other| {
            voters.contains_key(&other.replica) && other.answers && other.matched_index == report.last_index
        });
        able.map(|other| other.replica).min()
    }

    /// Hands leadership to whoever can take it; true when another leads or nobody led here.
    pub(crate) async fn transfers_leadership(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.soft_state().role == quorate_types::Role::Leader && Instant::now() < deadline {
            let Some(to) = self.successor() else {
                tokio::time::sleep(POLL).await;
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if let Err(reason) = self.execute_order(OrderKind::TransferLeader(to), left).await {
                tracing::debug!(group = %self.group, %reason, "leadership not handed over");
                break;
            }
        }
        self.soft_state().role != quorate_types::Role::Leader
    }
}
