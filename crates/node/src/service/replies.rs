//! The queue of replies of one stream: all waiting replies become one frame.

use std::sync::Arc;

use quorate_proto::kv::reply::Result as WireResult;
use quorate_proto::kv::{Found, Record, Refused, Reply};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Parts whose replies may wait for the connection.
const QUEUED_MAX: usize = 256;
/// Bytes of a frame. A single reply larger than this is a frame of its own.
const FRAME_BYTES_MAX: usize = 512 << 10;

/// Bytes of values in one stream's replies, counted from before the read until they are written.
const VALUES_BYTES_MAX: usize = 64 << 20;
/// The unit in which room for bytes is counted.
const PORTION_BYTES: usize = 1 << 10;

/// A new queue.
pub(crate) fn reply_queue() -> (ReplyQueue, Replies) {
    let (sender, receiver) = mpsc::channel(QUEUED_MAX);
    let bytes = Arc::new(Semaphore::new(VALUES_BYTES_MAX / PORTION_BYTES));
    (ReplyQueue { sender, bytes }, Replies { receiver, waiting: Vec::new(), rooms: Vec::new() })
}

/// Replies, with the room that is freed when they are written.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The replies.
    pub(crate) replies: Vec<Reply>,
    /// The room of the requests that they answer.
    pub(crate) requests: Option<OwnedSemaphorePermit>,
    /// The room of the values in them.
    pub(crate) bytes: Option<OwnedSemaphorePermit>,
}

/// The sending end. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ReplyQueue {
    sender: mpsc::Sender<Batch>,
    bytes: Arc<Semaphore>,
}

impl ReplyQueue {
    /// Queues replies; waits while the queue is full. Does nothing if the client is gone.
    pub(crate) async fn send(&self, batch: Batch) {
        // An error means that the client is gone.
        let _ = self.sender.send(batch).await;
    }

    /// Reserves room for the records in refused writes, which are already in memory. Without room
    /// the records are dropped from the replies: a client can read them.
    pub(crate) fn reserve_refused(&self, replies: &mut [Reply]) -> Option<OwnedSemaphorePermit> {
        let bytes = replies.iter().filter_map(refused_record).map(|record| record.value.len()).sum();
        if bytes == 0 {
            return None;
        }
        let room = self.bytes.clone().try_acquire_many_owned(portions(bytes)).ok();
        if room.is_none() {
            for reply in replies {
                if let Some(WireResult::Refused(Refused { current, .. })) = &mut reply.result {
                    *current = None;
                }
            }
        }
        room
    }

    /// Waits until the stream has room for this many bytes that are about to be read: reads of a
    /// client that does not read its replies wait here. A task that holds room must
    /// [`send`](Self::send) before it waits for anything else.
    pub(crate) async fn reserve(&self, bytes: usize) -> Room {
        let all = self.bytes.clone().acquire_many_owned(portions(bytes)).await;
        Room(Some(all.expect("the semaphore is never closed")))
    }
}

/// Reserved room.
pub(crate) struct Room(Option<OwnedSemaphorePermit>);

impl Room {
    /// Returns the room of this many bytes, at most the reserved ones, and frees the rest.
    pub(crate) fn keep(&mut self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let mut all = self.0.take()?;
        let used = (portions(bytes) as usize).min(all.num_permits());
        all.split(used)
    }
}

fn portions(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PORTION_BYTES)).expect("a single read is far below the bound of a stream")
}

/// The receiving end.
pub(crate) struct Replies {
    receiver: mpsc::Receiver<Batch>,
    /// Replies taken from the queue that are in no frame yet, in reverse order.
    waiting: Vec<Reply>,
    /// The room of `waiting`; freed when all of it is in frames.
    rooms: Vec<OwnedSemaphorePermit>,
}

impl Replies {
    /// Waits for replies and returns as many as fit a frame; none when all senders are gone.
    pub(crate) async fn next_frame(&mut self) -> Option<Vec<Reply>> {
        if self.waiting.is_empty() {
            self.rooms.clear();
            let mut batches = Vec::with_capacity(QUEUED_MAX);
            if self.receiver.recv_many(&mut batches, QUEUED_MAX).await == 0 {
                return None;
            }
            let replies = batches.iter().map(|batch| batch.replies.len()).sum();
            self.waiting.reserve(replies);
            for Batch { replies, requests, bytes } in batches {
                self.waiting.extend(replies);
                self.rooms.extend(requests.into_iter().chain(bytes));
            }
            if self.waiting.iter().map(size_bytes).sum::<usize>() <= FRAME_BYTES_MAX {
                self.rooms.clear();
                return Some(std::mem::take(&mut self.waiting));
            }
            self.waiting.reverse();
        }
        let mut frame = Vec::new();
        let mut bytes = 0;
        while let Some(reply) = self.waiting.pop_if(|reply| bytes == 0 || bytes + size_bytes(reply) <= FRAME_BYTES_MAX)
        {
            bytes += size_bytes(&reply);
            frame.push(reply);
        }
        Some(frame)
    }
}

fn refused_record(reply: &Reply) -> Option<&Record> {
    match &reply.result {
        Some(WireResult::Refused(Refused { current, .. })) => current.as_ref(),
        _ => None,
    }
}

