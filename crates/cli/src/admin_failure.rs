//! Maps a failed admin request to a failure with its exit code.

use quorate_client::{AdminError, AdminErrorKind};

use crate::failure::{Exit, Failure};

/// The hint after an operation whose outcome is unknown.
const CHECK_OPERATIONS: &str = "check: quorate op list; repeating the command is harmless";

/// A failed request for an operation: the cluster refused it, or its outcome is unknown.
pub(crate) fn unanswered(message: &str, error: &AdminError) -> Failure {
    unknown_or_refused(message, error, CHECK_OPERATIONS)
}

/// A failed change: refused, or of unknown outcome because the answer was lost. In the second case
/// `hint` tells how to find out.
pub(crate) fn unknown_or_refused(message: &str, error: &AdminError, hint: &str) -> Failure {
    match error.kind {
        AdminErrorKind::Unanswered => {
            Failure::new(Exit::Unknown, format!("{message}: the outcome is unknown")).cause(error).hint(hint)
        }
        _ => refused(message, error),
    }
}

/// A failed request that changed nothing: refused for safety, in conflict, invalid, or unreachable.
pub(crate) fn refused(message: &str, error: &AdminError) -> Failure {
    let failure = |exit| Failure::new(exit, message).cause(&error.reason);
    match error.kind {
        AdminErrorKind::Refused if error.reason.contains("plan it again") => failure(Exit::Conflict),
        AdminErrorKind::Refused => failure(Exit::Refused),
        AdminErrorKind::Conflict => failure(Exit::Conflict),
        AdminErrorKind::Invalid => failure(Exit::Usage),
        AdminErrorKind::NotLeader => failure(Exit::Unreachable).hint("nothing was changed; try again"),
        AdminErrorKind::Unreachable | AdminErrorKind::Unanswered => {
            Failure::new(Exit::Unreachable, message).cause(error).hint("nothing was changed; try again")
        }
        _ => failure(Exit::Other),
    }
}

/// No node returned a topology: none is reachable, or none is part of a cluster.
pub(crate) fn no_topology(errors: &[AdminError]) -> Failure {
    if let Some(waiting) = errors.iter().find(|error| error.kind == AdminErrorKind::Refused) {
        return Failure::new(Exit::Other, "the nodes are not part of a cluster yet")
            .cause(waiting)
            .hint("create one:  quorate cluster init --nodes host:port,host:port,host:port");
    }
    let failure = Failure::new(Exit::Unreachable, "no node of the cluster is reachable");
    errors
        .iter()
        .fold(failure, |failure, error| failure.cause(error))
        .hint("start the nodes, or use other addresses:  --endpoints host:port,… or QUORATE_ENDPOINTS")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_client::newest_topology;
    use quorate_proto::admin::PauseMovesRequest;

    use super::*;

    fn error(kind: AdminErrorKind, endpoint: &str, reason: &str) -> AdminError {
        AdminError { kind, endpoint: endpoint.to_owned(), reason: reason.to_owned() }
    }

    /// Only a node that refuses has certainly not begun the change; after a lost answer the outcome
    /// is unknown.
    #[test]
    fn a_lost_answer_is_an_unknown_outcome() {
        let exit = |kind| unanswered("m", &error(kind, "a:1", "why")).exit();
        assert_eq!(exit(AdminErrorKind::NotLeader), Exit::Unreachable);
        assert_eq!(exit(AdminErrorKind::Unreachable), Exit::Unreachable);
        assert_eq!(exit(AdminErrorKind::Refused), Exit::Refused);
        assert_eq!(exit(AdminErrorKind::Unanswered), Exit::Unknown);
        assert_eq!(refused("m", &error(AdminErrorKind::NotLeader, "a:1", "why")).exit(), Exit::Unreachable);
    }

    #[test]
    fn every_endpoint_that_failed_is_named() {
        let failure = no_topology(&[
            error(AdminErrorKind::Unreachable, "a:1", "refused"),
            error(AdminErrorKind::Unanswered, "b:2", "no answer within 5 s"),
        ]);
        assert_eq!(failure.exit(), Exit::Unreachable);
        let text = failure.to_string();
        assert!(text.contains("a:1 is unreachable: refused") && text.contains("b:2: no answer within 5 s"), "{text}");
    }

    #[test]
    fn a_node_without_a_cluster_has_its_own_error() {
        let failure = no_topology(&[
            error(AdminErrorKind::Unreachable, "a:1", "refused"),
            error(AdminErrorKind::Refused, "b:2", "it waits"),
        ]);
        assert_eq!(failure.exit(), Exit::Other);
        assert!(failure.to_string().contains("quorate cluster init"));
    }

    /// A node that accepts connections and never answers once blocked a command.
    #[tokio::test]
    async fn a_call_to_a_hanging_node_times_out() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let node = quorate_client::admin(&address, Duration::from_secs(5)).await.unwrap();
        let asked = node.pause_moves(PauseMovesRequest { paused: true }, Duration::from_millis(50));
        assert_eq!(unanswered("m", &asked.await.unwrap_err()).exit(), Exit::Unknown);
    }

    /// A connection that is refused fails immediately and names the address.
    #[tokio::test]
    async fn a_closed_port_is_unreachable() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let errors = newest_topology(std::slice::from_ref(&address), Duration::from_secs(5)).await.unwrap_err();
        let failure = no_topology(&errors);
        assert_eq!(failure.exit(), Exit::Unreachable);
        assert!(failure.to_string().contains(&address), "{failure}");
    }
}
