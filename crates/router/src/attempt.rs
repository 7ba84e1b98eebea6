//! The result of one attempt at one node.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::{KvAnswer, Rejection, Served};

/// How long one attempt at a leader waits for a write: after that the leader is more likely cut off
/// than slow.
pub(crate) const LEADER_ATTEMPT: Duration = Duration::from_secs(2);

/// The result of one attempt at one node.
///
/// The variants make the distinction that the exactly-once guarantee needs: whether the request may
/// have been applied ([`Attempt::may_have_applied`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The node served the request.
    Served(Served<KvAnswer>),
    /// The node refused the request and gave the reason.
    Rejected(Rejection),
    /// The request never left this process: it is certainly not applied, now or later.
    NotSent(Arc<str>),
    /// The request never left this process because too many requests wait for the node.
    Busy,
    /// The request left, and its connection ended before a reply: it may be applied, now or later.
    Lost(Arc<str>),
    /// The node replied, and its reply does not decode or does not fit the request: the request may
    /// be applied, now or later.
    Malformed(Arc<str>),
    /// The request left, and no reply came in time: it may be applied, now or later.
    Silent {
        /// How long the attempt waited, including the time before the request left.
        waited: Duration,
    },
    /// No node could be tried: every replica was tried since the last pause, or its breaker is
    /// open.
    NoReplica,
    /// The request is certainly not applied, and the same node may serve it after a pause.
    Retry(&'static str),
}

impl Attempt {
    /// Whether the request may have been applied, or may be applied later.
    pub fn may_have_applied(&self) -> bool {
        match self {
            Attempt::Lost(_)
            | Attempt::Malformed(_)
            | Attempt::Silent { .. }
            | Attempt::Rejected(Rejection::Unknown { .. }) => true,
            Attempt::Served(_)
            | Attempt::Rejected(_)
            | Attempt::NotSent(_)
            | Attempt::Busy
            | Attempt::NoReplica
            | Attempt::Retry(_) => false,
        }
    }

    /// An answer that does not fit the request. The node served *something*, so the request may
    /// have been applied.
    pub(crate) fn unfitting(request: &str, answer: &KvAnswer) -> Self {
        Attempt::Malformed(format!("answered {request} with {answer:?}").into())
    }

    /// The description of the attempt in an error message.
    pub(crate) fn reason(&self) -> String {
        match self {
            Attempt::Served(_) => "served".to_owned(),
            Attempt::NotSent(reason) | Attempt::Lost(reason) | Attempt::Malformed(reason) => reason.to_string(),
            Attempt::Retry(reason) => (*reason).to_owned(),
            Attempt::Busy => "too many requests of this client wait for it".to_owned(),
            Attempt::Silent { waited } => format!("no reply within {} ms", waited.as_millis()),
            Attempt::NoReplica => "no replica could be tried".to_owned(),
            Attempt::Rejected(Rejection::NotLeader { leader: Some(leader) }) => {
                format!("not the leader of the shard, node {leader} is")
            }
            Attempt::Rejected(Rejection::NotLeader { leader: None }) => "knows no leader of the shard".to_owned(),
            Attempt::Rejected(Rejection::Unavailable { reason } | Rejection::Unknown { reason }) => reason.clone(),
            Attempt::Rejected(rejection) => rejection.to_string(),
        }
    }
}
