//! Messages of other nodes: answers go to the calls that wait for them, requests and snapshots to
//! their replicas.

use quorate_machine::state::StateError;
use quorate_testpoints::Bug;
use quorate_types::peer::{PeerBody, PeerMessage, SnapshotHeader, SnapshotMeta};
use quorate_types::{GroupId, NodeId, ReplicaId, Vote};
use tracing::{Instrument, info_span};

use super::Groups;
use crate::blocking;
use crate::calls::Answer;
use crate::error::InstallError;
use crate::snapshot_data::Received;

impl Groups {
    /// Handles a message of another node. Never blocks.
    pub fn receive(&self, from: NodeId, message: PeerMessage) {
        let calls = self.shared.opener.peers.calls();
        match message.body {
            PeerBody::AppendReply { stream, sequence, reply } => {
                calls.answer(stream, Answer::Append { sequence, reply })
            }
            PeerBody::HeartbeatReply { call, reply } => calls.answer(call, Answer::Append { sequence: 0, reply }),
            PeerBody::VoteReply { call, reply } => calls.answer(call, Answer::Vote(reply)),
            PeerBody::TransferReply { call, accepted } => calls.answer(call, Answer::Transfer { accepted }),
            PeerBody::Unreachable { call } => calls.answer(call, Answer::Unreachable),
            PeerBody::Doubtful { call } => calls.answer(call, Answer::Doubtful),
            PeerBody::LostEntries { confirmed } => self.lost_entries(from, message.to, message.group, confirmed),
            PeerBody::Append { stream: call, .. }
            | PeerBody::Heartbeat { call, .. }
            | PeerBody::Vote { call, .. }
            | PeerBody::TransferLeader { call, .. } => self.request(from, call, message),
        }
    }

    fn request(&self, from: NodeId, call: u64, message: PeerMessage) {
        match self.shared.replicas.find(message.to, message.group) {
            Some(replica) => replica.inbound().receive(from, message),
            None => {
                let is_doubtful = self.shared.doubtful.is_marked(message.to);
                let body = if is_doubtful { PeerBody::Doubtful { call } } else { PeerBody::Unreachable { call } };
                let answer = PeerMessage { group: message.group, from: message.to, to: message.from, body };
                self.shared.opener.peers.answer(from, answer);
            }
        }
    }

    /// Whether a replica is open here.
    pub fn has_replica(&self, group: GroupId, replica: ReplicaId) -> bool {
        self.shared.replicas.find(replica, group).is_some()
    }

    /// Verifies a received snapshot and installs it. Returns the replica's vote. Calls `progress`
    /// now and then during the verification. After [`InstallError::Unknown`] the installation may
    /// still be running.
    ///
    /// The replica votes and answers during the verification, whose time depends on the size of the
    /// files: Raft gets only files that are verified, and their installation reads no data.
    pub async fn receive_snapshot(
        &self,
        header: SnapshotHeader,
        received: Received,
        progress: impl FnMut() + Send + 'static,
    ) -> Result<Vote, InstallError> {
        let SnapshotHeader { group, from, to: replica, vote, .. } = header;
        let Some(receiver) = self.shared.replicas.find(replica, group) else {
            return Err(InstallError::NoReplica { group, replica });
        };
        let node = self.shared.opener.options.node;
        let span = info_span!("receive_snapshot", %node, %group, %from, to = %replica, term = vote.term);
        async {
            let received = self.verify(replica, header.meta.clone(), received, progress).await?;
            receiver.inbound().install(header, received).await
        }
        .instrument(span)
        .await
    }

    async fn verify(
        &self,
        replica: ReplicaId,
        meta: SnapshotMeta,
        received: Received,
        mut progress: impl FnMut() + Send + 'static,
    ) -> Result<Received, InstallError> {
        if Bug::SnapshotUnverified.is_on() {
            return Ok(received);
        }
        let state = self.shared.opener.state.clone();
        let verified = blocking::elsewhere(move || {
            let verified = state.verify(replica, received.files(), &meta, &mut progress);
            verified.map(|()| received)
        });
        let verified = verified.await.map_err(|ended| InstallError::Unknown(ended.to_string()))?;
        verified.map_err(|error| match error {
            StateError::Snapshot { .. } | StateError::Corrupt { .. } => InstallError::Bad(error.to_string()),
            StateError::Io(_) => InstallError::Failed(error.to_string()),
        })
    }
}
