//! The queue of replies of one stream: what waits becomes one frame.

use quorate_proto::kv::reply::Result as WireResult;
use quorate_proto::kv::{Found, Refused, Reply};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Parts whose replies may wait for the connection.
const QUEUED_MAX: usize = 256;
/// A frame is closed before its replies take more bytes than this; a single larger reply is a frame of its own.
const FRAME_BYTES_MAX: usize = 512 << 10;

/// A new queue.
pub(crate) fn reply_queue() -> (ReplyQueue, Replies) {
    let (sender, receiver) = mpsc::channel(QUEUED_MAX);
    (ReplyQueue { sender }, Replies { receiver, waiting: Vec::new(), rooms: Vec::new() })
}

/// The replies of one part, and the room that its requests took; the room is free again when the replies are written.
type Batch = (Vec<Reply>, Option<OwnedSemaphorePermit>);

/// The end that replies are put into. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ReplyQueue {
    sender: mpsc::Sender<Batch>,
}

impl ReplyQueue {
    /// Queues replies; waits while the queue is full. Nothing happens when the client is gone.
    pub(crate) async fn send(&self, replies: Vec<Reply>, room: Option<OwnedSemaphorePermit>) {
        // An error says that the client is gone: nobody waits for the replies any more.
        let _ = self.sender.send((replies, room)).await;
    }
}

/// The end that frames are taken out of.
pub(crate) struct Replies {
    receiver: mpsc::Receiver<Batch>,
    /// Taken from the queue and in no frame yet, in reverse order.
    waiting: Vec<Reply>,
    /// The room of the requests that `waiting` answers; given back when all of it is in frames.
    rooms: Vec<OwnedSemaphorePermit>,
}

impl Replies {
    /// Waits for replies and gives everything that waits, as far as it fits a frame; none when nobody can put anything in.
    pub(crate) async fn next_frame(&mut self) -> Option<Vec<Reply>> {
        if self.waiting.is_empty() {
            self.rooms.clear();
            let mut batches = Vec::with_capacity(QUEUED_MAX);
            if self.receiver.recv_many(&mut batches, QUEUED_MAX).await == 0 {
                return None;
            }
            let replies = batches.iter().map(|(replies, _)| replies.len()).sum();
            self.waiting.reserve(replies);
            for (replies, room) in batches {
                self.waiting.extend(replies);
                self.rooms.extend(room);
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

/// About how many bytes a reply takes in a frame.
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
    use std::sync::Arc;

    use quorate_proto::kv::Record;
    use tokio::sync::Semaphore;

    use super::*;

    fn reply(id: u64, value_bytes: usize) -> Reply {
        let record = Record { version: 1, value: vec![0; value_bytes].into(), expires_at_ms: None };
        Reply { id, by: None, result: Some(WireResult::Found(Found { record: Some(record) })) }
    }

    fn ids(frame: Option<Vec<Reply>>) -> Vec<u64> {
        frame.unwrap().iter().map(|reply| reply.id).collect()
    }

    #[tokio::test]
    async fn what_waits_becomes_one_frame() {
        let (queue, mut replies) = reply_queue();
        queue.send(vec![reply(1, 0), reply(2, 10)], None).await;
        queue.send(vec![reply(3, 0)], None).await;
        assert_eq!(ids(replies.next_frame().await), [1, 2, 3]);
        queue.send(vec![reply(4, 0)], None).await;
        drop(queue);
        assert_eq!(ids(replies.next_frame().await), [4]);
        assert!(replies.next_frame().await.is_none());
    }

    #[tokio::test]
    async fn large_replies_are_spread_over_frames_in_order() {
        let (queue, mut replies) = reply_queue();
        let large = FRAME_BYTES_MAX / 2;
        queue.send(vec![reply(1, large), reply(2, 100), reply(3, large), reply(4, 1 << 20), reply(5, 0)], None).await;
        assert_eq!(ids(replies.next_frame().await), [1, 2]);
        assert_eq!(ids(replies.next_frame().await), [3]);
        assert_eq!(ids(replies.next_frame().await), [4]);
        assert_eq!(ids(replies.next_frame().await), [5]);
    }

    /// Requests count as in flight until their replies are written: that is what stops a client that does not read.
    #[tokio::test]
    async fn room_is_given_back_when_all_replies_are_in_frames() {
        let room = Arc::new(Semaphore::new(2));
        let (queue, mut replies) = reply_queue();
        let taken = room.clone().acquire_many_owned(2).await.unwrap();
        queue.send(vec![reply(1, FRAME_BYTES_MAX), reply(2, 1)], Some(taken)).await;
        assert_eq!(ids(replies.next_frame().await), [1]);
        assert_eq!(room.available_permits(), 0);
        assert_eq!(ids(replies.next_frame().await), [2]);
        queue.send(vec![reply(3, 1)], None).await;
        assert_eq!(ids(replies.next_frame().await), [3]);
        assert_eq!(room.available_permits(), 2);
    }
}
