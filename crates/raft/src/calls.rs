//! Open requests to other replicas, matched with their answers by number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_types::peer::{AppendReply, VoteReply};
use rand::Rng;
use tokio::sync::{mpsc, oneshot};

use crate::runtime;

/// The answer of another replica.
#[derive(Debug)]
pub(crate) enum Answer {
    Append {
        sequence: u64,
        reply: AppendReply,
    },
    Vote(VoteReply),
    Transfer {
        accepted: bool,
    },
    /// The replica is not open there, or its Raft core has stopped.
    Unreachable,
    /// The replica lost entries that it had confirmed, and answers nothing.
    Doubtful,
}

enum Waiting {
    Call(oneshot::Sender<Answer>),
    /// Bounded by the requests in flight of the stream: each gets at most one answer.
    Stream(mpsc::UnboundedSender<Answer>),
}

/// The open calls and streams of a node.
#[derive(Clone)]
pub(crate) struct Calls(Arc<Table>);

struct Table {
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
}

impl Default for Calls {
    fn default() -> Self {
        // Random, so that no call of this process gets an answer meant for an earlier one.
        let start = runtime::random().next_u64() >> 1;
        Calls(Arc::new(Table { waiting: Mutex::default(), next: AtomicU64::new(start) }))
    }
}

impl Calls {
    /// Opens a call with one answer.
    pub(crate) fn open(&self) -> Call {
        let (sender, receiver) = oneshot::channel();
        Call { number: self.insert(Waiting::Call(sender)), answer: receiver }
    }

    /// Opens a stream; its answers arrive at the receiver until the stream is dropped.
    pub(crate) fn open_stream(&self) -> (OpenStream, mpsc::UnboundedReceiver<Answer>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (OpenStream(self.insert(Waiting::Stream(sender))), receiver)
    }

    fn insert(&self, waiting: Waiting) -> Number {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let previous = self.table().insert(id, waiting);
        assert!(previous.is_none(), "call numbers are unique");
        Number { id, calls: self.clone() }
    }

    /// Delivers an answer; drops it if its call has timed out.
    pub(crate) fn answer(&self, id: u64, answer: Answer) {
        let mut table = self.table();
        let Some(waiting) = table.remove(&id) else { return };
        match waiting {
            Waiting::Call(sender) => {
                let _ = sender.send(answer);
            }
            Waiting::Stream(sender) => {
                let _ = sender.send(answer);
                table.insert(id, Waiting::Stream(sender));
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.0.waiting.lock().expect("only a broken invariant poisons this lock")
    }
}

/// The number of an open call; closes the call when dropped.
struct Number {
    id: u64,
    calls: Calls,
}

impl Drop for Number {
    fn drop(&mut self) {
        self.calls.table().remove(&self.id);
    }
}

/// An open call with one answer.
pub(crate) struct Call {
    number: Number,
    answer: oneshot::Receiver<Answer>,
}

impl Call {
    pub(crate) fn id(&self) -> u64 {
        self.number.id
    }

    /// Waits for the answer; none if the table was dropped.
    pub(crate) async fn answer(self) -> Option<Answer> {
        let Call { number: _open, answer } = self;
        answer.await.ok()
    }
}

/// An open stream of calls.
pub(crate) struct OpenStream(Number);

impl OpenStream {
    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }
}
