//! Rare calls to another node, beside Raft's messages.

use std::time::Duration;

use quorate_control::{PeerError, Proposed};
use quorate_proto::MESSAGE_BYTES_MAX;
use quorate_proto::peer as wire;
use quorate_proto::peer::peer_client::PeerClient;
use quorate_types::codec::CodecError;
use quorate_types::error_chain;
use quorate_types::ping::Ping;
use quorate_types::report::{NodeReport, Order};
use quorate_types::topology::{Bootstrap, Command, Topology};
use tonic::transport::Channel;

use super::answer::{CALL_TIMEOUT, answer};
use super::calls::{executed_from_wire, proposed_from_wire};
use super::connection::connect;

/// A connection to another node's peer port for rare calls. Dropping it closes the connection.
pub(crate) struct PeerCaller {
    client: PeerClient<Channel>,
}

impl PeerCaller {
    /// Connects to a peer address.
    pub(crate) async fn connect(address: &str) -> Result<Self, PeerError> {
        let channel = connect(address).await.map_err(|e| PeerError::Unanswered(error_chain(&e)))?;
        Ok(Self::over(channel))
    }

    /// Calls over an open connection.
    pub(crate) fn over(channel: Channel) -> Self {
        let client = PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        PeerCaller { client }
    }

    /// A caller that connects when it is used, for tests.
    #[cfg(test)]
    pub(crate) fn unconnected() -> Self {
        let endpoint = tonic::transport::Endpoint::from_static("http://127.0.0.1:9");
        PeerCaller { client: PeerClient::new(endpoint.connect_lazy()) }
    }

    /// Sends the order to bootstrap a cluster; on return the node has recorded it.
    pub(crate) async fn bootstrap(&mut self, bootstrap: &Bootstrap) -> Result<(), PeerError> {
        let request = wire::BootstrapRequest { bootstrap: bootstrap.encode().into() };
        let reply = answer(CALL_TIMEOUT, self.client.bootstrap(request)).await?;
        if Bootstrap::decode(&reply.bootstrap).map_err(unreadable)? == *bootstrap {
            return Ok(());
        }
        Err(PeerError::Refused("it has recorded another order".to_owned()))
    }

    /// Waits up to `wait` for a topology that is newer than `revision`.
    pub(crate) async fn watch_topology(
        &mut self,
        hello: wire::Hello,
        revision: u64,
        wait: Duration,
    ) -> Result<Option<Topology>, PeerError> {
        let request = wire::WatchTopologyRequest { hello: Some(hello), revision };
        let reply = answer(wait + CALL_TIMEOUT, self.client.watch_topology(request)).await?;
        if reply.topology.is_empty() {
            return Ok(None);
        }
        Topology::decode(&reply.topology).map(Some).map_err(unreadable)
    }

    /// Proposes a topology command. After an error it may have been applied or not.
    pub(crate) async fn propose_topology(
        &mut self,
        hello: wire::Hello,
        command: &Command,
    ) -> Result<Proposed, PeerError> {
        let request = wire::ProposeTopologyRequest { hello: Some(hello), command: command.encode().into() };
        let reply = answer(CALL_TIMEOUT, self.client.propose_topology(request)).await?;
        Ok(proposed_from_wire(reply, command))
    }

    /// Sends a ping; returns the other node's.
    pub(crate) async fn ping(&mut self, hello: wire::Hello, ping: &Ping, within: Duration) -> Result<Ping, PeerError> {
        let request = wire::PingRequest { hello: Some(hello), ping: ping.encode().into() };
        let reply = answer(within, self.client.ping(request)).await?;
        Ping::decode(&reply.ping).map_err(unreadable)
    }

    /// Asks for the node's report.
    pub(crate) async fn report(&mut self, hello: wire::Hello, within: Duration) -> Result<NodeReport, PeerError> {
        let request = wire::ReportRequest { hello: Some(hello) };
        let reply = answer(within, self.client.report(request)).await?;
        NodeReport::decode(&reply.report).map_err(unreadable)
    }

    /// Sends an order of the reconciler, on which the node works for up to `within`. After an error
    /// it may have been executed or not.
    pub(crate) async fn execute(
        &mut self,
        hello: wire::Hello,
        order: &Order,
        within: Duration,
    ) -> Result<(), PeerError> {
        let request = wire::ExecuteRequest { hello: Some(hello), order: order.encode().into() };
        let reply = answer(within + CALL_TIMEOUT, self.client.execute(request)).await?;
        executed_from_wire(reply)
    }
}

fn unreadable(error: CodecError) -> PeerError {
    PeerError::Unanswered(error.to_string())
}
