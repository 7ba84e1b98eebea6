//! The queue of one lane to one node: many groups put messages in, one connection takes frames out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use quorate_types::peer::{PeerMessage, encode_frame};
use tokio::sync::mpsc;

/// Messages that may wait in a lane. A heartbeat or vote of each of 4,096 groups fits, twice.
const LANE_MESSAGES_MAX: usize = 8192;
/// Bytes that may wait in a lane. With more, the receiver is slower than the sender and Raft must
/// hold back.
const LANE_BYTES_MAX: usize = 32 << 20;
/// Bytes of a frame. A single message larger than this is a frame of its own.
const FRAME_BYTES_MAX: usize = 256 << 10;

/// A queue for one lane to one node.
pub(crate) fn lane() -> (LaneSender, LaneReceiver) {
    let (sender, receiver) = mpsc::channel(LANE_MESSAGES_MAX);
    let load = Arc::new(Load { connected: AtomicBool::new(false), bytes: AtomicUsize::new(0) });
    let sender = LaneSender { messages: sender, load: load.clone() };
    (sender, LaneReceiver { messages: receiver, load, drained: Vec::new(), framed: 0 })
}

struct Load {
    connected: AtomicBool,
    bytes: AtomicUsize,
}

/// The sending end.
pub(crate) struct LaneSender {
    messages: mpsc::Sender<PeerMessage>,
    load: Arc<Load>,
}

impl LaneSender {
    /// Queues a message; false if the lane is not connected or is full.
    pub(crate) fn send(&self, message: PeerMessage) -> bool {
        let size = message.size_bytes();
        if !self.load.connected.load(Ordering::Relaxed) || self.load.bytes.load(Ordering::Relaxed) > LANE_BYTES_MAX {
            return false;
        }
        self.load.bytes.fetch_add(size, Ordering::Relaxed);
        if self.messages.try_send(message).is_err() {
            self.load.bytes.fetch_sub(size, Ordering::Relaxed);
            return false;
        }
        true
    }
}

/// The receiving end.
///
/// # Invariants
/// * Messages leave in the order in which they were queued.
/// * `drained[framed..]` was taken from the queue and is in no frame yet.
pub(crate) struct LaneReceiver {
    messages: mpsc::Receiver<PeerMessage>,
    load: Arc<Load>,
    drained: Vec<PeerMessage>,
    framed: usize,
}

impl LaneReceiver {
    /// A new connection begins: messages queued for the old one are dropped.
    pub(crate) fn connected(&mut self) {
        self.forget(self.framed);
        self.drained.clear();
        self.framed = 0;
        while let Ok(message) = self.messages.try_recv() {
            self.load.bytes.fetch_sub(message.size_bytes(), Ordering::Relaxed);
        }
        self.load.connected.store(true, Ordering::Relaxed);
    }

    /// Waits for messages and returns as many as fit a frame; none when the lane was closed.
    /// Cancelling a call while it waits loses nothing.
    pub(crate) async fn next_frame(&mut self) -> Option<Vec<u8>> {
        if self.framed == self.drained.len() {
            self.drained.clear();
            self.framed = 0;
            if self.messages.recv_many(&mut self.drained, LANE_MESSAGES_MAX).await == 0 {
                return None;
            }
        }
        let start = self.framed;
        let mut bytes = 0;
        for message in &self.drained[start..] {
            let size = message.size_bytes();
            if bytes > 0 && bytes + size > FRAME_BYTES_MAX {
                break;
            }
            bytes += size;
            self.framed += 1;
        }
        self.load.bytes.fetch_sub(bytes, Ordering::Relaxed);
        Some(encode_frame(&self.drained[start..self.framed]))
    }

    /// A handle that can mark the lane as disconnected without the receiver.
    pub(crate) fn status(&self) -> LaneStatus {
        LaneStatus(self.load.clone())
    }

