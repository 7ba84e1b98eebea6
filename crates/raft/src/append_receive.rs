//! The receiving side of append streams and heartbeats.
//!
//! The requests of one stream go to openraft in order, through one task. A request of the bulk lane
//! may arrive after a later one of the control lane, so early requests wait for the missing ones. A
//! new stream of a leader does not end the previous one: late requests of that must not reach
//! openraft through the new one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::StreamExt;
use quorate_types::peer::{self, AppendReply, PeerBody};
use quorate_types::{LogId, ReplicaId};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::convert;
use crate::election::Election;
use crate::openraft_types as raft;
use crate::peer_network::ReplyTo;
use crate::state_machine::Raft;

/// Requests of one stream that may wait here. The sender has fewer in flight, so a full queue means
/// a broken sender.
const APPENDS_QUEUED_MAX: usize = 256;
/// Streams kept per leader: the current one, and earlier ones whose last requests may still arrive.
const STREAMS_PER_LEADER_MAX: usize = 3;
/// Heartbeats that wait for openraft: they pile up while a write hangs. One more is dropped like a
/// lost message.
const HEARTBEATS_MAX: usize = 4;

/// The receiver of one replica's appends.
pub(crate) struct AppendReceiver {
    raft: Raft,
    election: Arc<Election>,
    heartbeats: Arc<Semaphore>,
    /// By leader, the newest last. None once the replica has stopped.
    streams: Mutex<Option<BTreeMap<ReplicaId, VecDeque<InboundStream>>>>,
    /// The tasks that answer requests: the replica waits for them when it stops.
    tasks: TaskTracker,
}

impl AppendReceiver {
    pub(crate) fn new(raft: Raft, election: Arc<Election>, tasks: TaskTracker) -> Self {
        let heartbeats = Arc::new(Semaphore::new(HEARTBEATS_MAX));
        AppendReceiver { raft, election, heartbeats, streams: Mutex::new(Some(BTreeMap::new())), tasks }
    }

    /// Ends all streams. Called after the Raft core has stopped.
    pub(crate) fn close(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<ReplicaId, VecDeque<InboundStream>>>> {
        self.streams.lock().expect("only a broken invariant poisons this lock")
    }

    /// Accepts a request of a stream. If the stream is broken, drops it and reports the replica as
    /// unreachable.
    pub(crate) fn append(&self, to: ReplyTo, stream: u64, sequence: u64, request: peer::AppendRequest) {
        let request = convert::append_request(request);
        let mut open = self.lock();
        let Some(by_leader) = &mut *open else {
            drop(open);
            return to.send(PeerBody::Unreachable { call: stream });
        };
        let streams = by_leader.entry(to.replica).or_default();
        let known = streams.iter().position(|known| known.id == stream);
        let place = known.unwrap_or_else(|| {
            let (queue, requests) = mpsc::channel(APPENDS_QUEUED_MAX);
            self.serve_stream(to.clone(), stream, requests);
            if streams.len() == STREAMS_PER_LEADER_MAX {
                streams.pop_front();
            }
            streams.push_back(InboundStream::new(stream, queue));
            streams.len() - 1
        });
        assert!(streams.len() <= STREAMS_PER_LEADER_MAX, "the streams of a leader are bounded");
        if !streams[place].accept(sequence, request) {
            streams.remove(place);
            drop(open);
            to.send(PeerBody::Unreachable { call: stream });
        }
    }

    /// Feeds the requests of a stream to openraft and answers each in order, until the stream is
    /// replaced or broken.
    fn serve_stream(&self, to: ReplyTo, stream: u64, requests: mpsc::Receiver<raft::AppendRequest>) {
        let election = self.election.clone();
        let requests = futures::stream::unfold(requests, |mut requests| async {
            let request = requests.recv().await?;
            Some((request, requests))
        });
        let answers = self.raft.stream_append(requests);
        self.tasks.spawn(async move {
            let mut answers = std::pin::pin!(answers);
            let mut sequence = 0;
            while let Some(answer) = answers.next().await {
                let body = match answer {
                    Ok(result) => {
                        let reply = convert::our_append_reply(&result);
                        note_contact(&election, &reply);
                        PeerBody::AppendReply { stream, sequence, reply }
                    }
                    Err(_stopped) => PeerBody::Unreachable { call: stream },
                };
                to.send(body);
                sequence += 1;
            }
        });
    }

    /// Answers a heartbeat.
    pub(crate) fn heartbeat(&self, to: ReplyTo, call: u64, request: peer::AppendRequest) {
        let Ok(room) = self.heartbeats.clone().try_acquire_owned() else { return };
        let (raft, election) = (self.raft.clone(), self.election.clone());
        let prev = request.prev;
        self.tasks.spawn(async move {
            let answer = raft.append_entries(convert::append_request(request)).await;
            drop(room);
            to.send(match answer {
                Ok(response) => {
                    let reply = heartbeat_reply(response, prev);
                    note_contact(&election, &reply);
                    PeerBody::HeartbeatReply { call, reply }
                }
                Err(_stopped) => PeerBody::Unreachable { call },
            });
        });
    }
}

/// A stream of appends from one leader.
struct InboundStream {
    id: u64,
    /// The sequence number that openraft gets next.
    next: u64,
    early: BTreeMap<u64, raft::AppendRequest>,
    queue: mpsc::Sender<raft::AppendRequest>,
}

impl InboundStream {
    fn new(id: u64, queue: mpsc::Sender<raft::AppendRequest>) -> Self {
        InboundStream { id, next: 0, early: BTreeMap::new(), queue }
    }

    /// Takes a request in; false if the stream is broken.
    fn accept(&mut self, sequence: u64, request: raft::AppendRequest) -> bool {
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

/// Records a contact with the leader. The sender of an append leads, unless this replica answered
/// with a higher vote.
fn note_contact(election: &Election, reply: &AppendReply) {
    if !matches!(reply, AppendReply::HigherVote(_)) {
        election.contact(Instant::now());
    }
}

fn heartbeat_reply(response: raft::AppendResponse, prev: Option<LogId>) -> AppendReply {
    match response {
        raft::AppendResponse::Success => AppendReply::Matched(prev),
        raft::AppendResponse::PartialSuccess(id) => AppendReply::Matched(id.as_ref().map(convert::our_log_id)),
        raft::AppendResponse::HigherVote(vote) => AppendReply::HigherVote(convert::our_vote(&vote)),
        raft::AppendResponse::Conflict => {
            AppendReply::Conflict(prev.expect("an append after no entry never conflicts"))
        }
    }
}
