//! What other replicas ask of this one.
//!
//! Appends of one stream go to openraft in order through one task; a request of the bulk lane may arrive after a later one of
//! the control lane, so early ones wait for their turn. Late requests of a stream that its leader has given up do not disturb
//! the stream that came after it. Everything else is one request and one answer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use openraft::raft::{AppendEntriesResponse, TransferLeaderRequest, VoteRequest};
use quorate_types::peer::{self, AppendReply, PeerBody, PeerMessage, SnapshotHeader, VoteReply};
use quorate_types::{GroupId, NodeId, ReplicaId, Vote};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::convert;
use crate::election::Election;
use crate::error::InstallError;
use crate::openraft_types::{AppendRequest, TypeConfig};
use crate::state_machine::{Raft, Received, SnapshotData};
use crate::wire::Wire;

/// Requests of one stream that may wait here. The sender keeps fewer in flight, so a full queue means a broken sender.
const APPENDS_QUEUED_MAX: usize = 256;
/// Streams that are kept of one leader: the current one, and those whose last requests may still be on their way.
const STREAMS_PER_LEADER_MAX: usize = 3;

/// Heartbeats that wait for openraft at once: they pile up while a write hangs. One more is dropped like a lost message.
const HEARTBEATS_MAX: usize = 4;

/// The receiving side of one replica.
pub(crate) struct Inbound {
    raft: Raft,
    back: Back,
    election: Arc<Election>,
    heartbeats: Arc<Semaphore>,
    /// By leader, the newest last.
    streams: Mutex<HashMap<ReplicaId, VecDeque<InboundStream>>>,
    /// Held while a snapshot is installed: openraft fails on a second one during a slow installation.
    installing: tokio::sync::Mutex<()>,
}

/// How answers go back.
#[derive(Clone)]
struct Back {
    wire: Wire,
    group: GroupId,
    replica: ReplicaId,
}

impl Back {
    fn send(&self, node: NodeId, to: ReplicaId, body: PeerBody) {
        let message = PeerMessage { group: self.group, from: self.replica, to, body };
        self.wire.answer(node, message);
    }
}

/// A stream of appends from one leader.
struct InboundStream {
    id: u64,
    next: u64,
    early: BTreeMap<u64, AppendRequest>,
    queue: mpsc::Sender<AppendRequest>,
}

impl InboundStream {
    /// Takes a request in; false if the stream is broken.
    fn accept(&mut self, sequence: u64, request: AppendRequest) -> bool {
        if sequence != self.next {
            self.early.insert(sequence, request);
            return sequence > self.next && self.early.len() <= APPENDS_QUEUED_MAX;
        }
        if self.queue.try_send(request).is_err() {
            return false;
        }
        self.next += 1;
        while let Some(request) = self.early.remove(&self.next) {
            if self.queue.try_send(request).is_err() {
                return false;
            }
            self.next += 1;
        }
        true
    }
}

impl Inbound {
    pub(crate) fn new(raft: Raft, wire: Wire, group: GroupId, replica: ReplicaId, election: Arc<Election>) -> Self {
        let heartbeats = Arc::new(Semaphore::new(HEARTBEATS_MAX));
        Inbound {
            raft,
            back: Back { wire, group, replica },
            election,
            heartbeats,
            streams: Mutex::default(),
            installing: tokio::sync::Mutex::default(),
        }
    }

