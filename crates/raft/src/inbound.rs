//! Requests of other replicas to one replica: appends, heartbeats, votes, leader transfers,
//! snapshots.

use std::sync::Arc;

use openraft::raft::{TransferLeaderRequest, VoteRequest};
use quorate_types::peer::{self, PeerBody, PeerMessage, SnapshotHeader, VoteReply};
use quorate_types::{GroupId, NodeId, ReplicaId, Vote};
use tokio::time::Instant;

use crate::append_receive::AppendReceiver;
use crate::convert;
use crate::election::Election;
use crate::error::InstallError;
use crate::openraft_types::TypeConfig;
use crate::snapshot_data::{Received, SnapshotData};
use crate::state_machine::Raft;
use crate::wire::{ReplyTo, Wire};

/// The receiving side of one replica.
pub(crate) struct Inbound {
    group: GroupId,
    replica: ReplicaId,
    raft: Raft,
    wire: Wire,
    election: Arc<Election>,
    appends: AppendReceiver,
    /// Held while a snapshot is installed: openraft fails on a second one during a slow
    /// installation.
    installing: tokio::sync::Mutex<()>,
}

impl Inbound {
    pub(crate) fn new(raft: Raft, wire: Wire, group: GroupId, replica: ReplicaId, election: Arc<Election>) -> Self {
        let appends = AppendReceiver::new(raft.clone(), election.clone());
        Inbound { group, replica, raft, wire, election, appends, installing: tokio::sync::Mutex::default() }
    }

    /// Handles a request of another replica. Never blocks.
    pub(crate) fn receive(&self, node: NodeId, message: PeerMessage) {
        assert_eq!((message.group, message.to), (self.group, self.replica), "a message reaches its addressee");
        let to =
            ReplyTo { wire: self.wire.clone(), group: self.group, from: self.replica, node, replica: message.from };
        match message.body {
            PeerBody::Append { stream, sequence, request } => self.appends.append(to, stream, sequence, request),
            PeerBody::Heartbeat { call, request } => self.appends.heartbeat(to, call, request),
            PeerBody::Vote { call, pre, request } => self.vote(to, call, pre, request),
            PeerBody::TransferLeader { call, from_leader, target, last } => {
                let request =
                    TransferLeaderRequest::new(convert::vote(from_leader), target.0, last.map(convert::log_id));
                self.transfer_leader(to, call, request);
            }
            PeerBody::AppendReply { .. }
            | PeerBody::HeartbeatReply { .. }
            | PeerBody::VoteReply { .. }
            | PeerBody::TransferReply { .. }
            | PeerBody::Unreachable { .. } => unreachable!("answers go to the table of calls"),
        }
    }

    fn vote(&self, to: ReplyTo, call: u64, pre: bool, request: peer::VoteRequest) {
        if Instant::now() < self.election.votes_from() {
            return to.send(PeerBody::Unreachable { call });
        }
        let (raft, election) = (self.raft.clone(), self.election.clone());
        tokio::spawn(async move {
            let mut rpc = VoteRequest::new(convert::vote(request.vote), request.last.map(convert::log_id));
            rpc.leadership_transfer = request.leadership_transfer;
            let answer = if pre { raft.pre_vote(rpc).await } else { raft.vote(rpc).await };
            to.send(match answer {
                Ok(response) => {
                    if response.vote_granted && !pre {
                        election.contact(Instant::now());
                    }
                    let reply = VoteReply {
                        vote: convert::our_vote(&response.vote),
                        granted: response.vote_granted,
                        last: response.last_log_id.as_ref().map(convert::our_log_id),
                    };
                    PeerBody::VoteReply { call, reply }
                }
                Err(_stopped) => PeerBody::Unreachable { call },
            });
        });
    }

    fn transfer_leader(&self, to: ReplyTo, call: u64, request: TransferLeaderRequest<TypeConfig>) {
        let raft = self.raft.clone();
        tokio::spawn(async move {
            to.send(match raft.handle_transfer_leader(request).await {
                Ok(answer) => PeerBody::TransferReply { call, accepted: answer.is_ok() },
                Err(_stopped) => PeerBody::Unreachable { call },
            });
        });
    }

    /// Installs a received snapshot. Returns the replica's vote.
    pub(crate) async fn install(&self, header: SnapshotHeader, received: Received) -> Result<Vote, InstallError> {
        let _turn = self.installing.lock().await;
        let snapshot =
            openraft::Snapshot { meta: convert::snapshot_meta(&header.meta), snapshot: SnapshotData::Staged(received) };
        let installed = self.raft.install_full_snapshot(convert::vote(header.vote), snapshot).await;
        match installed {
            Ok(response) => Ok(convert::our_vote(&response.vote)),
            Err(fatal) => Err(InstallError::Unknown(fatal.to_string())),
        }
    }
}
