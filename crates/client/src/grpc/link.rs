//! One stream to one node: requests queue here, leave in frames, and get their replies by id.
//!
//! ```text
//!   submit ──► queue ──(Outbound: one frame at a time)──► sent ──(deliver: by id)──► the reply
//!                │                                          │
//!                └── the link closes: Attempt::NotSent      └── the link closes: Attempt::Lost
//! ```
//!
//! Whether a request is in `queue` or in `sent` is the line between "certainly not applied" and
//! "may be applied". Everything that the router says about unknown outcomes rests on it. A request
//! crosses the line, under the lock, before its frame is handed to the stream.
//!
//! # Invariants
//! * Ids grow in the order of submission; `queue` is sorted by id; no id is in `queue` and in
//!   `sent`.
//! * A closed link is empty and stays closed. Its connection opens another one for the next
//!   request.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use quorate_proto::kv::{ClientFrame, Reply, Request, ServerFrame};
use quorate_proto::reply_from_wire;
use quorate_router::Attempt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::id_map::IdMap;

/// The most requests in one frame: a node takes that many from one connection in one step.
const FRAME_REQUESTS_MAX: usize = 512;
/// A frame of this many bytes gets no further request.
const FRAME_BYTES_MAX: usize = 256 << 10;
/// The most requests of one link that wait or have no reply yet.
const REQUESTS_MAX: usize = 16 << 10;
/// The most bytes of one link that wait to be sent.
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// The end of a request: its reply, which the waiting caller decodes, or the attempt without one.
type Ended = Result<Reply, Attempt>;

/// The result of submitting a request.
pub(crate) enum Submitted {
    /// The request is queued.
    Accepted(Ticket),
    /// The link is closed, and returns the request.
    Closed(Request),
    /// Too many requests or bytes wait. The request is dropped.
    Full,
}

/// One stream to one node.
#[derive(Default)]
pub(crate) struct Link {
    state: Mutex<State>,
    outstanding: AtomicUsize,
}

#[derive(Default)]
struct State {
    phase: Phase,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    sent: IdMap<oneshot::Sender<Ended>>,
    last_id: u64,
    /// Wakes the sending half of the stream.
    sender: Option<Waker>,
}

#[derive(Default)]
enum Phase {
    /// The hellos are being exchanged. No request leaves before the node has identified itself.
    #[default]
    Connecting,
    Open,
    Closed,
}

