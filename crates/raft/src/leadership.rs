//! Who leads, as a request finds it: now, or as soon as that is decided.
//!
//! A request that is sent away while an election or a transfer is under way asks one replica after the other, none of which
//! leads, and comes back after longer and longer pauses. So it waits here for a moment:
//!
//! ```text
//!   nobody is known to lead          an election, which this replica may win
//!   leadership is promised           openraft takes no entry any more in this term; the successor does not lead yet
//!   this replica leads since just now  openraft takes no entry before a quorum has answered it once
//! ```

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ForwardReason, ForwardToLeader};
use quorate_machine::Machine;
use quorate_types::{Rejection, Role};
use tokio::time::Instant;

use crate::group::Group;
use crate::openraft_types::TypeConfig;

/// How long a request waits for a decision: a transfer takes some tens of milliseconds on a busy machine.
pub(crate) const DECISION_MAX: Duration = Duration::from_millis(200);
/// How often what openraft declined is asked for again: about what a quorum takes to answer.
pub(crate) const DECISION_POLL: Duration = Duration::from_millis(2);

/// openraft did nothing with a request, for this reason.
pub(crate) enum Declined {
    /// It may be another one in a moment.
    Undecided(Rejection),
    /// That is so.
    Decided(Rejection),
}

impl<M: Machine> Group<M> {
    /// Spares the core a request that it would only send away.
    pub(crate) fn check_leads(&self) -> Result<(), Rejection> {
        let soft_state = self.inner().soft_state_lock();
        if soft_state.role == Role::Leader { Ok(()) } else { Err(Rejection::NotLeader { leader: soft_state.leader }) }
    }

    /// The same, but what is undecided is waited for until then.
    pub(crate) async fn check_leads_by(&self, patience: Instant) -> Result<(), Rejection> {
        let undecided = |leads: &Result<(), Rejection>| match leads {
            Ok(()) => self.inner().is_transferring(),
            Err(rejection) => matches!(rejection, Rejection::NotLeader { leader: None }),
        };
        let leads = self.check_leads();
        if leads.is_ok() && !undecided(&leads) {
            return leads;
        }
        let mut changes = self.inner().raft.server_metrics();
        let decided = async {
            loop {
                self.inner().refresh_soft_state();
                let leads = self.check_leads();
                if !undecided(&leads) || changes.changed().await.is_err() {
                    return leads;
                }
            }
        };
        tokio::time::timeout_at(patience, decided).await.unwrap_or(leads)
    }

    /// What it means that openraft sent a request away.
    pub(crate) fn declined(&self, forward: ForwardToLeader<TypeConfig>) -> Declined {
        let leader = forward.leader_node.map(|node_ref| node_ref.0);
        match forward.reason {
            ForwardReason::LeaseExpired => {
                let unheard = Rejection::Unavailable { reason: "the leader has not heard from a quorum".to_owned() };
                let soft_state = self.inner().soft_state_lock();
                let is_new = soft_state.role != Role::Leader || soft_state.since.elapsed() < DECISION_MAX;
                if is_new { Declined::Undecided(unheard) } else { Declined::Decided(unheard) }
            }
            ForwardReason::LeadershipTransfer => Declined::Undecided(Rejection::NotLeader { leader }),
            ForwardReason::NotLeader if leader.is_none() => Declined::Undecided(Rejection::NotLeader { leader }),
            ForwardReason::NotLeader => Declined::Decided(Rejection::NotLeader { leader }),
        }
    }
}

impl<M: Machine> crate::group::Inner<M> {
    /// From now on leadership of this term is promised to another replica. openraft never takes that back.
    pub(crate) fn promise(&self, term: u64) {
        self.promised_term.store(term, Ordering::Relaxed);
    }

    fn is_transferring(&self) -> bool {
        let soft_state = self.soft_state_lock();
        soft_state.role == Role::Leader && self.promised_term.load(Ordering::Relaxed) == soft_state.term
    }
}