    /// Handles a request of another replica. Never blocks.
    pub(crate) fn receive(&self, node: NodeId, message: PeerMessage) {
        let from = message.from;
        match message.body {
            PeerBody::Append { stream, sequence, request } => self.append(node, from, stream, sequence, request),
            PeerBody::Heartbeat { call, request } => self.heartbeat(node, from, call, request),
            PeerBody::Vote { call, pre, request } => self.vote(node, from, call, pre, request),
            PeerBody::TransferLeader { call, from_leader, target, last } => {
                self.transfer_leader(node, from, call, from_leader, target, last);
            }
            PeerBody::AppendReply { .. }
            | PeerBody::HeartbeatReply { .. }
            | PeerBody::VoteReply { .. }
            | PeerBody::TransferReply { .. }
            | PeerBody::Unreachable { .. } => unreachable!("answers are taken by the table of calls"),
        }
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

    fn append(&self, node: NodeId, from: ReplicaId, id: u64, sequence: u64, request: peer::AppendRequest) {
        let request = convert::append_request(request);
        let mut all = self.streams.lock().expect("nobody panics while holding this lock");
        let streams = all.entry(from).or_default();
        let known = streams.iter().position(|stream| stream.id == id);
        let place = known.unwrap_or_else(|| {
            let (queue, requests) = mpsc::channel(APPENDS_QUEUED_MAX);
            self.serve_stream(node, from, id, requests);
            if streams.len() == STREAMS_PER_LEADER_MAX {
                streams.pop_front();
            }
            streams.push_back(InboundStream { id, next: 0, early: BTreeMap::new(), queue });
            streams.len() - 1
        });
        if !streams[place].accept(sequence, request) {
            streams.remove(place);
            drop(all);
            self.back.send(node, from, PeerBody::Unreachable { call: id });
        }
    }

    /// Feeds a stream's requests to openraft and answers each in order, until the stream is replaced or broken.
    fn serve_stream(&self, node: NodeId, from: ReplicaId, stream: u64, requests: mpsc::Receiver<AppendRequest>) {
        let (back, election) = (self.back.clone(), self.election.clone());
        let requests = futures::stream::unfold(requests, |mut requests| async {
            let request = requests.recv().await?;
            Some((request, requests))
        });
        let answers = self.raft.stream_append(requests);
        tokio::spawn(async move {
            let mut answers = std::pin::pin!(answers);
            let mut sequence = 0;
            while let Some(answer) = answers.next().await {
                let body = match answer {
                    Ok(result) => {
                        let reply = convert::our_append_reply(&result);
                        note_leader(&election, &reply);
                        PeerBody::AppendReply { stream, sequence, reply }
                    }
                    Err(_stopped) => PeerBody::Unreachable { call: stream },
                };
                back.send(node, from, body);
                sequence += 1;
            }
        });
    }

    fn heartbeat(&self, node: NodeId, from: ReplicaId, call: u64, request: peer::AppendRequest) {
        let Ok(room) = self.heartbeats.clone().try_acquire_owned() else { return };
        let (raft, back, election) = (self.raft.clone(), self.back.clone(), self.election.clone());
        let prev = request.prev;
        tokio::spawn(async move {
            let answer = raft.append_entries(convert::append_request(request)).await;
            drop(room);
            let body = match answer {
                Ok(response) => {
                    let reply = heartbeat_reply(response, prev);
                    note_leader(&election, &reply);
                    PeerBody::HeartbeatReply { call, reply }
                }
                Err(_stopped) => PeerBody::Unreachable { call },
            };
            back.send(node, from, body);
        });
    }

    fn vote(&self, node: NodeId, from: ReplicaId, call: u64, pre: bool, request: peer::VoteRequest) {
        // A replica that was restarted no longer knows which leader it promised to wait for: it waits the longest there is.
        if Instant::now() < self.election.votes_from() {
            return self.back.send(node, from, PeerBody::Unreachable { call });
        }
        let (raft, back, election) = (self.raft.clone(), self.back.clone(), self.election.clone());
        tokio::spawn(async move {
            let mut rpc = VoteRequest::new(convert::vote(request.vote), request.last.map(convert::log_id));
            rpc.leadership_transfer = request.leadership_transfer;
            let answer = if pre { raft.pre_vote(rpc).await } else { raft.vote(rpc).await };
            let body = match answer {
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
            };
            back.send(node, from, body);
        });
    }

    fn transfer_leader(
        &self,
        node: NodeId,
        from: ReplicaId,
        call: u64,
        from_leader: Vote,
        target: ReplicaId,
        last: Option<quorate_types::LogId>,
    ) {
        let (raft, back) = (self.raft.clone(), self.back.clone());
        tokio::spawn(async move {
            let request = TransferLeaderRequest::new(convert::vote(from_leader), target.0, last.map(convert::log_id));
            let body = match raft.handle_transfer_leader(request).await {
                Ok(answer) => PeerBody::TransferReply { call, accepted: answer.is_ok() },
                Err(_stopped) => PeerBody::Unreachable { call },
            };
            back.send(node, from, body);
        });
    }
}

/// Whoever sent what was answered so is the leader, unless this replica knows of a higher vote.
fn note_leader(election: &Election, reply: &AppendReply) {
    if !matches!(reply, AppendReply::HigherVote(_)) {
        election.contact(Instant::now());
    }
}

fn heartbeat_reply(response: AppendEntriesResponse<TypeConfig>, prev: Option<quorate_types::LogId>) -> AppendReply {
    match response {
        AppendEntriesResponse::Success => AppendReply::Matched(prev),
        AppendEntriesResponse::PartialSuccess(id) => AppendReply::Matched(id.as_ref().map(convert::our_log_id)),
        AppendEntriesResponse::HigherVote(vote) => AppendReply::HigherVote(convert::our_vote(&vote)),
        AppendEntriesResponse::Conflict => {
            AppendReply::Conflict(prev.expect("an append after nothing never conflicts"))
        }
    }
}
