//! openraft's network traits: one [`PeerClient`] per replica that a leader or candidate talks to.
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
use openraft::errors::{NetworkError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption};
use openraft::raft::{SnapshotResponse, TransferLeaderError, TransferLeaderResponse};
use openraft::{OptionalSend, RaftNetworkFactory};
use quorate_types::{GroupId, ReplicaId};

use crate::acknowledged::Acknowledged;
use crate::append_stream::{AppendAnswer, AppendStream};
use crate::convert;
use crate::doubt::Doubt;
use crate::openraft_types::{self as raft, NodeRef, TypeConfig};
use crate::peer_link::PeerLink;
use crate::peer_network::PeerNetwork;
use crate::snapshot_data::SnapshotData;
use crate::snapshot_slots::SnapshotsOut;

/// Pause before an unreachable peer is tried again.
const BACKOFF: Duration = Duration::from_millis(50);
/// The longest pause before a snapshot is tried again. It doubles up to that: while a node is away
/// or has no free slot, all groups that it lacks ask for it.
const SNAPSHOT_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Pause before a replica that lost entries is tried again. It never answers until it is replaced,
/// and a try costs a message at most.
const DISTRUST_PAUSE: Duration = Duration::from_millis(500);
/// Replicas whose confirmations are remembered: the members of the group, and former ones. The one
/// whose network was made the longest time ago is forgotten first.
const ACKNOWLEDGED_MAX: usize = 64;

/// Makes the networks of one replica.
pub(crate) struct NetworkFactory {
    peers: PeerNetwork,
    snapshots: Arc<SnapshotsOut>,
    group: GroupId,
    replica: ReplicaId,
    /// Whether the replica itself is doubtful.
    doubt: Doubt,
    /// By replica: the entries that it confirmed. Those whose networks were made last come last.
    acknowledged: Vec<(ReplicaId, Arc<Acknowledged>)>,
}

impl NetworkFactory {
    pub(crate) fn new(
        peers: PeerNetwork,
        snapshots: Arc<SnapshotsOut>,
        group: GroupId,
        replica: ReplicaId,
        doubt: Doubt,
    ) -> Self {
        NetworkFactory { peers, snapshots, group, replica, doubt, acknowledged: Vec::new() }
    }

    fn acknowledged(&mut self, target: ReplicaId) -> Arc<Acknowledged> {
        let place = self.acknowledged.iter().position(|(replica, _)| *replica == target);
        let (_, known) = place.map(|place| self.acknowledged.remove(place)).unwrap_or_else(|| (target, Arc::default()));
        if self.acknowledged.len() == ACKNOWLEDGED_MAX {
            self.acknowledged.remove(0);
        }
        self.acknowledged.push((target, known.clone()));
        assert!(self.acknowledged.len() <= ACKNOWLEDGED_MAX, "confirmations are remembered of a bounded number");
        known
    }

    fn network(&mut self, target: u64, node_ref: NodeRef, purpose: Purpose) -> PeerClient {
        let link = PeerLink {
            peers: self.peers.clone(),
            group: self.group,
            from: self.replica,
            to: ReplicaId(target),
            node: node_ref.0,
            doubt: self.doubt.clone(),
            acknowledged: self.acknowledged(ReplicaId(target)),
        };
        PeerClient { link: Arc::new(link), snapshots: self.snapshots.clone(), purpose }
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = PeerClient;

    async fn new_client(&mut self, target: u64, node: &NodeRef) -> PeerClient {
        self.network(target, *node, Purpose::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &NodeRef) -> PeerClient {
        self.network(target, *node, Purpose::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &NodeRef) -> PeerClient {
        self.network(target, *node, Purpose::Snapshot)
    }
}

/// The use of a network: a stream of appends carries entries, or is a single heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Replication,
    Heartbeat,
    Snapshot,
}

/// From one replica to another of the same group.
pub(crate) struct PeerClient {
    link: Arc<PeerLink>,
    snapshots: Arc<SnapshotsOut>,
    purpose: Purpose,
}

impl NetBackoff<TypeConfig> for PeerClient {
    fn backoff(&self) -> Option<Backoff> {
        let doubled = |pause: &Duration| Some((*pause * 2).min(SNAPSHOT_BACKOFF_MAX));
        Some(match self.purpose {
            Purpose::Snapshot => Backoff::new(std::iter::successors(Some(BACKOFF), doubled)),
            Purpose::Replication | Purpose::Heartbeat => Backoff::new(std::iter::repeat(BACKOFF)),
        })
    }
}

impl NetStreamAppend<TypeConfig> for PeerClient {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, AppendAnswer>, raft::RpcError>>
    where
        S: Stream<Item = raft::AppendRequest> + OptionalSend + Unpin + 'static,
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
            if !link.is_trusted() {
                let refused = async move {
                    tokio::time::sleep(DISTRUST_PAUSE).await;
                    Err(link.unreachable())
                };
                return Ok(stream::once(refused).boxed());
            }
            Ok(AppendStream::open(link, input).answers().boxed())
        })
    }
}

impl NetVote<TypeConfig> for PeerClient {
    async fn vote(&mut self, rpc: raft::VoteRequest, option: RPCOption) -> Result<raft::VoteResponse, raft::RpcError> {
        self.link.vote(rpc, false, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: raft::VoteRequest,
        option: RPCOption,
    ) -> Result<raft::VoteResponse, raft::RpcError> {
        self.link.vote(rpc, true, option.hard_ttl()).await
    }
}

impl NetTransferLeader<TypeConfig> for PeerClient {
    async fn transfer_leader(
        &mut self,
        req: raft::TransferLeaderRequest,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, raft::RpcError> {
        let accepted = self.link.transfer_leader(&req, option.hard_ttl()).await?;
        let refused = || TransferLeaderError::LogNotFlushed { expected: req.last_log_id().cloned(), actual: None };
        Ok(if accepted { Ok(()) } else { Err(refused()) })
    }
}

impl NetSnapshot<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: raft::Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let pin = match snapshot.snapshot {
            SnapshotData::Pinned(pin) => pin,
            // openraft drops this snapshot, pauses, and asks the state machine for another one.
            SnapshotData::NoSlot => return Err(Unreachable::from_string("no slot is free").into()),
            SnapshotData::Mark | SnapshotData::Staged(_) => {
                return Err(NetworkError::from_string("this snapshot holds no data to send").into());
            }
        };
        if !self.link.is_trusted() {
            drop(pin);
            return tokio::select! {
                biased;
                closed = cancel => Err(closed.into()),
                () = tokio::time::sleep(DISTRUST_PAUSE) => Err(self.link.unreachable().into()),
            };
        }
        let (vote, last) = (convert::our_vote(&vote), snapshot.meta.last_log_id.as_ref().map(convert::our_log_id));
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = self.snapshots.send(&self.link, vote, pin) => match sent {
                Ok(theirs) => {
                    if theirs == vote {
                        self.link.acknowledged.confirm(vote, last, last);
                    }
                    Ok(SnapshotResponse::new(convert::vote(theirs)))
                }
                Err(reason) => Err(Unreachable::from_string(reason.to_string()).into()),
            }
        }
    }
}
