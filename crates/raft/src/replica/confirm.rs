//! Confirms with a quorum that a replica leads, for linearizable reads.

use std::time::Duration;

use openraft::LinearizerOption;
use openraft::errors::{LinearizableReadError, RaftError};
use quorate_types::Rejection;
use tokio::time::Instant;

use super::Replica;
use crate::convert;
use crate::soft_state::{Declined, LEADER_WAIT_MAX};

/// Proof that a quorum confirmed this replica as leader after the call began, and that it has
/// applied every entry committed by then.
#[derive(Clone, Copy, Debug)]
pub struct Confirmed(());

impl Replica {
    /// Confirms with a quorum, after this call began, that this replica leads, and waits until
    /// every entry committed by then is applied here. Reads of its state are linearizable after
    /// that.
    pub async fn confirm(&self, within: Duration) -> Result<Confirmed, Rejection> {
        let now = Instant::now();
        let (deadline, leader_deadline) = (now + within, now + within.min(LEADER_WAIT_MAX));
        loop {
            self.until_leadership_is_decided(leader_deadline).await?;
            match self.try_confirm(deadline.saturating_duration_since(Instant::now())).await {
                Ok(confirmed) => return Ok(confirmed),
                Err(declined) => declined.pause(leader_deadline).await?,
            }
        }
    }

    async fn try_confirm(&self, within: Duration) -> Result<Confirmed, Declined> {
        let raft = &self.core.raft;
        let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(within);
        let confirmed = async {
            let linearizer = match raft.get_read_linearizer(option).await {
                Ok(linearizer) => linearizer,
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                    return Err(self.soft_state.declined(forward));
                }
                Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(missing))) => {
                    let answered = missing.got.len();
                    let reason = format!("no quorum confirmed the leader: only {answered} of its replicas answered");
                    return Err(Declined::Final(Rejection::Unavailable { reason }));
                }
                Err(RaftError::Fatal(fatal)) => return Err(Declined::Final(convert::stopped(&fatal))),
            };
            let committed = linearizer.read_log_id().index();
            linearizer.await_ready(raft).await.map_err(|fatal| Declined::Final(convert::stopped(&fatal)))?;
            let applied = self.head().applied.map(|id| id.index);
            self.doubt.check().map_err(Declined::Final)?;
            assert!(applied >= Some(committed), "a confirmed replica has applied every committed entry");
            Ok(Confirmed(()))
        };
        let late = |_| {
            let reason = format!("no quorum within {} ms", within.as_millis());
            Declined::Final(Rejection::Unavailable { reason })
        };
        tokio::time::timeout(within, confirmed).await.map_err(late)?
    }
}
