//! One stream to one node: requests queue here, leave in frames, and get their replies by id.
//!
//! ```text
//!   submit ──► queue ──(Outbound: up to a frame of what is there)──► sent ──(read: by id)──► Delivery::Replied
//!                │                                                    │
//!                └── the link closes: Delivery::NotSent               └── the link closes: Delivery::Lost
//! ```
//!
//! That a request is in `queue` or in `sent` is the line between "certainly not applied" and "may be applied", on which all that
//! the router says about unknown outcomes rests. A request crosses it, under the lock, before its frame is handed on.
//!
//! # Invariants
//! * Ids grow in the order of submission; `queue` is sorted by id; no id is in both `queue` and `sent`.
//! * A closed link is empty and stays closed. Its node opens another one for the next request.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use futures::Stream;
use quorate_proto::kv::{ClientFrame, ClientHello, Reply, Request, ServerFrame};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Requests in one frame at most: what a node takes from one connection in one step.
const FRAME_REQUESTS_MAX: usize = 512;
/// Bytes in one frame, beyond which no further request is added.
const FRAME_BYTES_MAX: usize = 256 << 10;
/// Requests of one link that may wait or be unanswered.
const REQUESTS_MAX: usize = 16 << 10;
/// Bytes of one link that may wait to be sent.
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// The node replied.
    Replied(Reply),
    /// It was never handed to the stream: certainly not applied, now or later.
    NotSent(Arc<str>),
    /// It was handed to the stream, which broke off: it may be applied.
    Lost(Arc<str>),
    /// It was handed to the stream, and no reply came in time: it may be applied.
    Silent,
}

/// What became of an attempt to submit a request.
pub(crate) enum Submitted {
    /// It is on its way.
    Accepted(Ticket),
    /// The link is closed; the request comes back.
    Closed(Request),
    /// As much waits as is allowed; the request is dropped.
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
    sent: HashMap<u64, oneshot::Sender<Delivery>, BuildHasherDefault<IdHasher>>,
    last_id: u64,
    /// Wakes the stream's sending half.
    sender: Option<Waker>,
}

#[derive(Default)]
enum Phase {
    /// No request leaves before the node has said who it is.
    #[default]
    Connecting,
    Open,
    Closed,
}

struct Queued {
    request: Request,
    bytes: usize,
    reply: oneshot::Sender<Delivery>,
}

/// Ids are counted up: they need no hashing.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, id: u64) {
        // The table takes its tag from the high bits.
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// Requests that wait or are unanswered.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.lock().phase, Phase::Closed)
    }

    /// Puts a request of about so many bytes into the queue and gives it its id.
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
        Submitted::Accepted(Ticket { link: Arc::clone(self), id, receiver, ended: false })
    }

    /// The node has said who it is: requests may leave.
    pub(crate) fn open(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Connecting) {
            state.phase = Phase::Open;
        }
        if let Some(sender) = state.sender.take() {
            sender.wake();
        }
    }

    /// Ends every request, each as what it is. Closing a closed link does nothing.
    pub(crate) fn close(&self, reason: &str) {
        let reason: Arc<str> = reason.into();
        let (queue, sent, sender) = {
            let mut state = self.lock();
            state.phase = Phase::Closed;
            state.queue_bytes = 0;
            (std::mem::take(&mut state.queue), std::mem::take(&mut state.sent), state.sender.take())
        };
        for queued in queue {
            _ = queued.reply.send(Delivery::NotSent(Arc::clone(&reason)));
        }
        for (_, reply) in sent {
            _ = reply.send(Delivery::Lost(Arc::clone(&reason)));
        }
        if let Some(sender) = sender {
            sender.wake();
        }
    }

    /// Hands replies to those who wait for them. A reply that nobody waits for any more is dropped.
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
            _ = sender.send(Delivery::Replied(reply));
        }
    }

    /// Moves up to a frame of waiting requests to `sent`.
    fn next_frame(&self, context: &Context<'_>) -> Poll<Option<ClientFrame>> {
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
            state.sent.insert(queued.request.id, queued.reply);
            frame.requests.push(queued.request);
        }
        state.queue_bytes -= frame_bytes;
        Poll::Ready(Some(frame))
    }

    /// The caller waits no longer. Returns whether the request was still in the queue, and so was never sent.
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

