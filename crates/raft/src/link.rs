//! The link from one replica to another of its group: single requests with their answers, and the
//! ends of append streams.

use std::time::Duration;

use openraft::errors::{NetworkError, RPCError, Timeout, Unreachable};
use openraft::network::RPCTypes;
use openraft::raft::{StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse};
use quorate_types::peer::{self, PeerBody, PeerMessage};
use quorate_types::{GroupId, NodeId, ReplicaId};
use tokio::sync::mpsc;

use crate::calls::{Answer, OpenStream};
use crate::convert;
use crate::openraft_types::{AppendRequest, TypeConfig};
use crate::transport::Lane;
use crate::wire::Wire;

/// From one replica to another of the same group.
pub(crate) struct Link {
    pub(crate) wire: Wire,
    pub(crate) group: GroupId,
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
    /// The node that hosts the receiver.
    pub(crate) node: NodeId,
}

impl Link {
    /// Opens a stream of requests: its number, and the receiver of the answers.
    pub(crate) fn open_stream(&self) -> (OpenStream, mpsc::UnboundedReceiver<Answer>) {
        self.wire.calls().open_stream()
    }

    pub(crate) fn send(&self, lane: Lane, body: PeerBody) -> Result<(), RPCError<TypeConfig>> {
        let message = PeerMessage { group: self.group, from: self.from, to: self.to, body };
        self.wire.send(self.node, lane, message).map_err(|unsent| Unreachable::new(&unsent).into())
    }

    pub(crate) fn timeout(&self, action: RPCTypes, timeout: Duration) -> RPCError<TypeConfig> {
        Timeout { action, id: self.from.0, target: self.to.0, timeout }.into()
    }

    pub(crate) fn unreachable(&self) -> RPCError<TypeConfig> {
        Unreachable::from_string(format!("replica {} does not answer calls on node {}", self.to, self.node)).into()
    }

    /// Sends one request and waits for its answer.
    async fn call(
        &self,
        action: RPCTypes,
        within: Duration,
        body: impl FnOnce(u64) -> PeerBody,
    ) -> Result<Answer, RPCError<TypeConfig>> {
        let call = self.wire.calls().open();
        self.send(Lane::Control, body(call.id()))?;
        match tokio::time::timeout(within, call.answer()).await {
            Ok(Some(Answer::Unreachable)) | Ok(None) => Err(self.unreachable()),
            Ok(Some(answer)) => Ok(answer),
            Err(_) => Err(self.timeout(action, within)),
        }
    }

    pub(crate) async fn heartbeat(
        &self,
        request: AppendRequest,
        within: Duration,
    ) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        let request = convert::our_append_request(request);
        let answer = self.call(RPCTypes::AppendEntries, within, |call| PeerBody::Heartbeat { call, request }).await?;
        match answer {
            Answer::Append { reply, .. } => Ok(convert::append_result(reply)),
            other => Err(mismatch(&other)),
        }
    }

    pub(crate) async fn vote(
        &self,
        request: VoteRequest<TypeConfig>,
        pre: bool,
        within: Duration,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = peer::VoteRequest {
            vote: convert::our_vote(&request.vote),
            last: request.last_log_id.as_ref().map(convert::our_log_id),
            leadership_transfer: request.leadership_transfer,
        };
        match self.call(RPCTypes::Vote, within, |call| PeerBody::Vote { call, pre, request }).await? {
            Answer::Vote(reply) => {
                Ok(VoteResponse::new(convert::vote(reply.vote), reply.last.map(convert::log_id), reply.granted))
            }
            other => Err(mismatch(&other)),
        }
    }

    /// Asks the receiver to take over leadership. Returns whether it accepted.
    pub(crate) async fn transfer_leader(
        &self,
        request: &TransferLeaderRequest<TypeConfig>,
        within: Duration,
    ) -> Result<bool, RPCError<TypeConfig>> {
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
pub(crate) fn mismatch(answer: &Answer) -> RPCError<TypeConfig> {
    NetworkError::from_string(format!("the answer is of another kind than the request: {answer:?}")).into()
}
