//! The peer service: calls and streams from other nodes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, stream};
use quorate_control::orders::{execute, own_report};
use quorate_control::proposer::propose_here;
use quorate_control::watch;
use quorate_proto::peer as wire;
use quorate_proto::peer::peer_server::Peer;
use quorate_raft::Received;
use quorate_testpoints::fail_point;
use quorate_types::NodeId;
use quorate_types::codec::{self, Kind};
use quorate_types::peer::{SnapshotHeader, decode_frame};
use quorate_types::report::Order;
use quorate_types::topology::{Bootstrap, Command};
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use crate::bootstrap;
use crate::handshake::check_peer;
use crate::member::Member;
use crate::node::Node;
use crate::peer::{Unstaged, proposed_to_wire};
use crate::refusal::Refusal;

/// A refused peer reconnects soon: the reason is logged this often.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Reasons that are remembered as logged. With more, all are forgotten.
const SAID_MAX: usize = 64;

/// Serves the peer port.
pub(crate) struct PeerService {
    node: Arc<Node>,
    /// When each reason for refusing a peer was last logged.
    said: Mutex<HashMap<String, Instant>>,
}

impl PeerService {
    /// The peer service of a node.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        PeerService { node, said: Mutex::default() }
    }

    /// Logs why a peer is refused, unless the same reason was logged a moment ago.
    fn say_refused(&self, refusal: &Refusal) {
        let reason = refusal.to_string();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(&reason).is_some_and(|at| at.elapsed() < SAY_AGAIN) {
            return debug!(reason, "peer refused");
        }
        warn!(reason, "peer refused");
        if said.len() >= SAID_MAX {
            said.clear();
        }
        said.insert(reason, Instant::now());
    }

    /// Like [`greet`](Self::greet), but refuses removed nodes: they may only watch the topology.
    fn greet_living(&self, hello: Option<wire::Hello>) -> Result<(Arc<Member>, NodeId), Refusal> {
        let (member, from) = self.greet(hello)?;
        if member.store().feed.latest().is_some_and(|map| map.topology.is_removed(from)) {
            return Err(Refusal::Handshake(format!(
                "node {from} was removed from this cluster; start it again with an empty data directory and --join"
            )));
        }
        Ok((member, from))
    }

    /// Checks the caller's hello. Returns this node's membership and the caller's id.
    fn greet(&self, hello: Option<wire::Hello>) -> Result<(Arc<Member>, NodeId), Refusal> {
        let member = self.node.require_member()?;
        let from = check_peer(hello, member.store().identity)?;
        Ok((member, from))
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn frames(&self, request: Request<Streaming<wire::Frame>>) -> Result<Response<wire::FramesEnd>, Status> {
        let mut frames = request.into_inner();
        let first = frames.message().await?.ok_or_else(|| Refusal::Invalid("the stream is empty".to_owned()))?;
        let (member, from) = self.greet_living(first.hello).inspect_err(|refusal| self.say_refused(refusal))?;
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

    async fn snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Result<Response<wire::SnapshotReply>, Status> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.ok_or_else(|| Refusal::Invalid("the stream is empty".to_owned()))?;
        let (member, from) = self.greet_living(first.hello)?;
        let header: SnapshotHeader =
            codec::decode(Kind::SnapshotHeader, &first.header).map_err(|e| Refusal::Invalid(e.to_string()))?;
        let (group, replica) = (header.group, header.to);
        let received = self.node.staging.receive(&header.files, data_of(chunks)).await;
        let staged = received.map_err(|unstaged| {
            warn!(%from, %group, %replica, reason = %unstaged, "snapshot refused");
            match unstaged {
                Unstaged::Busy => Refusal::Busy(unstaged.to_string()),
                Unstaged::Broken(reason) => Refusal::Unavailable(reason),
            }
        })?;
        fail_point("snapshot-staged");
        let groups = member.store().groups.clone();
        let received = Received::new(staged.files().to_vec(), staged);
        // Continues if the sender disconnects: Raft completes an installation that it has begun.
        let install = tokio::spawn(async move { groups.receive_snapshot(header, received).await });
        let installed = install.await.map_err(|e| Refusal::Unavailable(e.to_string()))?;
        let vote = installed.map_err(|error| Refusal::Unavailable(error.to_string()))?;
        info!(%from, %group, %replica, "snapshot installed");
        fail_point("snapshot-installed");
        Ok(Response::new(wire::SnapshotReply { vote: codec::encode(Kind::Vote, &vote).into() }))
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
        let (member, _) = self.greet(hello)?;
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
        let (member, from) = self.greet_living(hello)?;
        let command = Command::decode(&command).map_err(|e| Refusal::Invalid(e.to_string()))?;
        info!(%from, ?command, "topology command");
        let proposed = propose_here(member.store(), &command).await.map_err(Refusal::from)?;
        Ok(Response::new(proposed_to_wire(proposed)))
    }

    async fn report(&self, request: Request<wire::ReportRequest>) -> Result<Response<wire::ReportResponse>, Status> {
        let (member, _) = self.greet_living(request.into_inner().hello)?;
        let report = own_report(&member.plane);
        Ok(Response::new(wire::ReportResponse { report: report.encode().into() }))
    }

    async fn execute(&self, request: Request<wire::ExecuteRequest>) -> Result<Response<wire::ExecuteResponse>, Status> {
        let wire::ExecuteRequest { hello, order } = request.into_inner();
        let (member, from) = self.greet_living(hello)?;
        let order = Order::decode(&order).map_err(|e| Refusal::Invalid(e.to_string()))?;
        info!(%from, ?order, "order of the reconciler");
        let refused = execute(&member.plane, &order).await.err().map_or_else(String::new, |error| error.to_string());
        Ok(Response::new(wire::ExecuteResponse { refused }))
    }
}

fn data_of(chunks: Streaming<wire::SnapshotChunk>) -> impl Stream<Item = Result<Bytes, Unstaged>> + Send {
    stream::unfold(chunks, async |mut chunks| {
        let chunk = chunks.message().await.map_err(|status| Unstaged::Broken(status.to_string())).transpose()?;
        Some((chunk.map(|chunk| chunk.data), chunks))
    })
}
