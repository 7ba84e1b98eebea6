//! What a node asks of another one beside Raft: rare calls, each on a connection that lives as long as its caller.

use std::error::Error as _;
use std::time::Duration;

use quorate_proto::MESSAGE_BYTES_MAX;
use quorate_proto::admin::admin_client::AdminClient;
use quorate_proto::admin::{GetNodeRequest, NodeStatus};
use quorate_proto::peer::peer_client::PeerClient;
use quorate_proto::peer::{
    BootstrapRequest, ExecuteRequest, Hello, ProposeTopologyRequest, ReportRequest, WatchTopologyRequest,
};
use quorate_types::NodeId;
use quorate_types::operation::OperationId;
use quorate_types::report::{NodeReport, Order};
use quorate_types::topology::{Bootstrap, Command, Outcome, Topology};
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

use super::connection::{connect, describe};
use super::server::WATCH_WAIT;
use crate::reconciler::ORDER_TIMEOUT;
use crate::reporters::REPORT_TIMEOUT;

/// How long a call to another node may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to another node's peer port for rare calls.
pub(crate) struct PeerCaller {
    client: PeerClient<Channel>,
}

/// What came of a topology command at another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proposed {
    /// It was done or refused.
    Outcome(Outcome),
    /// That node does not lead the topology group; this one may.
    NotLeader(Option<NodeId>),
}

impl PeerCaller {
    /// Connects to a peer address.
    pub(crate) async fn connect(address: &str) -> Result<Self, String> {
        let channel = connect(address).await.map_err(|e| describe(&e))?;
        let client = PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(PeerCaller { client })
    }

    /// Gives the order to found a cluster; on return it is on record there.
    pub(crate) async fn bootstrap(&mut self, bootstrap: &Bootstrap) -> Result<(), String> {
        let request = BootstrapRequest { bootstrap: bootstrap.encode().into() };
        let reply = answer(CALL_TIMEOUT, self.client.bootstrap(request)).await?;
        match Bootstrap::decode(&reply.bootstrap) {
            Ok(recorded) if recorded == *bootstrap => Ok(()),
            Ok(_) => Err("it has recorded another order".to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Waits a while for a topology that is newer than `revision`.
    pub(crate) async fn watch_topology(&mut self, hello: Hello, revision: u64) -> Result<Option<Topology>, String> {
        let request = WatchTopologyRequest { hello: Some(hello), revision };
        let reply = answer(WATCH_WAIT + CALL_TIMEOUT, self.client.watch_topology(request)).await?;
        if reply.topology.is_empty() {
            return Ok(None);
        }
        Topology::decode(&reply.topology).map(Some).map_err(|e| e.to_string())
    }

    /// Proposes a change of the cluster. After an error it may have been done or not.
    pub(crate) async fn propose_topology(&mut self, hello: Hello, command: &Command) -> Result<Proposed, String> {
        let request = ProposeTopologyRequest { hello: Some(hello), command: command.encode().into() };
        let reply = answer(CALL_TIMEOUT, self.client.propose_topology(request)).await?;
        if reply.is_not_leader {
            return Ok(Proposed::NotLeader((reply.not_leader != 0).then_some(NodeId(reply.not_leader))));
        }
        if !reply.refused.is_empty() {
            return Ok(Proposed::Outcome(Outcome::Refused(reply.refused)));
        }
        Ok(Proposed::Outcome(match command {
            Command::RegisterNode { .. } => Outcome::Node(NodeId(reply.id)),
            Command::StartOperation { .. } if reply.id != 0 => {
                Outcome::Operation { id: OperationId(reply.id), already: reply.already }
            }
            _ => Outcome::Done,
        }))
    }

    /// Asks for what the reconciler wants to know.
    pub(crate) async fn report(&mut self, hello: Hello) -> Result<NodeReport, String> {
        let request = ReportRequest { hello: Some(hello) };
        let reply = answer(REPORT_TIMEOUT, self.client.report(request)).await?;
        NodeReport::decode(&reply.report).map_err(|e| e.to_string())
    }

    /// Gives an order of the reconciler's. After an error it may have been done or not.
    pub(crate) async fn execute(&mut self, hello: Hello, order: &Order) -> Result<(), String> {
        let request = ExecuteRequest { hello: Some(hello), order: order.encode().into() };
        let reply = answer(ORDER_TIMEOUT + CALL_TIMEOUT, self.client.execute(request)).await?;
        if reply.refused.is_empty() { Ok(()) } else { Err(reply.refused) }
    }
}

/// Asks the node at a client address who it is.
pub(crate) async fn get_node(client_address: &str) -> Result<NodeStatus, String> {
    let channel = connect(client_address).await.map_err(|e| describe(&e))?;
    answer(CALL_TIMEOUT, AdminClient::new(channel).get_node(GetNodeRequest {})).await
}

async fn answer<T>(
    within: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, String> {
    match timeout(within, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => {
            let cause = status.source().map(|cause| format!(": {}", describe(cause)));
            Err(status.message().to_owned() + &cause.unwrap_or_default())
        }
        Err(_) => Err(format!("no answer within {} ms", within.as_millis())),
    }
}
