//! What operators ask of one node beside data.

use std::time::Duration;

use quorate_proto::admin as wire;
use quorate_proto::admin::admin_client::AdminClient as Generated;
use quorate_proto::{MESSAGE_BYTES_MAX, WRONG_PORT, at_client_port};
use quorate_types::topology::Topology;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::Error;
use crate::config::{explain, transport};

/// Why a node did not do what an operator asked, sorted by what the operator does next. Messages name the endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The node could not be reached, or did not answer in time.
    #[error("{endpoint} is unreachable: {reason}")]
    Unreachable {
        /// The node's client address.
        endpoint: String,
        /// What happened.
        reason: String,
    },
    /// The node cannot do it in the state that it is in; above all, it has joined no cluster yet.
    #[error("{endpoint}: {reason}")]
    NotReady {
        /// The node's client address.
        endpoint: String,
        /// What the node said.
        reason: String,
    },
    /// It contradicts what is there already (another cluster, another set of nodes).
    #[error("{endpoint}: {reason}")]
    Conflict {
        /// The node's client address.
        endpoint: String,
        /// What the node said.
        reason: String,
    },
    /// The request can never succeed.
    #[error("{endpoint}: {reason}")]
    Invalid {
        /// The node's client address.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Anything else.
    #[error("{endpoint}: {reason}")]
    Failed {
        /// The node's client address.
        endpoint: String,
        /// What the node said.
        reason: String,
    },
}

impl AdminError {
    /// What happened, without the endpoint's name.
    pub fn reason(&self) -> &str {
        match self {
            AdminError::Unreachable { reason, .. }
            | AdminError::NotReady { reason, .. }
            | AdminError::Conflict { reason, .. }
            | AdminError::Invalid { reason, .. }
            | AdminError::Failed { reason, .. } => reason,
        }
    }

    fn new(endpoint: &str, status: &Status) -> Self {
        let endpoint = endpoint.to_owned();
        let reason = status.message().to_owned();
        match status.code() {
            Code::Unavailable if reason == WRONG_PORT => AdminError::Unreachable { endpoint, reason },
            // Aborted: the node does not lead just now.
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => {
                AdminError::Unreachable { endpoint, reason: explain(status) }
            }
            Code::FailedPrecondition => AdminError::NotReady { endpoint, reason },
            Code::AlreadyExists => AdminError::Conflict { endpoint, reason },
            Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::Unimplemented => {
                AdminError::Invalid { endpoint, reason }
            }
            _ => AdminError::Failed { endpoint, reason },
        }
    }
}

/// A connection to one node for operators' requests. Each takes how long it may take.
#[derive(Clone, Debug)]
pub struct AdminClient {
    endpoint: String,
    inner: Generated<Channel>,
}

/// Connects to the node with this client address (`host:port`) within that time.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example() -> Result<(), quorate_router::AdminError> {
/// let node = quorate_router::admin("127.0.0.1:7100", Duration::from_secs(2)).await?;
/// let status = node.node(Duration::from_secs(2)).await?;
/// println!("node {} holds {} replicas", status.id, status.replicas.len());
/// # Ok(())
/// # }
/// ```
pub async fn admin(endpoint: &str, within: Duration) -> Result<AdminClient, AdminError> {
    let invalid = |error: Error| AdminError::Invalid { endpoint: endpoint.to_owned(), reason: error.to_string() };
    let unreachable = |reason| AdminError::Unreachable { endpoint: endpoint.to_owned(), reason };
    let transport = transport(endpoint, within).map_err(invalid)?;
    let channel = tokio::time::timeout(within, transport.connect())
        .await
        .map_err(|_| unreachable(format!("no connection within {} ms", within.as_millis())))?
        .map_err(|error| unreachable(explain(&error)))?;
    let inner = Generated::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    Ok(AdminClient { endpoint: endpoint.to_owned(), inner })
}

/// A call that every node answers: whoever does not is no node.
async fn first<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    call.await.map_err(at_client_port)
}

/// A request that only differs in names and types from the others.
macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $reply:ty = $method:ident;)*) => {
        $(
            $(#[$doc])*
            pub async fn $name(&self, request: $request, within: Duration) -> Result<$reply, AdminError> {
                let mut inner = self.inner.clone();
                self.within(within, inner.$method(request)).await
            }
        )*
    };
}

impl AdminClient {
    /// The cluster's map as this node knows it.
    pub async fn topology(&self, within: Duration) -> Result<Topology, AdminError> {
        let mut inner = self.inner.clone();
        let wire = self.within(within, first(inner.get_topology(wire::GetTopologyRequest {}))).await?;
        Topology::try_from(wire)
            .map_err(|error| AdminError::Failed { endpoint: self.endpoint.clone(), reason: error.to_string() })
    }

    /// The node and its replicas.
    pub async fn node(&self, within: Duration) -> Result<wire::NodeStatus, AdminError> {
        let mut inner = self.inner.clone();
        self.within(within, first(inner.get_node(wire::GetNodeRequest {}))).await
    }

    requests! {
        /// Makes a cluster of exactly the nodes named. Repeating it is harmless; [`AdminError::Conflict`] for another set.
        init_cluster(wire::InitClusterRequest) -> wire::InitClusterResponse = init_cluster;
        /// Hashes this node's replica of a shard at what it has applied.
        hash_shard(wire::HashShardRequest) -> wire::HashShardResponse = hash_shard;
        /// Flushes the state and purges the logs of this node's replicas as far as is safe.
        compact_logs(wire::CompactLogsRequest) -> wire::CompactLogsResponse = compact_logs;
    }

    async fn within<T>(
        &self,
        within: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, AdminError> {
        match tokio::time::timeout(within, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(AdminError::new(&self.endpoint, &status)),
            Err(_) => Err(AdminError::Unreachable {
                endpoint: self.endpoint.clone(),
                reason: format!("no answer within {} ms", within.as_millis()),
            }),
        }
    }
}
