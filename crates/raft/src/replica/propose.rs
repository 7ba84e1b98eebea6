//! Proposals: one entry each, answered when it is applied here.

use std::time::Duration;

use bytes::Bytes;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use quorate_machine::Reply;
use quorate_types::Rejection;
use quorate_types::state::Head;
use tokio::time::Instant;
use tracing::{Instrument, debug_span};

use super::Replica;
use crate::convert;
use crate::openraft_types::{Command, Responder, TypeConfig};
use crate::soft_state::{Declined, LEADER_WAIT_MAX};

/// The result of a proposal that was applied.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The machine's reply.
    pub reply: Reply,
    /// The head of the state after the batch that held the proposal: `revision` and `applied` are
    /// at least those of the proposal.
    pub head: Head,
}

impl Replica {
    /// Proposes one entry and waits until it is applied here, at most `within`.
    ///
    /// Every [`Rejection`] but `Unknown` promises that the entry was not and will not be applied.
    /// After `Unknown` it may be applied now, later or never.
    pub async fn propose(&self, proposal: Bytes, within: Duration) -> Result<Applied, Rejection> {
        let leader_deadline = Instant::now() + within.min(LEADER_WAIT_MAX);
        let applied = self.propose_with(|| Some(proposal), within, leader_deadline).await?;
        Ok(applied.expect("there is a proposal"))
    }

    /// Like [`propose`](Self::propose), with the entry made once this replica leads. Waits for an
    /// undecided leadership until `leader_deadline`. Returns none if there is nothing to propose by
    /// then.
    ///
    /// Asks for the leader itself: leadership may have changed while the entry's commands were
    /// queued.
    pub(crate) async fn propose_with(
        &self,
        make_entry: impl FnOnce() -> Option<Bytes>,
        within: Duration,
        leader_deadline: Instant,
    ) -> Result<Option<Applied>, Rejection> {
        let deadline = Instant::now() + within;
        let (mut make_entry, mut entry) = (Some(make_entry), None);
        loop {
            self.until_leadership_is_decided(leader_deadline).await?;
            if let Some(make_entry) = make_entry.take() {
                entry = make_entry();
            }
            let Some(proposal) = entry.clone() else { return Ok(None) };
            match self.try_propose(proposal, deadline).await {
                Ok(applied) => return Ok(Some(applied)),
                Err(declined) => declined.pause(leader_deadline).await?,
            }
        }
    }

    async fn try_propose(&self, proposal: Bytes, deadline: Instant) -> Result<Applied, Declined> {
        let span =
            debug_span!("propose", node = %self.core.node, group = %self.group(), term = self.soft_state.lock().term);
        let within = deadline.saturating_duration_since(Instant::now());
        let (responder, applied) = Responder::pair();
        let proposed = async {
            let sent = self.core.raft.client_write_ff(Command(proposal), Some(responder)).await;
            sent.map_err(|fatal| unknown(format!("the replica stopped: {fatal}")))?;
            applied.await.map_err(|_| unknown("the replica dropped the proposal".to_owned()))
        };
        let late = |_| unknown(format!("not applied within {} ms", within.as_millis()));
        let result: ClientWriteResult<TypeConfig> =
            tokio::time::timeout(within, proposed.instrument(span)).await.map_err(late)??;
        match result {
            Ok(response) => {
                let proposed = convert::our_log_id(&response.log_id);
                assert!(response.data.head.applied >= Some(proposed), "the reply's head holds the proposal");
                let reply = response.data.reply.expect("an entry with a proposal has a reply");
                Ok(Applied { reply, head: response.data.head })
            }
            Err(ClientWriteError::ForwardToLeader(forward)) => Err(self.soft_state.declined(forward)),
            Err(error) => Err(unknown(error.to_string())),
        }
    }
}

fn unknown(reason: String) -> Declined {
    Declined::Final(Rejection::Unknown { reason })
}
