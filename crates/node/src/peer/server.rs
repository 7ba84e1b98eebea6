//! The peer port: what other nodes ask of this one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, stream};
use quorate_proto::peer::peer_server::Peer;
use quorate_proto::peer::{
    BootstrapRequest, BootstrapResponse, ExecuteRequest, ExecuteResponse, Frame, FramesEnd, Hello,
    ProposeTopologyRequest, ProposeTopologyResponse, ReportRequest, ReportResponse, SnapshotChunk, SnapshotReply,
    WatchTopologyRequest, WatchTopologyResponse,
};
use quorate_raft::Received;
use quorate_testpoints::fail_point;
use quorate_types::NodeId;
use quorate_types::codec::{self, Kind};
use quorate_types::peer::{SnapshotHeader, decode_frame};
use quorate_types::report::Order;
use quorate_types::topology::{Bootstrap, Command, Outcome};
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use super::client::Proposed;
use super::snapshots_in::Unstaged;
use crate::bootstrap;
use crate::handshake::check_peer;
use crate::member::Member;
use crate::node::Node;
use crate::refusal::Refusal;
use crate::{propose, reconciler};

/// How long a question for a newer topology waits for one.
pub(crate) const WATCH_WAIT: Duration = Duration::from_secs(5);

/// A peer that is refused comes again and again: why is said so often.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Reasons that are remembered to have been said. Beyond that all are forgotten.
const SAID_MAX: usize = 64;

/// Serves the peer port.
pub(crate) struct PeerService {
    node: Arc<Node>,
    /// When peers were last said to be refused, by the reason.
    said: Mutex<HashMap<String, Instant>>,
}

impl PeerService {
    /// The peer service of a node.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        PeerService { node, said: Mutex::default() }
    }

    /// Says why a peer is refused, unless that was said a moment ago.
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

    /// As [`greet`](Self::greet), and refuses a node that was removed: it may only ask what became of the cluster.
    fn greet_living(&self, hello: Option<Hello>) -> Result<(Arc<Member>, NodeId), Refusal> {
        let (member, from) = self.greet(hello)?;
        if member.feed.latest().is_some_and(|map| map.topology.is_removed(from)) {
            return Err(Refusal::Handshake(format!(
                "node {from} was removed from this cluster; start it again with an empty data directory and --join"
            )));
        }
        Ok((member, from))
    }

    /// Checks who calls; gives the member that this node is, and the caller's id.
    fn greet(&self, hello: Option<Hello>) -> Result<(Arc<Member>, NodeId), Refusal> {
        let member = self.node.require_member()?;
        let from = check_peer(hello, member.identity)?;
        Ok((member, from))
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn frames(&self, request: Request<Streaming<Frame>>) -> Result<Response<FramesEnd>, Status> {
        let mut frames = request.into_inner();
        let first = frames.message().await?.ok_or_else(|| Refusal::Invalid("the stream is empty".to_owned()))?;
        let (member, from) = self.greet_living(first.hello).inspect_err(|refusal| self.say_refused(refusal))?;
        debug!(%from, "peer connected here");
        loop {
            let frame = tokio::select! {
                frame = frames.message() => frame?,
                () = self.node.closed() => None,
            };
            let Some(frame) = frame else { return Ok(Response::new(FramesEnd {})) };
            let messages = decode_frame(&frame.messages).map_err(|e| Refusal::Invalid(e.to_string()))?;
            for message in messages {
                member.groups.receive(from, message);
            }
        }
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<SnapshotReply>, Status> {
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
        let groups = member.groups.clone();
        let received = Received::new(staged.files().to_vec(), staged);
        // Goes on when the sender hangs up: Raft installs what it was once given.
        let install = tokio::spawn(async move { groups.receive_snapshot(header, received).await });
        let installed = install.await.map_err(|e| Refusal::Unavailable(e.to_string()))?;
        let vote = installed.map_err(|error| Refusal::Unavailable(error.to_string()))?;
        info!(%from, %group, %replica, "snapshot installed");
        fail_point("snapshot-installed");
        Ok(Response::new(SnapshotReply { vote: codec::encode(Kind::Vote, &vote).into() }))
    }

    async fn bootstrap(&self, request: Request<BootstrapRequest>) -> Result<Response<BootstrapResponse>, Status> {
        let order = Bootstrap::decode(&request.into_inner().bootstrap).map_err(|e| Refusal::Invalid(e.to_string()))?;
        let recorded = bootstrap::accept(self.node.clone(), order).await?;
        Ok(Response::new(BootstrapResponse { bootstrap: recorded.encode().into() }))
    }

    async fn watch_topology(
        &self,
        request: Request<WatchTopologyRequest>,
    ) -> Result<Response<WatchTopologyResponse>, Status> {
        let WatchTopologyRequest { hello, revision } = request.into_inner();
        let (member, _) = self.greet(hello)?;
        let newer = tokio::select! {
            map = member.feed.newer_than(revision) => map.topology.encode(),
            () = tokio::time::sleep(WATCH_WAIT) => Vec::new(),
            () = self.node.closed() => return Err(Refusal::Stopping.into()),
        };
        Ok(Response::new(WatchTopologyResponse { topology: newer.into() }))
    }

    async fn propose_topology(
        &self,
        request: Request<ProposeTopologyRequest>,
    ) -> Result<Response<ProposeTopologyResponse>, Status> {
        let ProposeTopologyRequest { hello, command } = request.into_inner();
        let (member, from) = self.greet_living(hello)?;
        let command = Command::decode(&command).map_err(|e| Refusal::Invalid(e.to_string()))?;
        info!(%from, ?command, "topology command");
        Ok(Response::new(match propose::here(&member, &command).await? {
            Proposed::NotLeader(leader) => ProposeTopologyResponse {
                is_not_leader: true,
                not_leader: leader.map_or(0, |NodeId(node)| node),
                ..Default::default()
            },
            Proposed::Outcome(outcome) => match outcome {
                Outcome::Done => ProposeTopologyResponse::default(),
                Outcome::Node(node) => ProposeTopologyResponse { id: node.0, ..Default::default() },
                Outcome::Operation { id, already } => {
                    ProposeTopologyResponse { id: id.0, already, ..Default::default() }
                }
                Outcome::Move(_) => ProposeTopologyResponse::default(),
                Outcome::Refused(refused) => ProposeTopologyResponse { refused, ..Default::default() },
            },
        }))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let (member, _) = self.greet_living(request.into_inner().hello)?;
        let report = reconciler::own_report(&self.node, &member);
        Ok(Response::new(ReportResponse { report: report.encode().into() }))
    }

    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<ExecuteResponse>, Status> {
        let ExecuteRequest { hello, order } = request.into_inner();
        let (member, from) = self.greet_living(hello)?;
        let order = Order::decode(&order).map_err(|e| Refusal::Invalid(e.to_string()))?;
        info!(%from, ?order, "order of the reconciler");
        let refused = reconciler::execute(&member, &order).await.err().unwrap_or_default();
        Ok(Response::new(ExecuteResponse { refused }))
    }
}

fn data_of(chunks: Streaming<SnapshotChunk>) -> impl Stream<Item = Result<Bytes, String>> + Send {
    stream::unfold(chunks, async |mut chunks| {
        let chunk = chunks.message().await.map_err(|status| status.to_string()).transpose()?;
        Some((chunk.map(|chunk| chunk.data), chunks))
    })
}
