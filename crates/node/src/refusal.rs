//! Why a call is refused, and the one place where that becomes a gRPC status.

use quorate_control::ProposeError;
use quorate_types::Rejection;
use tonic::{Code, Status};

/// The advice to the operator of a node that was removed from its cluster.
pub(crate) const REMOVED: &str = "the node was removed from the cluster for good and holds no data: stop it; to use this \
                                  machine again, start a node with an empty data directory";

/// Why a call is refused, sorted by the caller's next step, which the message names.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The node is in no cluster yet. Bootstrap one, or wait.
    #[error("this node is in no cluster yet; make one with 'quorate cluster init', or wait until it has joined one")]
    NoCluster,
    /// The two sides do not belong together.
    #[error("{0}")]
    Handshake(String),
    /// The request can never succeed.
    #[error("{0}")]
    Invalid(String),
    /// It exists already, and differs.
    #[error("{0}")]
    AlreadyExists(String),
    /// A precondition does not hold.
    #[error("{0}")]
    Precondition(String),
    /// The named thing does not exist here.
    #[error("{0}")]
    NotFound(String),
    /// The node is at its limit. Try again later.
    #[error("{0}")]
    Busy(String),
    /// A shard or the topology group rejected it.
    #[error("{0}")]
    Rejected(#[from] Rejection),
    /// The leader of the topology group cannot decide yet. Nothing was begun; try again.
    #[error("{0}")]
    NotYet(String),
    /// The node does not serve yet. Nothing was begun; ask another node, or try again.
    #[error("this node is starting: its data is not open yet")]
    Starting,
    /// The node is about to stop. Nothing was begun; ask another node.
    #[error("this node is stopping")]
    Stopping,
    /// This or another node cannot do it now. Try again.
    #[error("{0}")]
    Unavailable(String),
    /// It was begun, and its outcome is unknown. Look it up.
    #[error("{0}")]
    Unknown(String),
}

impl From<ProposeError> for Refusal {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::OtherBootstrap => Refusal::AlreadyExists(error.to_string()),
            ProposeError::Rejected(rejection) => rejection.into(),
            ProposeError::NotYet(reason) => Refusal::NotYet(reason),
            ProposeError::Unanswered { .. } => Refusal::Unavailable(error.to_string()),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let code = match &refusal {
            Refusal::NoCluster | Refusal::Handshake(_) | Refusal::Precondition(_) => Code::FailedPrecondition,
            Refusal::Invalid(_) => Code::InvalidArgument,
            Refusal::AlreadyExists(_) => Code::AlreadyExists,
            Refusal::NotFound(_) => Code::NotFound,
            Refusal::Busy(_) => Code::ResourceExhausted,
            Refusal::Unavailable(_) => Code::Unavailable,
            // Nothing was begun. The code differs from that of a broken connection, which leaves it
            // open.
            Refusal::NotYet(_) | Refusal::Starting | Refusal::Stopping => Code::Aborted,
            Refusal::Unknown(_) => Code::Unknown,
            Refusal::Rejected(rejection) => match rejection {
                Rejection::NotLeader { .. } | Rejection::WrongShard { .. } => Code::Aborted,
                Rejection::Unavailable { .. } => Code::Unavailable,
                Rejection::Overloaded { .. } | Rejection::DiskFull => Code::ResourceExhausted,
                Rejection::Invalid { .. } => Code::InvalidArgument,
                Rejection::Unknown { .. } => Code::Unknown,
            },
        };
        Status::new(code, refusal.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call at a node that had just lost its leadership used to read as refused for good, and a
    /// transfer that was begun as one that was not.
    #[test]
    fn transient_failures_and_unknown_outcomes_differ_from_refusals() {
        let code = |refusal: Refusal| Status::from(refusal).code();
        assert_eq!(code(Rejection::NotLeader { leader: None }.into()), Code::Aborted);
        assert_eq!((code(Refusal::Starting), code(Refusal::Stopping)), (Code::Aborted, Code::Aborted));
        assert_eq!(code(Refusal::Unknown("not done within 5000 ms".into())), Code::Unknown);
        assert_eq!(code(Refusal::Precondition("replica 7 has no vote".into())), Code::FailedPrecondition);
    }
}
