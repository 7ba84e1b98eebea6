//! One stream of appends to one replica: requests leave in order as far as there is room in flight, answers come back in order.
//!
//! ```text
//!   openraft ── entries ─────────────────────────→ sent at once
//!            ── no entries, only a newer commit ─→ held for a moment: the next entries carry it, and both are answered together
//!   openraft ←─ answers ── released ←── answered     (not while a request without entries waits for its own answer)
//! ```
//!
//! A commit is told to followers that could wait for it: nobody is answered because of it. Every message saved is a wake-up of
//! two Raft cores less, and on a busy group that is every other one.
//!
//! openraft takes an answer for the answer to *every* request that ends at the same entry, and what was sent last among them
//! for the moment at which the follower confirmed its leader. A request without entries ends where the one before it ended.
//! So the answer to the earlier one, which may have been long on its way, would confirm the leader as of the later one, which
//! nobody has answered; a deposed leader would serve a stale `strong` read. Such answers are released together.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use openraft::errors::RPCError;
use openraft::network::RPCTypes;
use openraft::raft::StreamAppendResult;
use quorate_types::peer::{self, AppendReply, PeerBody};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use crate::calls::{Answer, OpenStream};
use crate::convert;
use crate::link::{Link, mismatch};
use crate::openraft_types::{AppendRequest, TypeConfig};
use crate::transport::Lane;

/// Requests of one stream that may wait for their answers.
const APPENDS_IN_FLIGHT_MAX: usize = 64;
/// Bytes of one stream that may wait for their answers, give or take one request: what a group that catches up may take of the
/// link, and what the follower may have to sync at once. The entries of all other groups there wait for that sync.
const APPEND_BYTES_IN_FLIGHT_MAX: usize = 1 << 20;
/// An append larger than this travels on the bulk lane.
const CONTROL_BYTES_MAX: usize = 32 << 10;
/// How long an append may take. Longer than a heartbeat: a slow disk at the other end delays the answer, and giving up would
/// only make it send everything again.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a commit waits for entries to travel with. `eventual` reads on followers are older by as much at most.
const COMMIT_HELD_MAX: Duration = Duration::from_millis(4);

pub(crate) type AppendAnswer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// One stream of appends.
pub(crate) struct AppendStream<S> {
    link: Arc<Link>,
    /// None when it has ended.
    input: Option<S>,
    calls: OpenStream,
    answers: mpsc::UnboundedReceiver<Answer>,
    in_flight: InFlight,
    held: Option<Held>,
    /// Answers that are not released yet.
    answered: VecDeque<AppendReply>,
    /// Answers that openraft takes before anything else happens.
    released: VecDeque<AppendReply>,
    /// Rings when the oldest request in flight may be overdue. Set again only when it rings, not for every request.
    alarm: Pin<Box<Sleep>>,
    /// Rings when what is held has waited long enough.
    hold: Pin<Box<Sleep>>,
}

/// Requests without entries that are not sent yet: the newest of them, and how many it stands for.
struct Held {
    request: peer::AppendRequest,
    count: usize,
}

/// A request that was sent and waits for its answer.
struct Sent {
    at: Instant,
    bytes: usize,
    has_entries: bool,
    /// How many requests without entries it carries along, and where they end.
    along: usize,
    prev: Option<quorate_types::LogId>,
}

/// Requests that were sent and wait for their answers, the oldest first.
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
        self.bytes += sent.bytes;
        self.requests.push_back(sent);
        self.sent += 1;
    }

    /// The sequence number of the oldest one, which is answered next.
    fn oldest(&self) -> u64 {
        self.sent - self.requests.len() as u64
    }

    fn pop(&mut self) -> Sent {
        let oldest = self.requests.pop_front().expect("an answer is taken only while a request waits for it");
        self.bytes -= oldest.bytes;
        oldest
    }
}

