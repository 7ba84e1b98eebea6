//! Requests of other replicas to one replica: appends, heartbeats, votes, leader transfers,
//! snapshots.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::peer::{self, PeerBody, PeerMessage, SnapshotHeader};
use quorate_types::{GroupId, NodeId, ReplicaId, Vote};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::append_receive::AppendReceiver;
use crate::convert;
use crate::doubt::Doubt;
use crate::election::Election;
use crate::error::InstallError;
use crate::openraft_types as raft;
use crate::peer_network::{PeerNetwork, ReplyTo};
use crate::snapshot_data::{Received, SnapshotData};
use crate::state_machine::Raft;

/// How long requests may outlive the Raft core. openraft drops them when it stops, which takes
/// milliseconds; a fault there must not hold up the node.
const ENDED_MAX: Duration = Duration::from_secs(2);

/// The receiving side of one replica.
pub(crate) struct Inbound {
    group: GroupId,
    replica: ReplicaId,
    raft: Raft,
    peers: PeerNetwork,
    election: Arc<Election>,
    appends: AppendReceiver,
    /// The tasks that answer requests, those of `appends` included.
    tasks: TaskTracker,
    /// Held while a snapshot is installed: openraft fails on a second one during a slow
    /// installation.
    installing: tokio::sync::Mutex<()>,
    doubt: Doubt,
}

impl Inbound {
    pub(crate) fn new(
        raft: Raft,
        peers: PeerNetwork,
        group: GroupId,
        replica: ReplicaId,
        election: Arc<Election>,
        doubt: Doubt,
    ) -> Self {
        let tasks = TaskTracker::new();
        let appends = AppendReceiver::new(raft.clone(), election.clone(), tasks.clone());
        let installing = tokio::sync::Mutex::default();
        Inbound { group, replica, raft, peers, election, appends, tasks, installing, doubt }
    }

    /// Waits until no task answers requests any longer, at most [`ENDED_MAX`]. Call it after the
    /// Raft core has stopped: it drops the requests in progress.
    pub(crate) async fn ended(&self) {
        self.appends.close();
        self.tasks.close();
        if timeout(ENDED_MAX, self.tasks.wait()).await.is_err() {
            warn!(group = %self.group, replica = %self.replica, requests = self.tasks.len(), "requests never ended");
        }
    }

    /// Handles a request of another replica. Never blocks.
    pub(crate) fn receive(&self, node: NodeId, message: PeerMessage) {
        assert_eq!((message.group, message.to), (self.group, self.replica), "a message reaches its addressee");
        let to = ReplyTo {
            peers: self.peers.clone(),
            group: self.group,
            from: self.replica,
            node,
            replica: message.from,
            doubt: self.doubt.clone(),
        };
        match message.body {
            PeerBody::Append { stream, sequence, request } => self.appends.append(to, stream, sequence, request),
            PeerBody::Heartbeat { call, request } => self.appends.heartbeat(to, call, request),
            PeerBody::Vote { call, pre, request } => self.vote(to, call, pre, request),
            PeerBody::TransferLeader { call, from_leader, target, last } => {
                let request =
                    raft::TransferLeaderRequest::new(convert::vote(from_leader), target.0, last.map(convert::log_id));
                self.transfer_leader(to, call, request);
            }
            PeerBody::AppendReply { .. }
            | PeerBody::HeartbeatReply { .. }
            | PeerBody::VoteReply { .. }
            | PeerBody::TransferReply { .. }
            | PeerBody::Unreachable { .. }
            | PeerBody::Doubtful { .. } => unreachable!("answers go to the table of calls"),
            PeerBody::LostEntries { .. } => unreachable!("the node's groups handle it"),
        }
    }

    fn vote(&self, to: ReplyTo, call: u64, pre: bool, request: peer::VoteRequest) {
        if Instant::now() < self.election.votes_from() {
            return to.send(PeerBody::Unreachable { call });
        }
        let (raft, election) = (self.raft.clone(), self.election.clone());
        self.tasks.spawn(async move {
            let mut rpc = raft::VoteRequest::new(convert::vote(request.vote), request.last.map(convert::log_id));
            rpc.leadership_transfer = request.leadership_transfer;
            let answer = if pre { raft.pre_vote(rpc).await } else { raft.vote(rpc).await };
            to.send(match answer {
                Ok(response) => {
                    if response.vote_granted && !pre {
                        election.contact(Instant::now());
                    }
                    let reply = peer::VoteReply {
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

    fn transfer_leader(&self, to: ReplyTo, call: u64, request: raft::TransferLeaderRequest) {
        let raft = self.raft.clone();
        self.tasks.spawn(async move {
            to.send(match raft.handle_transfer_leader(request).await {
                Ok(answer) => PeerBody::TransferReply { call, accepted: answer.is_ok() },
                Err(_stopped) => PeerBody::Unreachable { call },
            });
        });
    }

    /// Installs a received and verified snapshot. Returns the replica's vote.
    pub(crate) async fn install(&self, header: SnapshotHeader, received: Received) -> Result<Vote, InstallError> {
        assert_eq!((header.group, header.to), (self.group, self.replica), "a snapshot reaches its addressee");
        let _turn = self.installing.lock().await;
        if self.doubt.is_raised() {
            return Err(InstallError::NoReplica { group: self.group, replica: self.replica });
        }
        let snapshot =
            openraft::Snapshot { meta: convert::snapshot_meta(&header.meta), snapshot: SnapshotData::Staged(received) };
        let installed = self.raft.install_full_snapshot(convert::vote(header.vote), snapshot).await;
        match installed {
            Ok(_) if self.doubt.is_raised() => Err(InstallError::Unknown("the replica is doubtful".to_owned())),
            Ok(response) => Ok(convert::our_vote(&response.vote)),
            Err(fatal) => Err(InstallError::Unknown(fatal.to_string())),
        }
    }
}
