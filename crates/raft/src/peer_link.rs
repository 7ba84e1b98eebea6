//! The link from one replica to another of its group: single requests with their answers, and the
//! ends of append streams.

use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{NetworkError, Timeout, Unreachable};
use openraft::network::RPCTypes;
use quorate_types::peer::{self, AppendReply, PeerBody, PeerMessage};
use quorate_types::{GroupId, LogId, NodeId, ReplicaId};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::error;

use crate::acknowledged::Acknowledged;
use crate::calls::{Answer, OpenStream};
use crate::convert;
use crate::doubt::Doubt;
use crate::openraft_types as raft;
use crate::peer_network::PeerNetwork;
use crate::transport::Lane;

/// From one replica to another of the same group.
pub(crate) struct PeerLink {
    pub(crate) peers: PeerNetwork,
    pub(crate) group: GroupId,
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
    /// The node that hosts the receiver.
    pub(crate) node: NodeId,
    /// Whether the sender is doubtful: then it sends nothing.
    pub(crate) doubt: Doubt,
    /// The entries that the receiver confirmed.
    pub(crate) acknowledged: Arc<Acknowledged>,
}

impl PeerLink {
    /// Opens a stream of requests: its number, and the receiver of the answers.
    pub(crate) fn open_stream(&self) -> (OpenStream, mpsc::UnboundedReceiver<Answer>) {
        self.peers.calls().open_stream()
    }

    pub(crate) fn send(&self, lane: Lane, body: PeerBody) -> Result<(), raft::RpcError> {
        if self.doubt.is_raised() {
            return Err(self.unreachable());
        }
        let message = PeerMessage { group: self.group, from: self.from, to: self.to, body };
        self.peers.send(self.node, lane, message).map_err(|unsent| Unreachable::new(&unsent).into())
    }

    /// The error for appends of a stream that were not answered within `timeout`.
    pub(crate) fn append_timeout(&self, timeout: Duration) -> raft::RpcError {
        self.timeout(RPCTypes::AppendEntries, timeout)
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> raft::RpcError {
        Timeout { action, id: self.from.0, target: self.to.0, timeout }.into()
    }

    pub(crate) fn unreachable(&self) -> raft::RpcError {
        Unreachable::from_string(format!("replica {} does not answer calls on node {}", self.to, self.node)).into()
    }

    /// Checks the log of the receiver, which said that it lacks the entry at the index `missing`.
    /// `known` is the last entry that it had confirmed when the request was sent. If that is as far
    /// or further, the receiver lost entries: tells it so, and returns an error in place of its
    /// answer.
    pub(crate) fn check_whole(&self, known: Option<LogId>, missing: u64) -> Result<(), raft::RpcError> {
        let Some(confirmed) = known.filter(|known| known.index >= missing) else { return Ok(()) };
        error!(
            group = %self.group, replica = %self.to, node = %self.node, missing, ?confirmed,
            "a replica lost log entries that it had confirmed: it gets no more entries and must be replaced"
        );
        self.acknowledged.lost(confirmed, Instant::now());
        self.tell_lost(confirmed);
        Err(self.unreachable())
    }

    /// Whether the receiver may be sent requests. One that lost entries gets a message about that
    /// every few seconds instead.
    pub(crate) fn is_trusted(&self) -> bool {
        if let Some(confirmed) = self.acknowledged.due(Instant::now()) {
            self.tell_lost(confirmed);
        }
        self.acknowledged.is_trusted()
    }

    fn tell_lost(&self, confirmed: LogId) {
        // A message that is lost is sent again later.
        let _ = self.send(Lane::Control, PeerBody::LostEntries { confirmed });
    }

    /// The receiver answered that it is doubtful.
    pub(crate) fn doubtful(&self) -> raft::RpcError {
        self.acknowledged.set_doubtful();
        self.unreachable()
    }

    /// Sends one request and waits for its answer.
    async fn call(
        &self,
        action: RPCTypes,
        within: Duration,
        body: impl FnOnce(u64) -> PeerBody,
    ) -> Result<Answer, raft::RpcError> {
        let call = self.peers.calls().open();
        self.send(Lane::Control, body(call.id()))?;
        match tokio::time::timeout(within, call.answer()).await {
            Ok(Some(Answer::Unreachable)) | Ok(None) => Err(self.unreachable()),
            Ok(Some(Answer::Doubtful)) => Err(self.doubtful()),
            Ok(Some(answer)) => Ok(answer),
            Err(_) => Err(self.timeout(action, within)),
        }
    }

    pub(crate) async fn heartbeat(
        &self,
        request: raft::AppendRequest,
        within: Duration,
    ) -> Result<raft::AppendResult, raft::RpcError> {
        let request = convert::our_append_request(request);
        // openraft's heartbeats name the last entry that it knows as confirmed.
        self.acknowledged.confirm(request.vote, request.prev, request.commit);
        let known = self.acknowledged.known(Some(request.vote));
        if !self.is_trusted() {
            return Err(self.unreachable());
        }
        let answer = self.call(RPCTypes::AppendEntries, within, |call| PeerBody::Heartbeat { call, request }).await?;
        match answer {
            Answer::Append { reply, .. } => {
                if let AppendReply::Conflict(refused) = &reply {
                    self.check_whole(known, refused.index)?;
                }
                Ok(convert::append_result(reply))
            }
            other => Err(mismatch(&other)),
        }
    }

    pub(crate) async fn vote(
        &self,
        request: raft::VoteRequest,
        pre: bool,
        within: Duration,
    ) -> Result<raft::VoteResponse, raft::RpcError> {
        let request = peer::VoteRequest {
            vote: convert::our_vote(&request.vote),
            last: request.last_log_id.as_ref().map(convert::our_log_id),
            leadership_transfer: request.leadership_transfer,
        };
        let known = self.acknowledged.known(None);
        match self.call(RPCTypes::Vote, within, |call| PeerBody::Vote { call, pre, request }).await? {
            Answer::Vote(reply) => {
                self.check_whole(known, reply.last.map_or(0, |last| last.index + 1))?;
                if !self.is_trusted() {
                    return Err(self.unreachable());
                }
                Ok(raft::VoteResponse::new(convert::vote(reply.vote), reply.last.map(convert::log_id), reply.granted))
            }
            other => Err(mismatch(&other)),
        }
    }

    /// Asks the receiver to take over leadership. Returns whether it accepted.
    pub(crate) async fn transfer_leader(
        &self,
        request: &raft::TransferLeaderRequest,
        within: Duration,
    ) -> Result<bool, raft::RpcError> {
        let from_leader = convert::our_vote(request.from_leader());
        let target = ReplicaId(*request.to_node_id());
        let last = request.last_log_id().map(convert::our_log_id);
        let body = |call| PeerBody::TransferLeader { call, from_leader, target, last };
        match self.call(RPCTypes::TransferLeader, within, body).await? {
            Answer::Transfer { accepted } => Ok(accepted),
            other => Err(mismatch(&other)),
        }
    }
}

/// The error for an answer of another kind than its request.
pub(crate) fn mismatch(answer: &Answer) -> raft::RpcError {
    NetworkError::from_string(format!("the answer is of another kind than the request: {answer:?}")).into()
}
