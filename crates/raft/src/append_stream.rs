//! One stream of appends to one replica: requests leave in order as far as there is room in flight,
//! answers come back in order.
//!
//! ```text
//!   openraft ── entries ──────────────────→ sent immediately
//!            ── only a newer commit ──────→ held briefly: the next entries carry it, and both
//!                                           are answered together
//!   openraft ←─ answers ── released ←── answered
//!                                           (not while a request without entries is unanswered)
//! ```
//!
//! Commit-only appends are delayed: followers acknowledge nothing to clients because of them. Every
//! message saved spares two Raft cores a wake-up, and on a busy group every other message is one.
//!
//! openraft takes an answer for the answer to *every* request that ends at the same entry, and
//! takes the send time of the last of them as the moment at which the follower confirmed its
//! leader. A request without entries ends where the previous one ended. A late answer to the
//! previous request would therefore confirm the leader as of the later request, which no follower
//! has answered, and a deposed leader would serve a stale `strong` read. So such answers are
//! released together.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use quorate_types::peer::{self, AppendReply, PeerBody};
use quorate_types::{LogId, Vote};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use crate::calls::{Answer, OpenStream};
use crate::convert;
use crate::openraft_types as raft;
use crate::peer_link::{PeerLink, mismatch};
use crate::transport::Lane;

/// Requests of one stream in flight.
const APPENDS_IN_FLIGHT_MAX: usize = 64;
/// Bytes of one stream in flight, give or take one request. Bounds the share of the link that a
/// catching-up group takes, and the bytes that the follower syncs in one go while the entries of
/// all other groups wait.
const APPEND_BYTES_IN_FLIGHT_MAX: usize = 1 << 20;
/// An append larger than this travels on the bulk lane.
const CONTROL_BYTES_MAX: usize = 32 << 10;
/// How long an append may take. Longer than a heartbeat: a slow disk of the follower delays the
/// answer, and a time-out would only make the leader send everything again.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a commit waits for entries to travel with. Makes `eventual` reads on followers staler
/// by at most this much.
const COMMIT_HELD_MAX: Duration = Duration::from_millis(4);

pub(crate) type AppendAnswer = Result<raft::AppendResult, raft::RpcError>;

/// One stream of appends.
pub(crate) struct AppendStream<S> {
    link: Arc<PeerLink>,
    /// The requests of openraft; none once they have ended.
    input: Option<S>,
    calls: OpenStream,
    answers: mpsc::UnboundedReceiver<Answer>,
    in_flight: InFlight,
    held: Option<Held>,
    replies: Replies,
    /// Fires when the oldest request in flight may be overdue. Reset only when it fires, not for
    /// every request.
    alarm: Pin<Box<Sleep>>,
    /// Fires when the held request has waited long enough.
    hold: Pin<Box<Sleep>>,
}

/// Answers of the follower, in order.
#[derive(Default)]
struct Replies {
    /// Answers that openraft must not see yet.
    answered: VecDeque<AppendReply>,
    /// Answers for openraft, delivered before anything else happens.
    released: VecDeque<AppendReply>,
}

/// Requests without entries that are not sent yet: the newest one, and the number that it stands
/// for.
struct Held {
    request: peer::AppendRequest,
    count: usize,
}

/// A request in flight.
struct Sent {
    at: Instant,
    bytes: usize,
    has_entries: bool,
    /// The number of held requests that it stands for.
    along: usize,
    /// The entry before its first one, where the held requests end.
    prev: Option<LogId>,
    /// The leader's vote.
    vote: Vote,
    /// The last entry that the leader knew as committed.
    commit: Option<LogId>,
    /// The last entry that the follower had confirmed.
    known: Option<LogId>,
}

/// Requests in flight, the oldest first.
///
/// # Invariants
/// * At most [`APPENDS_IN_FLIGHT_MAX`], and one that was held.
#[derive(Default)]
struct InFlight {
    requests: VecDeque<Sent>,
    bytes: usize,
    sent: u64,
}

impl InFlight {
    fn has_room(&self) -> bool {
        self.requests.len() < APPENDS_IN_FLIGHT_MAX && self.bytes < APPEND_BYTES_IN_FLIGHT_MAX
    }

    fn push(&mut self, sent: Sent) {
        assert!(self.requests.len() <= APPENDS_IN_FLIGHT_MAX, "requests in flight are bounded");
        self.bytes += sent.bytes;
        self.requests.push_back(sent);
        self.sent += 1;
    }

    /// The sequence number of the oldest request, which is answered next.
    fn oldest(&self) -> u64 {
        self.sent - self.requests.len() as u64
    }

    fn pop(&mut self) -> Sent {
        let oldest = self.requests.pop_front().expect("an answer is taken only while a request waits for it");
        assert!(oldest.bytes <= self.bytes, "bytes in flight are those of the requests in flight");
        self.bytes -= oldest.bytes;
        oldest
    }
}