struct Queued {
    request: Request,
    bytes: usize,
    reply: oneshot::Sender<Ended>,
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("only a broken invariant poisons this lock")
    }

    /// The number of requests that wait or have no reply yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.lock().phase, Phase::Closed)
    }

    /// Queues a request of about `bytes` bytes and sets its id.
    pub(crate) fn submit(self: &Arc<Self>, mut request: Request, bytes: usize) -> Submitted {
        let (reply, receiver) = oneshot::channel();
        let (id, sender) = {
            let mut state = self.lock();
            if matches!(state.phase, Phase::Closed) {
                return Submitted::Closed(request);
            }
            if state.queue.len() + state.sent.len() >= REQUESTS_MAX || state.queue_bytes + bytes > QUEUE_BYTES_MAX {
                return Submitted::Full;
            }
            state.last_id += 1;
            let id = state.last_id;
            request.id = id;
            state.queue_bytes += bytes;
            state.queue.push_back(Queued { request, bytes, reply });
            (id, state.sender.take())
        };
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        if let Some(sender) = sender {
            sender.wake();
        }
        let submitted = Instant::now();
        Submitted::Accepted(Ticket { link: Arc::clone(self), id, submitted, receiver, ended: false })
    }

    /// Lets requests leave: the node has identified itself.
    pub(crate) fn open(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Connecting) {
            state.phase = Phase::Open;
        }
        if let Some(sender) = state.sender.take() {
            sender.wake();
        }
    }

    /// Ends every request: queued ones as not sent, sent ones as lost. Closing twice does nothing.
    pub(crate) fn close(&self, reason: &str) {
        let reason: Arc<str> = reason.into();
        let (queue, sent, sender) = {
            let mut state = self.lock();
            state.phase = Phase::Closed;
            state.queue_bytes = 0;
            (std::mem::take(&mut state.queue), std::mem::take(&mut state.sent), state.sender.take())
        };
        for queued in queue {
            _ = queued.reply.send(Err(Attempt::NotSent(Arc::clone(&reason))));
        }
        for (_, reply) in sent {
            _ = reply.send(Err(Attempt::Lost(Arc::clone(&reason))));
        }
        if let Some(sender) = sender {
            sender.wake();
        }
    }

    /// Passes replies to their callers. A reply whose caller stopped waiting is dropped.
    pub(crate) fn deliver(&self, frame: ServerFrame) {
        let mut waiting = Vec::with_capacity(frame.replies.len());
        {
            let mut state = self.lock();
            for reply in frame.replies {
                if let Some(sender) = state.sent.remove(&reply.id) {
                    waiting.push((sender, reply));
                }
            }
        }
        for (sender, reply) in waiting {
            _ = sender.send(Ok(reply));
        }
    }

    /// Moves up to one frame of requests from the queue to `sent`.
    pub(super) fn next_frame(&self, context: &Context<'_>) -> Poll<Option<ClientFrame>> {
        let mut state = self.lock();
        match state.phase {
            Phase::Closed => return Poll::Ready(None),
            Phase::Open if !state.queue.is_empty() => {}
            _ => {
                state.sender = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        let mut frame =
            ClientFrame { hello: None, requests: Vec::with_capacity(state.queue.len().min(FRAME_REQUESTS_MAX)) };
        let mut frame_bytes = 0;
        while let Some(next) = state.queue.front()
            && (frame.requests.is_empty()
                || (frame.requests.len() < FRAME_REQUESTS_MAX && frame_bytes + next.bytes <= FRAME_BYTES_MAX))
        {
            let Some(queued) = state.queue.pop_front() else { break };
            frame_bytes += queued.bytes;
            let twice = state.sent.insert(queued.request.id, queued.reply);
            assert!(twice.is_none(), "request {} is sent twice", queued.request.id);
            frame.requests.push(queued.request);
        }
        state.queue_bytes -= frame_bytes;
        Poll::Ready(Some(frame))
    }

    /// Removes a request whose caller stopped waiting. A request that was still queued is never
    /// sent.
    fn forget(&self, id: u64) -> Forgotten {
        let mut state = self.lock();
        if state.sent.remove(&id).is_some() {
            return Forgotten::Sent;
        }
        match state.queue.binary_search_by_key(&id, |queued| queued.request.id) {
            Ok(place) => {
                let bytes = state.queue.remove(place).map_or(0, |queued| queued.bytes);
                state.queue_bytes -= bytes;
                Forgotten::Queued
            }
            Err(_) => Forgotten::Ended,
        }
    }
}

/// The place of a request when its caller stopped waiting.
enum Forgotten {
    Queued,
    Sent,
    /// It had ended, and its result is in the channel or about to be.
    Ended,
}

/// A submitted request. Dropping it frees its place; a request that is still queued is then never
/// sent.
pub(crate) struct Ticket {
    link: Arc<Link>,
    id: u64,
    submitted: Instant,
    receiver: oneshot::Receiver<Ended>,
    ended: bool,
}

impl Ticket {
    /// Waits for the reply until `until`.
    pub(crate) async fn wait(mut self, until: Instant) -> Attempt {
        let dropped = || Err(Attempt::Lost("the connection was dropped".into()));
        let ended = match tokio::time::timeout_at(until, &mut self.receiver).await {
            Ok(ended) => ended.unwrap_or_else(|_| dropped()),
            Err(_) => match self.link.forget(self.id) {
                Forgotten::Queued => Err(Attempt::NotSent("the request was not sent in time".into())),
                Forgotten::Sent => Err(Attempt::Silent { waited: self.submitted.elapsed() }),
                // The link removes a request just before it sends the result.
                Forgotten::Ended => (&mut self.receiver).await.unwrap_or_else(|_| dropped()),
            },
        };
        self.ended = true;
        ended.map_or_else(|attempt| attempt, decode)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.link.outstanding.fetch_sub(1, Ordering::Relaxed);
        if !self.ended {
            self.link.forget(self.id);
        }
    }
}

/// The attempt that a reply ends. A malformed reply leaves the outcome unknown.
fn decode(reply: Reply) -> Attempt {
    match reply_from_wire(reply) {
        Ok(Ok(served)) => Attempt::Served(served),
        Ok(Err(rejection)) => Attempt::Rejected(rejection),
        Err(malformed) => Attempt::Malformed(malformed.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_proto::{kv, reply_to_wire};
    use quorate_types::Rejection;

    use super::*;

    fn submit(link: &Arc<Link>, bytes: usize) -> Ticket {
        match link.submit(Request::default(), bytes) {
            Submitted::Accepted(ticket) => ticket,
            Submitted::Closed(_) => panic!("closed"),
            Submitted::Full => panic!("full"),
        }
    }

    fn frame(link: &Link) -> Option<Vec<u64>> {
        match link.next_frame(&Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(frame)) => Some(frame.requests.into_iter().map(|request| request.id).collect()),
            _ => None,
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test]
    async fn queued_requests_leave_together_up_to_the_bounds_of_a_frame() {
        let link = Arc::new(Link::default());
        let _tickets: Vec<Ticket> = (0..FRAME_REQUESTS_MAX + 3).map(|_| submit(&link, 10)).collect();
        assert_eq!(frame(&link), None, "nothing leaves before the node has identified itself");
        link.open();
        assert_eq!(frame(&link).map(|ids| ids.len()), Some(FRAME_REQUESTS_MAX));
        assert_eq!(frame(&link).map(|ids| ids.len()), Some(3));
        assert_eq!(frame(&link), None);
        let _large: Vec<Ticket> =
            [FRAME_BYTES_MAX * 2, FRAME_BYTES_MAX - 1, 1, 1].map(|bytes| submit(&link, bytes)).into();
        let lens: Vec<usize> = std::iter::from_fn(|| frame(&link)).map(|ids| ids.len()).collect();
        assert_eq!(lens, [1, 2, 1], "a request that is larger than a frame is its own");
    }

    #[tokio::test]
    async fn a_closed_link_tells_unsent_requests_from_lost_ones() {
        let link = Arc::new(Link::default());
        link.open();
        let sent = submit(&link, 1);
        assert!(frame(&link).is_some());
        let waiting = submit(&link, 1);
        link.close("the cable was cut");
        assert!(matches!(sent.wait(soon()).await, Attempt::Lost(reason) if &*reason == "the cable was cut"));
        assert!(matches!(waiting.wait(soon()).await, Attempt::NotSent(_)));
        assert!(matches!(link.submit(Request::default(), 1), Submitted::Closed(_)));
        link.open();
        assert!(matches!(link.submit(Request::default(), 1), Submitted::Closed(_)), "it stays closed");
        assert_eq!(link.outstanding(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_stops_waiting_learns_whether_its_request_left() {
        let link = Arc::new(Link::default());
        link.open();
        let silent = submit(&link, 1);
        assert!(frame(&link).is_some());
        let waiting = submit(&link, 1);
        assert!(matches!(silent.wait(soon()).await, Attempt::Silent { .. }));
        assert!(matches!(waiting.wait(soon()).await, Attempt::NotSent(_)));
        assert_eq!(frame(&link), None, "a request that had not left by then never leaves");
        link.deliver(ServerFrame { hello: None, replies: vec![kv::Reply { id: 1, ..Default::default() }] });
    }

    #[tokio::test]
    async fn dropped_requests_leave_nothing_behind() {
        let link = Arc::new(Link::default());
        link.open();
        let tickets: Vec<Ticket> = (0..10).map(|_| submit(&link, 5)).collect();
        assert!(frame(&link).is_some());
        let more: Vec<Ticket> = (0..10).map(|_| submit(&link, 5)).collect();
        drop((tickets, more));
        let state = link.lock();
        assert_eq!((state.queue.len(), state.queue_bytes, state.sent.len(), link.outstanding()), (0, 0, 0, 0));
    }

    #[tokio::test]
    async fn replies_find_their_requests_in_any_order_and_the_link_is_bounded() {
        let link = Arc::new(Link::default());
        link.open();
        let (first, second) = (submit(&link, 1), submit(&link, 1));
        assert_eq!(frame(&link), Some(vec![1, 2]));
        let overloaded = |id: u64| Rejection::Overloaded { retry_after_ms: id as u32 };
        let reply = |id| reply_to_wire(id, Err(overloaded(id)));
        link.deliver(ServerFrame { hello: None, replies: vec![reply(2), reply(77), reply(1)] });
        assert_eq!(first.wait(soon()).await, Attempt::Rejected(overloaded(1)));
        assert_eq!(second.wait(soon()).await, Attempt::Rejected(overloaded(2)));
        let _tickets: Vec<Ticket> = (0..REQUESTS_MAX).map(|_| submit(&link, 1)).collect();
        assert!(matches!(link.submit(Request::default(), 1), Submitted::Full));
    }

    /// An answer without a result leaves the outcome unknown: the request may have been applied.
    #[tokio::test]
    async fn a_malformed_reply_leaves_the_outcome_unknown() {
        let link = Arc::new(Link::default());
        link.open();
        let ticket = submit(&link, 1);
        assert!(frame(&link).is_some());
        link.deliver(ServerFrame { hello: None, replies: vec![kv::Reply { id: 1, ..Default::default() }] });
        let attempt = ticket.wait(soon()).await;
        assert!(matches!(attempt, Attempt::Malformed(_)), "{attempt:?}");
        assert!(attempt.may_have_applied());
    }
}
