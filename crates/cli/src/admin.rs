//! The Admin service of single nodes.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use quorate_proto::admin::admin_client::AdminClient;
use quorate_proto::admin::{GetNodeRequest, GetTopologyRequest, NodeStatus, Topology};
use quorate_proto::{WRONG_PORT, at_client_port};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::failure::{Exit, Failure};

/// A silent connection is asked for a sign of life this often, …
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// … and is given up after so long without one: a node that hangs, or a network that swallows packets, must not hold a verb.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(4);

/// A connection to the Admin service of a node.
pub(crate) type Client = AdminClient<Channel>;

/// Connects to one node. The status of a failure says who could not be reached.
pub(crate) async fn connect(address: &str, within: Duration) -> Result<Client, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Status::invalid_argument(format!("{address}: {error}")))?
        .connect_timeout(within)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let channel =
        endpoint.connect().await.map_err(|error| Status::unavailable(format!("{address}: {}", innermost(&error))))?;
    Ok(AdminClient::new(channel).max_decoding_message_size(quorate_proto::MESSAGE_BYTES_MAX))
}

/// A failed first call, with its address where whoever answered there is no node.
fn named(address: &str, status: Status) -> Status {
    match at_client_port(status) {
        status if status.message() == WRONG_PORT => Status::unavailable(format!("{address}: {WRONG_PORT}")),
        status => status,
    }
}

/// What the node at that address says of itself.
pub(crate) async fn node(address: &str, within: Duration) -> Result<NodeStatus, Status> {
    timely(address, within, async {
        let mut admin = connect(address, within).await?;
        Ok(admin.get_node(Request::new(GetNodeRequest {})).await.map_err(|status| named(address, status))?.into_inner())
    })
    .await
}

/// Once one node has answered, the others have so long.
const GRACE: Duration = Duration::from_millis(500);

/// The newest topology that any of the nodes at those addresses knows.
pub(crate) async fn newest_topology(addresses: &[String], within: Duration) -> Result<Topology, Failure> {
    let mut answers: FuturesUnordered<_> = addresses.iter().map(|address| topology(address, within)).collect();
    let mut failures = Vec::new();
    let mut newest: Option<Topology> = None;
    let mut patience = within;
    while let Ok(Some(answer)) = tokio::time::timeout(patience, answers.next()).await {
        match answer {
            Ok(topology) if newest.as_ref().is_none_or(|known| known.revision < topology.revision) => {
                newest = Some(topology);
                patience = GRACE.min(within);
            }
            Ok(_) => {}
            Err(status) => failures.push(status),
        }
    }
    newest.ok_or_else(|| no_topology(&failures))
}

async fn topology(address: &str, within: Duration) -> Result<Topology, Status> {
    timely(address, within, async {
        let mut admin = connect(address, within).await?;
        Ok(admin
            .get_topology(Request::new(GetTopologyRequest {}))
            .await
            .map_err(|status| named(address, status))?
            .into_inner())
    })
    .await
}

/// Every call has an end: after so long without an answer of `who` it is given up, and what it changes may have come true.
pub(crate) async fn timely<T>(
    who: &str,
    within: Duration,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let late = || Err(Status::deadline_exceeded(format!("{who}: no answer within {} ms", within.as_millis())));
    tokio::time::timeout(within, work).await.unwrap_or_else(|_| late())
}

fn no_topology(failures: &[Status]) -> Failure {
    if let Some(waiting) = failures.iter().find(|status| status.code() == Code::FailedPrecondition) {
        return Failure::new(Exit::Other, "the nodes have joined no cluster yet")
            .cause(waiting.message())
            .hint("make one:  quorate cluster init --nodes host:port,host:port,host:port");
    }
    let failure = Failure::new(Exit::Unreachable, "no node of the cluster can be reached");
    failures
        .iter()
        .fold(failure, |failure, status| failure.cause(status.message()))
        .hint("start the nodes, or name others:  --endpoints host:port,… or QUORATE_ENDPOINTS")
}

/// The error at the bottom: the system's own words.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use quorate_proto::admin::PauseMovesRequest;

    use super::*;
    use crate::operation::unanswered;

    #[test]
    fn every_endpoint_that_failed_is_named() {
        let failures = [Status::unavailable("a:1: refused"), Status::deadline_exceeded("b:2: no answer within 5s")];
        let failure = no_topology(&failures);
        assert_eq!(failure.exit(), Exit::Unreachable);
        let text = failure.to_string();
        assert!(text.contains("a:1: refused") && text.contains("b:2: no answer within 5s"), "{text}");
    }

    #[test]
    fn a_node_without_a_cluster_is_told_apart() {
        let failure = no_topology(&[Status::unavailable("a:1"), Status::failed_precondition("b:2 waits")]);
        assert_eq!(failure.exit(), Exit::Other);
        assert!(failure.to_string().contains("quorate cluster init"));
    }

    /// A node that takes connections and never answers held a verb for ever.
    #[tokio::test]
    async fn a_node_that_hangs_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut client = connect(&address, Duration::from_secs(5)).await.unwrap();
        let asked = client.pause_moves(Request::new(PauseMovesRequest { paused: true }));
        let status = timely(&address, Duration::from_millis(50), asked).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(unanswered("m".to_owned(), &status).exit(), Exit::Unknown);
    }

    /// Nothing listens on a port that was just given back: the failure comes at once and names the address.
    #[tokio::test]
    async fn a_closed_port_is_unreachable() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let failure = newest_topology(std::slice::from_ref(&address), Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Unreachable);
        assert!(failure.to_string().contains(&address), "{failure}");
    }
}