impl<S: Stream<Item = AppendRequest> + Send + Unpin + 'static> AppendStream<S> {
    pub(crate) fn open(link: Arc<Link>, input: S) -> Self {
        let (calls, answers) = link.open_stream();
        AppendStream {
            link,
            input: Some(input),
            calls,
            answers,
            in_flight: InFlight::default(),
            held: None,
            answered: VecDeque::new(),
            released: VecDeque::new(),
            alarm: Box::pin(tokio::time::sleep(APPEND_TIMEOUT)),
            hold: Box::pin(tokio::time::sleep(COMMIT_HELD_MAX)),
        }
    }

    /// The answers, one a request, in order. Nothing follows after one that is not a match.
    pub(crate) fn answers(self) -> impl Stream<Item = AppendAnswer> {
        stream::unfold(Some(self), |stream| async move {
            let mut stream = stream?;
            let answer = stream.next_answer().await?;
            let go_on = matches!(answer, Ok(Ok(_)));
            Some((answer, go_on.then_some(stream)))
        })
    }

    /// Sends what there is to send until there is an answer to give; none when the input has ended and everything is answered.
    async fn next_answer(&mut self) -> Option<AppendAnswer> {
        loop {
            if let Some(reply) = self.released.pop_front() {
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
                // What is answered and not released is lost with the stream: openraft sends it again.
                return Some(error.into_answer());
            }
        }
    }

    /// Takes a request of openraft's: sends it, or holds it.
    fn take(&mut self, request: AppendRequest) -> Result<(), End> {
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
        let (has_entries, prev) = (!request.entries.is_empty(), request.prev);
        let sequence = self.in_flight.sent;
        self.link.send(lane, PeerBody::Append { stream: self.calls.id(), sequence, request })?;
        self.in_flight.push(Sent { at: Instant::now(), bytes, has_entries, along, prev });
        Ok(())
    }

    /// Takes an answer to the oldest request, and releases what may be released.
    fn settle(&mut self, answer: Option<Answer>) -> Result<(), End> {
        match answer {
            Some(Answer::Append { sequence, reply }) if sequence == self.in_flight.oldest() => {
                if !matches!(reply, AppendReply::Matched(_)) {
                    return Err(End::Refused(reply));
                }
                let sent = self.in_flight.pop();
                self.answered.extend((0..sent.along).map(|_| AppendReply::Matched(sent.prev)));
                self.answered.push_back(reply);
                let next_ends_here = match self.in_flight.requests.front() {
                    Some(next) => next.along > 0 || !next.has_entries,
                    None => self.held.is_some(),
                };
                if !next_ends_here {
                    std::mem::swap(&mut self.answered, &mut self.released);
                }
                Ok(())
            }
            Some(Answer::Unreachable) | None => Err(self.link.unreachable().into()),
            Some(other) => Err(mismatch(&other).into()),
        }
    }

    /// The alarm rang: an error if the oldest request is overdue, else it is set for when it would be.
    fn overdue(&mut self) -> Result<(), End> {
        let Some(oldest) = self.in_flight.requests.front() else { return Ok(()) };
        let due = oldest.at + APPEND_TIMEOUT;
        if due <= Instant::now() {
            return Err(self.link.timeout(RPCTypes::AppendEntries, APPEND_TIMEOUT).into());
        }
        self.alarm.as_mut().reset(due);
        Ok(())
    }
}

/// The next request of an input that has not ended.
async fn next<S: Stream<Item = AppendRequest> + Unpin>(input: &mut Option<S>) -> Option<AppendRequest> {
    input.as_mut()?.next().await
}

/// Why a stream ends.
enum End {
    /// The follower has another log, or follows another leader.
    Refused(AppendReply),
    /// It does not answer, or not to this.
    Failed(RPCError<TypeConfig>),
}

impl End {
    fn into_answer(self) -> AppendAnswer {
        match self {
            End::Refused(reply) => Ok(convert::append_result(reply)),
            End::Failed(error) => Err(error),
        }
    }
}

impl From<RPCError<TypeConfig>> for End {
    fn from(error: RPCError<TypeConfig>) -> Self {
        End::Failed(error)
    }
}