/// The approximate size of a reply in a frame, in bytes.
fn size_bytes(reply: &Reply) -> usize {
    const OVERHEAD_BYTES: usize = 64;
    let record = match &reply.result {
        Some(WireResult::Found(Found { record }) | WireResult::Refused(Refused { current: record, .. })) => {
            record.as_ref()
        }
        _ => None,
    };
    OVERHEAD_BYTES + record.map_or(0, |record| record.value.len())
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn reply(id: u64, value_bytes: usize) -> Reply {
        let record = Record { version: 1, value: vec![0; value_bytes].into(), expires_at_ms: None };
        Reply { id, by: None, result: Some(WireResult::Found(Found { record: Some(record) })) }
    }

    fn batch(replies: Vec<Reply>) -> Batch {
        Batch { replies, requests: None, bytes: None }
    }

    fn ids(frame: Option<Vec<Reply>>) -> Vec<u64> {
        frame.unwrap().iter().map(|reply| reply.id).collect()
    }

    #[tokio::test]
    async fn waiting_replies_become_one_frame() {
        let (queue, mut replies) = reply_queue();
        queue.send(batch(vec![reply(1, 0), reply(2, 10)])).await;
        queue.send(batch(vec![reply(3, 0)])).await;
        assert_eq!(ids(replies.next_frame().await), [1, 2, 3]);
        queue.send(batch(vec![reply(4, 0)])).await;
        drop(queue);
        assert_eq!(ids(replies.next_frame().await), [4]);
        assert!(replies.next_frame().await.is_none());
    }

    #[tokio::test]
    async fn large_replies_are_spread_over_frames_in_order() {
        let (queue, mut replies) = reply_queue();
        let large = FRAME_BYTES_MAX / 2;
        queue.send(batch(vec![reply(1, large), reply(2, 100), reply(3, large), reply(4, 1 << 20), reply(5, 0)])).await;
        assert_eq!(ids(replies.next_frame().await), [1, 2]);
        assert_eq!(ids(replies.next_frame().await), [3]);
        assert_eq!(ids(replies.next_frame().await), [4]);
        assert_eq!(ids(replies.next_frame().await), [5]);
    }

    /// Requests count as in flight until their replies are written: that stops a client that does
    /// not read.
    #[tokio::test]
    async fn room_is_freed_when_all_replies_are_in_frames() {
        let room = Arc::new(Semaphore::new(2));
        let (queue, mut replies) = reply_queue();
        let taken = room.clone().acquire_many_owned(2).await.unwrap();
        queue.send(Batch { requests: Some(taken), ..batch(vec![reply(1, FRAME_BYTES_MAX), reply(2, 1)]) }).await;
        assert_eq!(ids(replies.next_frame().await), [1]);
        assert_eq!(room.available_permits(), 0);
        assert_eq!(ids(replies.next_frame().await), [2]);
        queue.send(batch(vec![reply(3, 1)])).await;
        assert_eq!(ids(replies.next_frame().await), [3]);
        assert_eq!(room.available_permits(), 2);
    }

    /// Bytes read for a client that does not read its replies are bounded.
    #[tokio::test]
    async fn room_for_bytes_is_freed_when_they_are_written() {
        let (queue, mut replies) = reply_queue();
        let mut sent = 0;
        while let Some(mut room) = queue.reserve(2 << 20).now_or_never() {
            let bytes = room.keep(1 << 20);
            queue.send(Batch { bytes, ..batch(vec![reply(sent, 1 << 20)]) }).await;
            sent += 1;
        }
        assert_eq!(sent as usize, VALUES_BYTES_MAX / (1 << 20) - 1, "only room in use counts");
        replies.next_frame().await.unwrap();
        assert!(queue.reserve(2 << 20).now_or_never().is_none(), "the room of unwritten replies is not free");
        for _ in 1..sent {
            replies.next_frame().await.unwrap();
        }
        queue.send(batch(vec![reply(sent, 0)])).await;
        replies.next_frame().await.unwrap();
        assert_eq!(queue.bytes.available_permits(), VALUES_BYTES_MAX / PORTION_BYTES);
    }

    /// Thousands of small conditional writes may be refused because of one large record.
    #[tokio::test]
    async fn refused_records_are_left_out_where_there_is_no_room() {
        let (queue, _replies) = reply_queue();
        let refused = |id| {
            let Some(WireResult::Found(Found { record })) = reply(id, 1 << 20).result else { unreachable!() };
            Reply { id, by: None, result: Some(WireResult::Refused(Refused { version: 1, current: record })) }
        };
        let mut in_use = Vec::new();
        for id in 0..VALUES_BYTES_MAX as u64 >> 20 {
            let mut replies = [refused(id)];
            in_use.extend(queue.reserve_refused(&mut replies));
            assert!(refused_record(&replies[0]).is_some());
        }
        let mut late = [refused(99), reply(100, 0)];
        assert!(queue.reserve_refused(&mut late).is_none());
        assert!(refused_record(&late[0]).is_none(), "the refusal itself stays");
        drop(in_use);
        assert!(queue.reserve_refused(&mut [refused(101)]).is_some());
    }
}
