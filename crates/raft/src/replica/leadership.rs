//! Which replica leads: the one place where a request asks that, and leader transfers: to the
//! replica that the reconciler names, or to any when the node stops.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use quorate_types::report::{ReplicaReport, SUCCESSOR_LAG_MAX};
use quorate_types::{Rejection, ReplicaId};
use tokio::time::Instant;
use tracing::debug;

use super::Replica;
use crate::error::OrderError;
use crate::openraft_types::Fatal;

/// Pause between two looks at the group's leader.
const POLL: Duration = Duration::from_millis(5);

impl Replica {
    /// Waits until it is decided which replica leads, at most until `deadline`. Rejects the request
    /// if this replica does not.
    pub(crate) async fn until_leadership_is_decided(&self, deadline: Instant) -> Result<(), Rejection> {
        if !self.soft_state.lock().is_decided() {
            let mut changes = self.core.raft.server_metrics();
            let decided = async {
                loop {
                    self.refresh_soft_state();
                    if self.soft_state.lock().is_decided() || changes.changed().await.is_err() {
                        return;
                    }
                }
            };
            // Still undecided at the deadline: the request is rejected below, or by openraft during
            // a transfer.
            let _ = tokio::time::timeout_at(deadline, decided).await;
        }
        self.doubt.check()?;
        self.soft_state.lock().admit()
    }

    pub(super) fn refresh_soft_state(&self) {
        let metrics = self.core.raft.server_metrics();
        self.soft_state.refresh(&metrics.borrow_watched(), self.id());
    }

    /// Follows openraft until it stops. Returns the reason if it was not asked to.
    pub(crate) async fn until_core_stops(&self) -> Option<String> {
        let mut changes = self.core.raft.server_metrics();
        while changes.changed().await.is_ok() {
            self.refresh_soft_state();
        }
        self.soft_state.stop();
        let metrics = self.core.raft.metrics();
        match &metrics.borrow_watched().running_state {
            Err(Fatal::Stopped) => None,
            Err(fatal) => Some(fatal.to_string()),
            Ok(()) => Some("its core ended without a reason".to_owned()),
        }
    }

    /// Transfers leadership to any voter that can lead now. Returns whether this replica does not
    /// lead afterwards.
    pub(crate) async fn give_up_leadership(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.soft_state.lock().leads() && Instant::now() < deadline {
            let Some(to) = successor(&self.report()) else {
                tokio::time::sleep(POLL).await;
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let transferred = tokio::time::timeout(left, transfer_leader(self, to)).await;
            if let Err(reason) = transferred.unwrap_or_else(|_late| Err(OrderError::late(left))) {
                debug!(group = %self.core.group, %reason, "leadership not transferred");
                break;
            }
        }
        !self.soft_state.lock().leads()
    }
}

/// Transfers leadership to a voter that can lead now. openraft never reverts a transfer: if the
/// voter fails meanwhile, the group holds an election as after a leader crash.
pub(super) async fn transfer_leader(replica: &Replica, to: ReplicaId) -> Result<(), OrderError> {
    check_successor(&replica.report(), to)?;
    let raft = &replica.core.raft;
    let unknown = |fatal: Fatal| OrderError::Unknown(fatal.to_string());
    let term = raft.metrics().borrow_watched().vote.leader_id.term;
    raft.trigger().transfer_leader(to.0).await.map_err(unknown)?;
    replica.soft_state.begin_transfer(term);
    loop {
        let (leader, in_term) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.current_leader, metrics.vote.leader_id.term)
        };
        match leader {
            Some(leader) if leader == replica.core.replica.0 && in_term != term => {
                return Err(OrderError::Unknown(format!("replica {leader} was elected again")));
            }
            Some(leader) if leader == to.0 => return Ok(()),
            Some(leader) if leader != replica.core.replica.0 => {
                return Err(OrderError::Unknown(format!("replica {leader} was elected instead of replica {to}")));
            }
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

/// Refuses a successor that could not lead now.
fn check_successor(report: &ReplicaReport, to: ReplicaId) -> Result<(), OrderError> {
    let refused = |reason: String| Err(OrderError::Refused(reason));
    if !report.members.members.voters.iter().all(|voters| voters.contains(&to)) {
        return refused(format!("replica {to} has no vote"));
    }
    if to == report.replica {
        return refused(format!("replica {to} leads already"));
    }
    match report.others.iter().find(|other| other.replica == to) {
        Some(other) if !other.answers => refused(format!("replica {to} does not answer")),
        Some(other) if other.matched_index + SUCCESSOR_LAG_MAX < report.last_index => refused(format!(
            "replica {to} lacks {} entries; wait until it has caught up",
            report.last_index - other.matched_index
        )),
        Some(_) => Ok(()),
        None => refused(format!("replica {} does not lead", report.replica)),
    }
}

/// The first voter by id that has every entry and is responsive.
fn successor(report: &ReplicaReport) -> Option<ReplicaId> {
    let voters: BTreeSet<ReplicaId> = report.members.members.voters.iter().flatten().copied().collect();
    let able = report
        .others
        .iter()
        .filter(|other| voters.contains(&other.replica) && other.answers && other.matched_index == report.last_index);
    able.map(|other| other.replica).min()
}