/// Where a request was when its caller stopped waiting.
enum Forgotten {
    Queued,
    Sent,
    /// Its delivery had been decided.
    Ended,
}

/// A request on its way. Dropping it frees its place; a request that is still in the queue is then never sent.
pub(crate) struct Ticket {
    link: Arc<Link>,
    id: u64,
    receiver: oneshot::Receiver<Delivery>,
    ended: bool,
}

impl Ticket {
    /// Waits until then for what becomes of the request.
    pub(crate) async fn wait(mut self, until: Instant) -> Delivery {
        let broke_off = || Delivery::Lost("the connection was dropped".into());
        let delivery = match tokio::time::timeout_at(until, &mut self.receiver).await {
            Ok(delivery) => delivery.unwrap_or_else(|_| broke_off()),
            Err(_) => match self.link.forget(self.id) {
                Forgotten::Queued => Delivery::NotSent("the connection took nothing in time".into()),
                Forgotten::Sent => Delivery::Silent,
                // Whoever took it out sends its delivery right after.
                Forgotten::Ended => (&mut self.receiver).await.unwrap_or_else(|_| broke_off()),
            },
        };
        self.ended = true;
        delivery
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

/// The sending half of a link's stream: the hello, then frames of what waits. A lone request leaves at once; what is submitted
/// while a frame is being written leaves in the next one.
pub(crate) struct Outbound {
    hello: Option<ClientHello>,
    link: Arc<Link>,
}

impl Outbound {
    pub(crate) fn new(hello: ClientHello, link: Arc<Link>) -> Self {
        Self { hello: Some(hello), link }
    }
}

impl Stream for Outbound {
    type Item = ClientFrame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ClientFrame>> {
        match self.hello.take() {
            Some(hello) => Poll::Ready(Some(ClientFrame { hello: Some(hello), requests: Vec::new() })),
            None => self.link.next_frame(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_proto::kv;

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
    async fn what_waits_together_leaves_together_up_to_the_bounds_of_a_frame() {
        let link = Arc::new(Link::default());
        let _tickets: Vec<Ticket> = (0..FRAME_REQUESTS_MAX + 3).map(|_| submit(&link, 10)).collect();
        assert_eq!(frame(&link), None, "nothing leaves before the node has said who it is");
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
    async fn a_closed_link_tells_what_was_never_sent_from_what_may_be_applied() {
        let link = Arc::new(Link::default());
        link.open();
        let sent = submit(&link, 1);
        assert!(frame(&link).is_some());
        let waiting = submit(&link, 1);
        link.close("the cable was cut");
        assert!(matches!(sent.wait(soon()).await, Delivery::Lost(reason) if &*reason == "the cable was cut"));
        assert!(matches!(waiting.wait(soon()).await, Delivery::NotSent(_)));
        assert!(matches!(link.submit(Request::default(), 1), Submitted::Closed(_)));
        link.open();
        assert!(matches!(link.submit(Request::default(), 1), Submitted::Closed(_)), "it stays closed");
        assert_eq!(link.outstanding(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_waits_no_longer_learns_whether_its_request_left() {
        let link = Arc::new(Link::default());
        link.open();
        let silent = submit(&link, 1);
        assert!(frame(&link).is_some());
        let waiting = submit(&link, 1);
        assert!(matches!(silent.wait(soon()).await, Delivery::Silent));
        assert!(matches!(waiting.wait(soon()).await, Delivery::NotSent(_)));
        assert_eq!(frame(&link), None, "and what did not leave then never leaves");
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
        let reply = |id| kv::Reply { id, ..Default::default() };
        link.deliver(ServerFrame { hello: None, replies: vec![reply(2), reply(77), reply(1)] });
        assert!(matches!(first.wait(soon()).await, Delivery::Replied(reply) if reply.id == 1));
        assert!(matches!(second.wait(soon()).await, Delivery::Replied(reply) if reply.id == 2));
        let _tickets: Vec<Ticket> = (0..REQUESTS_MAX).map(|_| submit(&link, 1)).collect();
        assert!(matches!(link.submit(Request::default(), 1), Submitted::Full));
    }
}
