//! Soft state of a replica: its role and the leader it knows, cached from openraft's metrics
//! because every request reads them.
//!
//! It also decides when a request should wait. A request that is redirected during an election or a
//! leader transfer asks one replica after another, none of which leads, and backs off longer each
//! time. So it waits here for up to [`LEADER_WAIT_MAX`] while the leadership is undecided:
//!
//! ```text
//!   no leader known         an election is running, and this replica may win it
//!   transfer in progress    openraft accepts no more entries in this term, and the successor does
//!                           not lead yet
//!   this replica just won   openraft accepts no entry before a quorum has answered once
//! ```

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use openraft::errors::{ForwardReason, ForwardToLeader};
use openraft::metrics::RaftServerMetrics;
use quorate_types::{NodeId, Rejection, ReplicaId, Role};
use tokio::time::Instant;

use crate::convert;
use crate::openraft_types::TypeConfig;

/// The longest wait for an undecided leadership: a transfer takes tens of milliseconds on a busy
/// machine.
pub(crate) const LEADER_WAIT_MAX: Duration = Duration::from_millis(200);
/// Pause before a declined request is sent to openraft again: about the time a quorum takes to
/// answer.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// A replica's role in its group, as far as it knows.
#[derive(Clone, Debug)]
pub(crate) struct SoftState {
    pub(crate) role: Role,
    pub(crate) term: u64,
    /// When this role in this term began.
    pub(crate) since: Instant,
    pub(crate) leader: Option<NodeId>,
    pub(crate) voters: Vec<NodeId>,
    pub(crate) is_voter: bool,
    /// The term in which this replica gave its leadership to another one. openraft never reverts
    /// that.
    pub(crate) transferred_term: Option<u64>,
}

impl SoftState {
    fn unknown() -> Self {
        SoftState {
            role: Role::Learner,
            term: 0,
            since: Instant::now(),
            leader: None,
            voters: vec![],
            is_voter: false,
            transferred_term: None,
        }
    }

    pub(crate) fn leads(&self) -> bool {
        self.role == Role::Leader
    }

    /// Whether it is settled where a request must go: here, or to the leader known.
    pub(crate) fn is_decided(&self) -> bool {
        if self.leads() { self.transferred_term != Some(self.term) } else { self.leader.is_some() }
    }

    /// Accepts a request, or redirects it to the leader known.
    pub(crate) fn admit(&self) -> Result<(), Rejection> {
        if self.leads() { Ok(()) } else { Err(Rejection::NotLeader { leader: self.leader }) }
    }
}

/// The soft state of one replica, shared by its parts.
///
/// # Invariants
/// * The term never decreases.
pub(crate) struct SoftStateCell(Mutex<SoftState>);

impl SoftStateCell {
    pub(crate) fn new() -> Self {
        SoftStateCell(Mutex::new(SoftState::unknown()))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, SoftState> {
        self.0.lock().expect("only a broken invariant poisons this lock")
    }

    pub(crate) fn get(&self) -> SoftState {
        self.lock().clone()
    }

    /// Copies role, term, leader and voters from openraft's metrics.
    pub(crate) fn refresh(&self, metrics: &RaftServerMetrics<TypeConfig>, replica: ReplicaId) {
        let members = metrics.membership_config.membership();
        let leader = metrics.current_leader.as_ref().and_then(|leader| members.get_node(leader));
        let (role, term) = (convert::role(metrics.state), metrics.vote.leader_id.term);
        let mut soft_state = self.lock();
        assert!(term >= soft_state.term, "the term of a replica never decreases");
        if (soft_state.role, soft_state.term) != (role, term) {
            soft_state.since = Instant::now();
        }
        soft_state.role = role;
        soft_state.term = term;
        soft_state.leader = leader.map(|node_ref| node_ref.0);
        soft_state.voters = convert::voter_nodes(members);
        soft_state.is_voter = members.voter_ids().any(|id| id == replica.0);
    }

    /// Records that openraft began a leader transfer in `term`.
    pub(crate) fn begin_transfer(&self, term: u64) {
        self.lock().transferred_term = Some(term);
    }

    /// The replica serves no more reads: it is being destroyed.
    pub(crate) fn retire(&self) {
        self.lock().is_voter = false;
    }

    /// The replica's Raft core has ended.
    pub(crate) fn stop(&self) {
        self.lock().role = Role::Stopped;
    }

    /// The reason why openraft did not accept a request.
    pub(crate) fn declined(&self, forward: ForwardToLeader<TypeConfig>) -> Declined {
        let leader = forward.leader_node.map(|node_ref| node_ref.0);
        match forward.reason {
            ForwardReason::LeaseExpired => {
                let no_quorum = Rejection::Unavailable { reason: "no quorum has answered the leader".to_owned() };
                let soft_state = self.lock();
                let is_new = !soft_state.leads() || soft_state.since.elapsed() < LEADER_WAIT_MAX;
                if is_new { Declined::Undecided(no_quorum) } else { Declined::Final(no_quorum) }
            }
            ForwardReason::LeadershipTransfer => Declined::Undecided(Rejection::NotLeader { leader }),
            ForwardReason::NotLeader if leader.is_none() => Declined::Undecided(Rejection::NotLeader { leader }),
            ForwardReason::NotLeader => Declined::Final(Rejection::NotLeader { leader }),
        }
    }
}

/// A request that had no effect at openraft.
pub(crate) enum Declined {
    /// The leadership is undecided: retry here for a moment.
    Undecided(Rejection),
    /// Return the rejection to the caller.
    Final(Rejection),
}

impl Declined {
    /// Pauses before the next try; returns the rejection if there is none: it is final, or
    /// `leader_deadline` has passed.
    pub(crate) async fn pause(self, leader_deadline: Instant) -> Result<(), Rejection> {
        match self {
            Declined::Undecided(_) if Instant::now() < leader_deadline => {
                tokio::time::sleep(RETRY_PAUSE).await;
                Ok(())
            }
            Declined::Undecided(rejection) | Declined::Final(rejection) => Err(rejection),
        }
    }
}