impl<S: Stream<Item = raft::AppendRequest> + Send + Unpin + 'static> AppendStream<S> {
    pub(crate) fn open(link: Arc<PeerLink>, input: S) -> Self {
        let (calls, answers) = link.open_stream();
        AppendStream {
            link,
            input: Some(input),
            calls,
            answers,
            in_flight: InFlight::default(),
            held: None,
            replies: Replies::default(),
            alarm: Box::pin(tokio::time::sleep(APPEND_TIMEOUT)),
            hold: Box::pin(tokio::time::sleep(COMMIT_HELD_MAX)),
        }
    }

    /// The answers, one per request, in order. The stream ends after an answer that is no match.
    pub(crate) fn answers(self) -> impl Stream<Item = AppendAnswer> {
        stream::unfold(Some(self), |stream| async move {
            let mut stream = stream?;
            let answer = stream.next_answer().await?;
            let go_on = matches!(answer, Ok(Ok(_)));
            Some((answer, go_on.then_some(stream)))
        })
    }

    /// Sends requests until there is an answer to deliver; none once the input has ended and every
    /// request is answered.
    async fn next_answer(&mut self) -> Option<AppendAnswer> {
        loop {
            if let Some(reply) = self.replies.released.pop_front() {
                return Some(Ok(convert::append_result(reply)));
            }
            let waiting = !self.in_flight.requests.is_empty();
            let holding = self.held.is_some();
            let room = self.in_flight.has_room();
            if self.input.is_none() && !waiting && !holding {
                return None;
            }
            let done = tokio::select! {
                biased;
                answer = self.answers.recv(), if waiting => self.settle(answer),
                request = next(&mut self.input), if room && self.input.is_some() => match request {
                    Some(request) => self.take(request),
                    None => {
                        self.input = None;
                        self.send_held()
                    }
                },
                () = &mut self.hold, if holding => self.send_held(),
                () = &mut self.alarm, if waiting => self.overdue(),
            };
            if let Err(error) = done {
                // Unreleased answers are dropped with the stream; openraft sends their requests
                // again.
                return Some(error.into_answer());
            }
        }
    }

    /// Sends or holds a request of openraft.
    fn take(&mut self, request: raft::AppendRequest) -> Result<(), End> {
        let request = convert::our_append_request(request);
        let first = self.in_flight.sent == 0;
        if !request.entries.is_empty() || first {
            let along = self.held.take().map_or(0, |held| held.count);
            return self.send(request, along);
        }
        let count = match self.held.take() {
            Some(held) => held.count + 1,
            None => {
                self.hold.as_mut().reset(Instant::now() + COMMIT_HELD_MAX);
                1
            }
        };
        self.held = Some(Held { request, count });
        Ok(())
    }

    fn send_held(&mut self) -> Result<(), End> {
        match self.held.take() {
            Some(Held { request, count }) => self.send(request, count - 1),
            None => Ok(()),
        }
    }

    fn send(&mut self, request: peer::AppendRequest, along: usize) -> Result<(), End> {
        let bytes: usize = request.entries.iter().map(quorate_types::Entry::size_bytes).sum();
        let lane = if bytes > CONTROL_BYTES_MAX { Lane::Bulk } else { Lane::Control };
        let has_entries = !request.entries.is_empty();
        let peer::AppendRequest { prev, vote, commit, .. } = request;
        let (sequence, known) = (self.in_flight.sent, self.link.acknowledged.known(Some(vote)));
        self.link.send(lane, PeerBody::Append { stream: self.calls.id(), sequence, request })?;
        self.in_flight.push(Sent { at: Instant::now(), bytes, has_entries, along, prev, vote, commit, known });
        Ok(())
    }

    /// Takes the answer to the oldest request, and releases all answers that openraft may see.
    fn settle(&mut self, answer: Option<Answer>) -> Result<(), End> {
        match answer {
            Some(Answer::Append { sequence, reply }) if sequence == self.in_flight.oldest() => {
                let sent = self.in_flight.pop();
                match &reply {
                    AppendReply::Matched(matched) => self.link.acknowledged.confirm(sent.vote, *matched, sent.commit),
                    AppendReply::Conflict(refused) => {
                        self.link.check_whole(sent.known, refused.index)?;
                        return Err(End::Refused(reply));
                    }
                    AppendReply::HigherVote(_) => return Err(End::Refused(reply)),
                }
                self.replies.answered.extend((0..sent.along).map(|_| AppendReply::Matched(sent.prev)));
                self.replies.answered.push_back(reply);
                let next_ends_here = match self.in_flight.requests.front() {
                    Some(next) => next.along > 0 || !next.has_entries,
                    None => self.held.is_some(),
                };
                if !next_ends_here {
                    assert!(self.replies.released.is_empty(), "answers are delivered in order");
                    std::mem::swap(&mut self.replies.answered, &mut self.replies.released);
                }
                Ok(())
            }
            Some(Answer::Unreachable) | None => Err(self.link.unreachable().into()),
            Some(Answer::Doubtful) => Err(self.link.doubtful().into()),
            Some(other) => Err(mismatch(&other).into()),
        }
    }

    /// The alarm fired: fails if the oldest request is overdue, else resets the alarm to when it
    /// would be.
    fn overdue(&mut self) -> Result<(), End> {
        let Some(oldest) = self.in_flight.requests.front() else { return Ok(()) };
        let due = oldest.at + APPEND_TIMEOUT;
        if due <= Instant::now() {
            return Err(self.link.append_timeout(APPEND_TIMEOUT).into());
        }
        self.alarm.as_mut().reset(due);
        Ok(())
    }
}

/// The next request; none once the input has ended.
async fn next<S: Stream<Item = raft::AppendRequest> + Unpin>(input: &mut Option<S>) -> Option<raft::AppendRequest> {
    input.as_mut()?.next().await
}

/// The end of a stream.
enum End {
    /// The follower has a conflicting log, or follows another leader.
    Refused(AppendReply),
    /// The follower is unresponsive, or its answer is of another kind.
    Failed(raft::RpcError),
}

impl End {
    fn into_answer(self) -> AppendAnswer {
        match self {
            End::Refused(reply) => Ok(convert::append_result(reply)),
            End::Failed(error) => Err(error),
        }
    }
}

impl From<raft::RpcError> for End {
    fn from(error: raft::RpcError) -> Self {
        End::Failed(error)
    }
}
