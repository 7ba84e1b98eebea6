//! Answers parts of frames on a stream: pages of replies, each no larger than the stream has room.

use std::time::Instant;

use quorate_control::parts::{Part, Reads, Work};
use quorate_control::serve::Reading;
use quorate_control::{Answer, Server};
use quorate_proto::kv::Reply;
use quorate_proto::reply_to_wire;
use quorate_types::{ReadLevel, VALUE_BYTES_MAX};
use tokio::sync::OwnedSemaphorePermit;

use super::metrics::{KindMetrics, Metrics};
use super::replies::{Batch, ReplyQueue, Room};

/// Bytes of values on a page: more than a frame has, so that reading a page costs little beside
/// sending it.
const PAGE_BYTES: usize = 1 << 20;

/// Serves the parts of one stream's frames.
pub(crate) struct PartServer {
    server: Server,
    metrics: Metrics,
}

impl PartServer {
    /// Serves parts with this server.
    pub(crate) fn new(server: Server) -> Self {
        PartServer { server, metrics: Metrics::new() }
    }

    /// Serves a part: one reply for each request. The room of the requests is freed with the last
    /// reply.
    pub(crate) async fn serve(&self, part: Part, queue: &ReplyQueue, room: OwnedSemaphorePermit) {
        let started = Instant::now();
        let (kind, last) = match part.work {
            Work::Write(writes) => {
                let answers = self.server.write(writes).await;
                self.metrics.write.count(&answers);
                let mut replies = to_wire(answers);
                let bytes = queue.reserve_refused(&mut replies);
                (&self.metrics.write, Batch { replies, requests: None, bytes })
            }
            Work::Strong(reads) => {
                let kind = &self.metrics.strong;
                // The wait for the right to answer comes first: a page holds room of the stream.
                let mut reading = self.server.read(ReadLevel::Strong, reads).await;
                let mut page = Page::new(queue, kind).await;
                page.fill(&mut reading).await;
                (kind, page.close())
            }
            Work::Eventual(all) => (&self.metrics.eventual, self.eventual(all, queue).await),
        };
        let took = started.elapsed();
        kind.took(took);
        self.server.took(took);
        queue.send(Batch { requests: Some(room), ..last }).await;
    }

    /// Local reads of many shards share their pages: the right to answer takes no wait.
    async fn eventual(&self, all: Vec<Reads>, queue: &ReplyQueue) -> Batch {
        let mut page = Page::new(queue, &self.metrics.eventual).await;
        for reads in all {
            let mut reading = self.server.read(ReadLevel::Eventual, reads).await;
            page.fill(&mut reading).await;
        }
        page.close()
    }
}

fn to_wire(answers: Vec<Answer>) -> Vec<Reply> {
    answers.into_iter().map(|Answer { id, result }| reply_to_wire(id, result)).collect()
}

/// Replies to reads, gathered until their values have [`PAGE_BYTES`]; a last value may exceed it.
struct Page<'a> {
    queue: &'a ReplyQueue,
    metrics: &'a KindMetrics,
    replies: Vec<Reply>,
    bytes: usize,
    reserved: Room,
}

impl<'a> Page<'a> {
    /// An empty page, as soon as the stream has room for a full one. A task that holds a page must
    /// wait for nothing but the stream.
    async fn new(queue: &'a ReplyQueue, metrics: &'a KindMetrics) -> Self {
        let reserved = queue.reserve(PAGE_BYTES + VALUE_BYTES_MAX).await;
        Page { queue, metrics, replies: Vec::new(), bytes: 0, reserved }
    }

    /// Adds all answers, and sends every page that is full before the last one.
    async fn fill(&mut self, reading: &mut Reading<'_>) {
        while !reading.is_done() {
            if self.bytes >= PAGE_BYTES {
                self.turn().await;
            }
            let page = reading.next_page(PAGE_BYTES - self.bytes);
            self.metrics.count(&page.answers);
            self.bytes += page.bytes;
            self.replies.extend(to_wire(page.answers));
        }
    }

    /// Sends the page and begins the next one.
    async fn turn(&mut self) {
        let replies = std::mem::take(&mut self.replies);
        let bytes = self.reserved.keep(std::mem::take(&mut self.bytes));
        self.queue.send(Batch { replies, requests: None, bytes }).await;
        self.reserved = self.queue.reserve(PAGE_BYTES + VALUE_BYTES_MAX).await;
    }

    /// Ends the page; it keeps only the room that it uses.
    fn close(mut self) -> Batch {
        Batch { replies: self.replies, requests: None, bytes: self.reserved.keep(self.bytes) }
    }
}
