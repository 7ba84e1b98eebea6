//! The peer service: calls and streams from other nodes.

use std::sync::Arc;

use futures::stream::BoxStream;
use quorate_control::proposer::propose_here;
use quorate_control::{orders, pings, watch};
use quorate_proto::peer as wire;
use quorate_proto::peer::peer_server::Peer;
use quorate_types::peer::{SnapshotHeader, decode_frame};
use quorate_types::ping::Ping;
use quorate_types::report::Order;
use quorate_types::topology::{Bootstrap, Command};
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

use super::callers::Callers;
use super::snapshot::Receiver;
use crate::bootstrap;
use crate::node::Node;
use crate::peer::{executed_to_wire, proposed_to_wire};
use crate::refusal::Refusal;

/// Serves the peer port.
pub(crate) struct PeerService {
    node: Arc<Node>,
    callers: Callers,
}

impl PeerService {
    /// The peer service of a node.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        PeerService { callers: Callers::new(node.clone()), node }
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn frames(&self, request: Request<Streaming<wire::Frame>>) -> Result<Response<wire::FramesEnd>, Status> {
        let mut frames = request.into_inner();
        let first = frames.message().await?.ok_or_else(|| Refusal::Invalid("the stream is empty".to_owned()))?;
        let (member, from) =
            self.callers.greet_living(first.hello).inspect_err(|refusal| self.callers.say_refused(refusal))?;
        debug!(%from, "peer connected here");
        loop {
            let frame = tokio::select! {
                frame = frames.message() => frame?,
                () = self.node.life.closed() => None,
            };
            let Some(frame) = frame else { return Ok(Response::new(wire::FramesEnd {})) };
            let messages = decode_frame(&frame.messages).map_err(|e| Refusal::Invalid(e.to_string()))?;
            for message in messages {
                member.store().groups.receive(from, message);
            }
        }
    }

    type SnapshotStream = BoxStream<'static, Result<wire::SnapshotReply, Status>>;

    async fn snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.ok_or_else(|| Refusal::Invalid("the stream is empty".to_owned()))?;
        let (member, from) = self.callers.greet_living(first.hello)?;
        let header = SnapshotHeader::decode(&first.header).map_err(|e| Refusal::Invalid(e.to_string()))?;
        let receiver = Receiver { node: self.node.clone(), member };
        Ok(Response::new(receiver.receive(from, header, chunks)))
    }

    async fn bootstrap(
        &self,
        request: Request<wire::BootstrapRequest>,
    ) -> Result<Response<wire::BootstrapResponse>, Status> {
        let order = Bootstrap::decode(&request.into_inner().bootstrap).map_err(|e| Refusal::Invalid(e.to_string()))?;
        let recorded = bootstrap::accept(self.node.clone(), order).await?;
        Ok(Response::new(wire::BootstrapResponse { bootstrap: recorded.encode().into() }))
    }

    async fn watch_topology(
        &self,
        request: Request<wire::WatchTopologyRequest>,
    ) -> Result<Response<wire::WatchTopologyResponse>, Status> {
        let wire::WatchTopologyRequest { hello, revision } = request.into_inner();
        let (member, _) = self.callers.greet(hello)?;
        let newer = tokio::select! {
            newer = watch::answer(&member.store().feed, revision) => newer,
            () = self.node.life.closed() => return Err(Refusal::Stopping.into()),
        };
        Ok(Response::new(wire::WatchTopologyResponse {
            topology: newer.map(|newer| newer.encode()).unwrap_or_default().into(),
        }))
    }

    async fn propose_topology(
        &self,
        request: Request<wire::ProposeTopologyRequest>,
    ) -> Result<Response<wire::ProposeTopologyResponse>, Status> {
        let wire::ProposeTopologyRequest { hello, command } = request.into_inner();
        let (member, from) = self.callers.greet_living(hello)?;
        let command = Command::decode(&command).map_err(|e| Refusal::Invalid(e.to_string()))?;
        info!(%from, ?command, "topology command");
        let proposed = propose_here(&member.plane, &command).await.map_err(Refusal::from)?;
        Ok(Response::new(proposed_to_wire(proposed)))
    }

    async fn ping(&self, request: Request<wire::PingRequest>) -> Result<Response<wire::PingResponse>, Status> {
        let wire::PingRequest { hello, ping } = request.into_inner();
        let (member, from) = self.callers.greet_living(hello)?;
        let ping = Ping::decode(&ping).map_err(|e| Refusal::Invalid(e.to_string()))?;
        if ping.node != from {
            return Err(Refusal::Invalid(format!("a ping of node {} from node {from}", ping.node)).into());
        }
        Ok(Response::new(wire::PingResponse { ping: pings::answer(&member.plane, &ping).encode().into() }))
    }

    async fn report(&self, request: Request<wire::ReportRequest>) -> Result<Response<wire::ReportResponse>, Status> {
        let (member, _) = self.callers.greet_living(request.into_inner().hello)?;
        let report = orders::own_report(&member.plane);
        Ok(Response::new(wire::ReportResponse { report: report.encode().into() }))
    }

    async fn execute(&self, request: Request<wire::ExecuteRequest>) -> Result<Response<wire::ExecuteResponse>, Status> {
        let wire::ExecuteRequest { hello, order } = request.into_inner();
        let (member, from) = self.callers.greet_living(hello)?;
        let order = Order::decode(&order).map_err(|e| Refusal::Invalid(e.to_string()))?;
        info!(%from, ?order, "order of the reconciler");
        let executed = orders::execute(&member.plane, &order).await;
        Ok(Response::new(executed_to_wire(executed)))
    }
}
