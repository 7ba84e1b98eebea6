//! The admin client: operators' requests to one node, beside reading and writing data.

use std::fmt;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use quorate_proto::admin as wire;
use quorate_proto::admin::admin_client::AdminClient as Generated;
use quorate_proto::{MESSAGE_BYTES_MAX, WRONG_PORT, at_client_port};
use quorate_types::error_chain;
use quorate_types::topology::Topology;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::grpc::transport::transport;

/// The kind of an [`AdminError`]: the caller's next step, and whether anything may have been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdminErrorKind {
    /// The node could not be reached. Nothing was done: try again, or ask another node.
    Unreachable,
    /// The request was sent, and its reply did not arrive. It may have been done: look before you
    /// repeat it.
    Unanswered,
    /// The node does not lead the group that the request is for. Nothing was done: ask its leader.
    NotLeader,
    /// The node cannot do it in its present state. Often it has joined no cluster yet, or the
    /// request is unsafe. Nothing was done.
    Refused,
    /// The request contradicts the present state, such as another cluster or another set of nodes.
    /// Nothing was done.
    Conflict,
    /// The request can never succeed.
    Invalid,
    /// Any other failure.
    Failed,
}

/// The reason why a node did not do an operator's request. The message names the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminError {
    /// The caller's next step.
    pub kind: AdminErrorKind,
    /// The client address of the node.
    pub endpoint: String,
    /// The reason, in the node's words if it replied.
    pub reason: String,
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AdminError { kind, endpoint, reason } = self;
        match kind {
            AdminErrorKind::Unreachable => write!(f, "{endpoint} is unreachable: {reason}"),
            _ => write!(f, "{endpoint}: {reason}"),
        }
    }
}

impl std::error::Error for AdminError {}

impl AdminError {
    fn new(kind: AdminErrorKind, endpoint: &str, reason: impl Into<String>) -> Self {
        Self { kind, endpoint: endpoint.to_owned(), reason: reason.into() }
    }

    fn of(endpoint: &str, status: &Status) -> Self {
        let kind = match status.code() {
            Code::Unavailable if status.message() == WRONG_PORT => AdminErrorKind::Unreachable,
            Code::Aborted => AdminErrorKind::NotLeader,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => {
                AdminErrorKind::Unanswered
            }
            Code::FailedPrecondition => AdminErrorKind::Refused,
            Code::AlreadyExists => AdminErrorKind::Conflict,
            Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::Unimplemented => AdminErrorKind::Invalid,
            _ => AdminErrorKind::Failed,
        };
        let reason = match status.message() {
            "" => error_chain(status),
            message => message.to_owned(),
        };
        Self::new(kind, endpoint, reason)
    }
}

/// A connection to one node for operators' requests. Every request takes its own time-out. Cheap to
/// clone; clones share the connection.
#[derive(Clone, Debug)]
pub struct AdminClient {
    endpoint: String,
    inner: Generated<Channel>,
}

/// Connects to the node with this client address (`host:port`) within that time.
///
/// # Errors
///
/// [`AdminErrorKind::Invalid`] for an address that is not `host:port`;
/// [`AdminErrorKind::Unreachable`] when there is no connection in time.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example() -> Result<(), quorate_client::AdminError> {
/// let node = quorate_client::admin("127.0.0.1:7100", Duration::from_secs(2)).await?;
/// let status = node.node(Duration::from_secs(2)).await?;
/// println!("node {} holds {} replicas", status.id, status.replicas.len());
/// # Ok(())
/// # }
/// ```
pub async fn admin(endpoint: &str, within: Duration) -> Result<AdminClient, AdminError> {
    let error = |kind, reason| AdminError::new(kind, endpoint, reason);
    let transport =
        transport(endpoint, within).map_err(|invalid| error(AdminErrorKind::Invalid, invalid.to_string()))?;
    let late = || error(AdminErrorKind::Unreachable, format!("no connection within {} ms", within.as_millis()));
    let channel = timeout(within, transport.connect())
        .await
        .map_err(|_| late())?
        .map_err(|cause| error(AdminErrorKind::Unreachable, error_chain(&cause)))?;
    let inner = Generated::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    Ok(AdminClient { endpoint: endpoint.to_owned(), inner })
}

/// The status of the node with this client address: connects and asks, both within that time.
pub async fn node_status(endpoint: &str, within: Duration) -> Result<wire::NodeStatus, AdminError> {
    let deadline = Instant::now() + within;
    let client = admin(endpoint, within).await?;
    client.node(deadline.saturating_duration_since(Instant::now())).await
}

