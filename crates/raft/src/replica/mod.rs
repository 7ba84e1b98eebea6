//! One replica of one Raft group: identity, role, and the life of its Raft core. The operations on
//! it are in the files beside this one:
//!
//! ```text
//!   propose, confirm        requests of clients, after the leadership is decided
//!   initialize, membership, leadership   changes of the group, as the reconciler orders them
//!   status, report          progress, for operators and for the reconciler
//!   purge                   the log below the durable state
//! ```

pub(crate) mod confirm;
mod initialize;
mod leadership;
mod membership;
pub(crate) mod propose;
pub(crate) mod purge;
mod report;
pub(crate) mod status;

use std::sync::Arc;

use quorate_types::peer::SnapshotMeta;
use quorate_types::state::Head;
use quorate_types::{GroupId, LogId, NodeId, ReplicaId, Role};
use tokio::time::Instant;
use tracing::warn;

use crate::core::Core;
use crate::doubt::Doubt;
use crate::election::Election;
use crate::error::OpenError;
use crate::inbound::Inbound;
use crate::soft_state::SoftStateCell;
use crate::stalls::Stalls;

/// One replica of a Raft group.
pub struct Replica {
    core: Core,
    soft_state: SoftStateCell,
    /// The last entry known as committed before the restart.
    recovered_at: Option<LogId>,
    inbound: Inbound,
    election: Arc<Election>,
    doubt: Doubt,
    stalls: Stalls,
}

impl Replica {
    pub(crate) fn new(core: Core, inbound: Inbound, election: Arc<Election>, doubt: Doubt) -> Result<Self, OpenError> {
        let recovered_at = core.log.state(core.replica)?.committed;
        let (soft_state, stalls) = (SoftStateCell::new(), Stalls::default());
        let replica = Replica { core, soft_state, recovered_at, inbound, election, doubt, stalls };
        replica.refresh_soft_state();
        Ok(replica)
    }

    /// Its id.
    pub fn id(&self) -> ReplicaId {
        self.core.replica
    }

    /// Its group.
    pub fn group(&self) -> GroupId {
        self.core.group
    }

    /// Applied index, revision, epoch and clock of its state, as of now.
    pub fn head(&self) -> Head {
        self.core.progress.head()
    }

    /// Its role in the group, as far as it knows.
    pub fn role(&self) -> Role {
        self.soft_state.lock().role
    }

    /// Whether it believes that it leads. Only a quorum can confirm that: [`Replica::confirm`].
    pub fn is_leader(&self) -> bool {
        self.soft_state.lock().leads()
    }

    /// The node of the leader, as far as it knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.soft_state.lock().leader
    }

    /// Whether it lost entries that it had confirmed. It then takes no part in its group, now and
    /// after every restart, until it is replaced under a new id.
    pub fn is_doubtful(&self) -> bool {
        self.doubt.is_raised()
    }

    /// Silences the replica, for good; false if it is silent already.
    pub(crate) fn raise_doubt(&self) -> bool {
        self.doubt.raise()
    }

    /// Whether it may serve `eventual` reads: it is a voter, it is not doubtful, and it has applied
    /// at least the entries that it knew as committed before the last restart.
    pub fn serves_eventual(&self) -> bool {
        let applied = self.head().applied;
        !self.is_doubtful() && applied.is_some() && applied >= self.recovered_at && self.soft_state.lock().is_voter
    }

    /// Bytes of log that it retains.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.core.log.retained_bytes(self.id())
    }

    /// Whether it knows the members of its group.
    pub fn is_initialized(&self) -> bool {
        !self.soft_state.lock().voters.is_empty()
    }

    /// The receiver of other replicas' messages and snapshots.
    pub(crate) fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    /// Sends a heartbeat to every follower.
    pub(crate) async fn heartbeat(&self) {
        // It fails only when the core has stopped, which supervision notices.
        let _ = self.core.raft.trigger().heartbeat().await;
    }

    /// Whether the replica must campaign now; true counts as a try.
    pub(crate) fn is_campaign_due(&self, now: Instant) -> bool {
        self.election.is_due(now, &self.soft_state.lock())
    }

    /// Asks for votes.
    pub(crate) async fn campaign(&self) {
        // It fails only when the core has stopped, which supervision notices.
        let _ = self.core.raft.trigger().elect(true).await;
    }

    /// The last entry and membership applied.
    pub(crate) fn applied(&self) -> SnapshotMeta {
        self.core.progress.applied().snapshot_meta()
    }

    /// Starts the Raft core.
    pub(crate) fn run(&self) {
        self.core.raft.run();
    }

    /// Stops the Raft core, and waits for the requests of other replicas in progress.
    pub(crate) async fn shutdown(&self) {
        if let Err(error) = self.core.raft.shutdown().await {
            warn!(group = %self.group(), replica = %self.id(), %error, "raft core ended with an error");
        }
        self.inbound.ended().await;
    }

    /// Waits for the write to the state that is in progress, if any, and forbids further ones.
    pub(crate) fn retire(&self) {
        self.core.progress.retire();
        self.soft_state.retire();
    }
}