    fn forget(&mut self, from: usize) {
        let bytes: usize = self.drained[from..].iter().map(PeerMessage::size_bytes).sum();
        self.load.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Whether a lane is connected.
#[derive(Clone)]
pub(crate) struct LaneStatus(Arc<Load>);

impl LaneStatus {
    /// The connection is gone: nothing is queued until the next one.
    pub(crate) fn disconnected(&self) {
        self.0.connected.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::peer::{AppendRequest, PeerBody, decode_frame};
    use quorate_types::{Entry, GroupId, LogId, ReplicaId, Vote};

    use super::*;

    fn message(call: u64, entry_bytes: usize) -> PeerMessage {
        let vote = Vote { term: 1, candidate: ReplicaId(1), committed: true };
        // The first entry of a log: it follows no other one.
        let id = LogId { term: 1, leader: ReplicaId(1), index: 0 };
        let entries = match entry_bytes {
            0 => Vec::new(),
            bytes => vec![Entry::normal(id, vec![0; bytes].into())],
        };
        let request = AppendRequest { vote, prev: None, entries, commit: None };
        let body = PeerBody::Append { stream: 1, sequence: call, request };
        PeerMessage { group: GroupId((call % 7) as u32), from: ReplicaId(1), to: ReplicaId(2), body }
    }

    fn sequences(frame: &[u8]) -> Vec<u64> {
        let sequence = |message: PeerMessage| match message.body {
            PeerBody::Append { sequence, .. } => sequence,
            other => panic!("{other:?}"),
        };
        decode_frame(frame).unwrap().into_iter().map(sequence).collect()
    }

    /// Waiting messages of many groups become one frame, in order; a new frame begins where the
    /// size would be exceeded.
    #[tokio::test]
    async fn waiting_messages_become_one_frame_up_to_its_size() {
        let (sender, mut receiver) = lane();
        receiver.connected();
        for call in 0..5 {
            assert!(sender.send(message(call, 0)));
        }
        assert_eq!(sequences(&receiver.next_frame().await.unwrap()), [0, 1, 2, 3, 4]);
        for (call, bytes) in [(5, 100 << 10), (6, 100 << 10), (7, 100 << 10), (8, 1 << 20), (9, 0)] {
            assert!(sender.send(message(call, bytes)));
        }
        assert_eq!(sequences(&receiver.next_frame().await.unwrap()), [5, 6]);
        assert_eq!(sequences(&receiver.next_frame().await.unwrap()), [7]);
        assert_eq!(sequences(&receiver.next_frame().await.unwrap()), [8], "a large message is its own frame");
        assert_eq!(sequences(&receiver.next_frame().await.unwrap()), [9]);
        drop(sender);
        assert_eq!(receiver.next_frame().await, None);
    }

    #[tokio::test]
    async fn a_lane_refuses_without_a_connection_and_when_it_is_full() {
        let (sender, mut receiver) = lane();
        assert!(!sender.send(message(0, 0)), "not connected yet");
        receiver.connected();
        let accepted = (0..).take_while(|call| sender.send(message(*call, 0))).count();
        assert_eq!(accepted, LANE_MESSAGES_MAX);
        receiver.connected();
        let accepted = (0..).take_while(|call| sender.send(message(*call, 1 << 20))).count();
        assert!((31..=33).contains(&accepted), "{accepted} messages of 1 MiB");
        receiver.next_frame().await.unwrap();
        receiver.next_frame().await.unwrap();
        assert!(sender.send(message(1, 0)), "there is room again");
        receiver.status().disconnected();
        assert!(!sender.send(message(2, 0)));
    }

    /// Messages queued on a lost connection are dropped with it, even those drained for a frame
    /// that was never taken.
    #[tokio::test]
    async fn a_new_connection_starts_with_an_empty_lane() {
        let (sender, mut receiver) = lane();
        receiver.connected();
        for call in 0..4 {
            assert!(sender.send(message(call, 200 << 10)));
        }
        assert_eq!(sequences(&receiver.next_frame().await.unwrap()), [0]);
        assert!(sender.send(message(4, 0)));
        receiver.connected();
        assert!(sender.send(message(5, 0)));
        assert_eq!(sequences(&receiver.next_frame().await.unwrap()), [5]);
        assert_eq!(receiver.load.bytes.load(Ordering::Relaxed), 0);
    }
}