/// Once one node has answered [`newest_topology`], the others have this long.
const NEWER_WITHIN: Duration = Duration::from_millis(500);

/// The newest topology that any of the nodes at these client addresses knows. Asks all of them, and
/// does not wait for slow ones once one has answered.
///
/// # Errors
///
/// The error of each node, if none of them answered in time.
pub async fn newest_topology(endpoints: &[String], within: Duration) -> Result<Topology, Vec<AdminError>> {
    let ask = async |endpoint: &String| {
        let deadline = Instant::now() + within;
        let client = admin(endpoint, within).await?;
        client.topology(deadline.saturating_duration_since(Instant::now())).await
    };
    let mut answers: FuturesUnordered<_> = endpoints.iter().map(ask).collect();
    let mut errors = Vec::new();
    let mut newest: Option<Topology> = None;
    let mut until = Instant::now() + within + NEWER_WITHIN;
    while let Ok(Some(answer)) = timeout_at(until, answers.next()).await {
        match answer {
            Ok(topology) => {
                until = until.min(Instant::now() + NEWER_WITHIN);
                if newest.as_ref().is_none_or(|known| known.revision < topology.revision) {
                    newest = Some(topology);
                }
            }
            Err(error) => errors.push(error),
        }
    }
    newest.ok_or(errors)
}

/// A call that every release of a node answers: an answer of another service names the wrong port.
async fn first<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    call.await.map_err(at_client_port)
}

/// The requests that pass their messages through unchanged.
macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $reply:ty;)*) => {
        $(
            $(#[$doc])*
            pub async fn $name(&self, request: $request, within: Duration) -> Result<$reply, AdminError> {
                let mut inner = self.inner.clone();
                self.within(within, inner.$name(request)).await
            }
        )*
    };
}

impl AdminClient {
    /// The client address of the node.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The cluster's topology as this node knows it.
    pub async fn topology(&self, within: Duration) -> Result<Topology, AdminError> {
        let mut inner = self.inner.clone();
        let message = self.within(within, first(inner.get_topology(wire::GetTopologyRequest {}))).await?;
        Topology::try_from(message)
            .map_err(|malformed| AdminError::new(AdminErrorKind::Failed, &self.endpoint, malformed.to_string()))
    }

    /// The status of the node and its replicas.
    pub async fn node(&self, within: Duration) -> Result<wire::NodeStatus, AdminError> {
        let mut inner = self.inner.clone();
        self.within(within, first(inner.get_node(wire::GetNodeRequest {}))).await
    }

    /// Bootstraps a cluster of exactly these nodes. Repeating it is harmless; another set of nodes
    /// is a [`AdminErrorKind::Conflict`].
    pub async fn init_cluster(
        &self,
        request: wire::InitClusterRequest,
        within: Duration,
    ) -> Result<wire::InitClusterResponse, AdminError> {
        let mut inner = self.inner.clone();
        self.within(within, first(inner.init_cluster(request))).await
    }

    requests! {
        /// Hashes this node's replica of a shard at its last applied entry.
        hash_shard(wire::HashShardRequest) -> wire::HashShardResponse;
        /// Flushes the state of this node's replicas and purges their logs as far as is safe.
        compact_logs(wire::CompactLogsRequest) -> wire::CompactLogsResponse;
        /// Starts an operation such as draining a node. Starting a running one again is harmless.
        start_operation(wire::StartOperationRequest) -> wire::StartOperationResponse;
        /// Cancels an operation.
        cancel_operation(wire::CancelOperationRequest) -> wire::CancelOperationResponse;
        /// Lists operations with their progress. Only the leader of the topology group knows it.
        list_operations(wire::ListOperationsRequest) -> wire::ListOperationsResponse;
        /// Pauses or resumes the moves of replicas.
        pause_moves(wire::PauseMovesRequest) -> wire::PauseMovesResponse;
        /// Plans the moves that balance the replicas. Starts none of them.
        plan_moves(wire::PlanMovesRequest) -> wire::PlanMovesResponse;
        /// Transfers the leadership of a shard to another of its replicas.
        transfer_leader(wire::TransferLeaderRequest) -> wire::TransferLeaderResponse;
    }

    async fn within<T>(
        &self,
        within: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, AdminError> {
        match timeout(within, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(AdminError::of(&self.endpoint, &status)),
            Err(_) => {
                let reason = format!("no answer within {} ms", within.as_millis());
                Err(AdminError::new(AdminErrorKind::Unanswered, &self.endpoint, reason))
            }
        }
    }
}
