//! openraft's network traits: one `Network` per replica that a leader or candidate talks to.
//!
//! ```text
//!   append stream   numbered requests, many in flight, answered in order        (append_stream)
//!   heartbeat       one request, one answer; never queued behind entries        (link)
//!   vote, transfer  one request, one answer                                     (link)
//!   snapshot        files over a connection of the transport's own              (snapshot_send)
//! ```
//!
//! A lost message shows as a time-out: the stream ends with an error and openraft opens the next
//! one.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption};
use openraft::raft::{
    SnapshotResponse, StreamAppendResult, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory};
use quorate_types::{GroupId, ReplicaId};

use crate::append_stream::AppendStream;
use crate::convert;
use crate::link::Link;
use crate::openraft_types::{self as raft, AppendRequest, NodeRef, TypeConfig};
use crate::snapshot_data::SnapshotData;
use crate::snapshot_send::SnapshotsOut;
use crate::wire::Wire;

/// Pause before an unreachable peer is tried again.
const BACKOFF: Duration = Duration::from_millis(50);

/// Makes the networks of one replica.
pub(crate) struct Networks {
    wire: Wire,
    snapshots: Arc<SnapshotsOut>,
    group: GroupId,
    replica: ReplicaId,
}

impl Networks {
    pub(crate) fn new(wire: Wire, snapshots: Arc<SnapshotsOut>, group: GroupId, replica: ReplicaId) -> Self {
        Networks { wire, snapshots, group, replica }
    }

    fn network(&self, target: u64, node_ref: NodeRef, purpose: Purpose) -> Network {
        let link = Link {
            wire: self.wire.clone(),
            group: self.group,
            from: self.replica,
            to: ReplicaId(target),
            node: node_ref.0,
        };
        Network { link: Arc::new(link), snapshots: self.snapshots.clone(), purpose }
    }
}

impl RaftNetworkFactory<TypeConfig> for Networks {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &NodeRef) -> Network {
        self.network(target, *node, Purpose::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &NodeRef) -> Network {
        self.network(target, *node, Purpose::Heartbeat)
    }
}

/// Whether a stream of appends carries entries or is a single heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Replication,
    Heartbeat,
}

/// From one replica to another of the same group.
pub(crate) struct Network {
    link: Arc<Link>,
    snapshots: Arc<SnapshotsOut>,
    purpose: Purpose,
}

impl NetBackoff<TypeConfig> for Network {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}

impl NetStreamAppend<TypeConfig> for Network {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, RPCError<TypeConfig>>,
    >
    where
        S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
    {
        let link = self.link.clone();
        let purpose = self.purpose;
        Box::pin(async move {
            if purpose == Purpose::Heartbeat {
                let answers = match input.next().await {
                    Some(request) => vec![link.heartbeat(request, option.soft_ttl()).await],
                    None => vec![],
                };
                return Ok(stream::iter(answers).boxed());
            }
            Ok(AppendStream::open(link, input).answers().boxed())
        })
    }
}

impl NetVote<TypeConfig> for Network {
    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.link.vote(rpc, false, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.link.vote(rpc, true, option.hard_ttl()).await
    }
}

impl NetTransferLeader<TypeConfig> for Network {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let accepted = self.link.transfer_leader(&req, option.hard_ttl()).await?;
        let refused = || TransferLeaderError::LogNotFlushed { expected: req.last_log_id().cloned(), actual: None };
        Ok(if accepted { Ok(()) } else { Err(refused()) })
    }
}

impl NetSnapshot<TypeConfig> for Network {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: raft::Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::Pinned(pinned) = snapshot.snapshot else {
            return Err(NetworkError::from_string("this snapshot holds no data to send").into());
        };
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = self.snapshots.send(&self.link, convert::our_vote(&vote), pinned) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(convert::vote(vote))),
                Err(reason) => Err(Unreachable::from_string(reason.to_string()).into()),
            }
        }
    }
}
