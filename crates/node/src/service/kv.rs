//! The Kv stream: many requests and replies per frame.
//!
//! ```text
//!   frame ─→ parts (one shard, one kind) ─→ a task each ─→ replies ─→ queue ─→ one frame for all
//!     ↑                                                      │
//!     └────── room for requests in flight ←── freed when the replies are written
//! ```
//!
//! A slow shard does not delay replies of other shards. The node stops reading from a client that
//! does not read its replies.

use std::pin::Pin;
use std::sync::Arc;

use futures::stream::{self, Stream};
use quorate_control::Server;
use quorate_control::parts::split;
use quorate_proto::kv::kv_server::Kv;
use quorate_proto::kv::{ClientFrame, Reply, ServerFrame, ServerHello};
use quorate_proto::{reply_to_wire, request_from_wire};
use quorate_types::Rejection;
use quorate_types::topology::Identity;
use tokio::sync::{Semaphore, oneshot};
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use super::pages::PartServer;
use super::replies::{Batch, Replies, ReplyQueue, reply_queue};
use crate::handshake::greet_client;
use crate::life::Life;
use crate::node::Node;
use crate::refusal::Refusal;

/// Requests of one stream that may be in flight. A large request counts as several, see
/// [`REQUEST_BYTES`].
const IN_FLIGHT_MAX: usize = 4096;
/// A request larger than this counts as one request per portion of this size. All requests in
/// flight of a stream together are bounded by about [`IN_FLIGHT_MAX`] times this. The queue of
/// replies has its own bound.
const REQUEST_BYTES: usize = 16 << 10;

/// Carries the answer to a client's hello.
type Greeting = oneshot::Sender<Result<ServerHello, Status>>;

/// Serves the Kv stream.
pub(crate) struct KvService {
    node: Arc<Node>,
}

impl KvService {
    /// The Kv service of a node.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        KvService { node }
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<ServerFrame, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<ClientFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        if self.node.life.is_draining() {
            return Err(Refusal::Stopping.into());
        }
        let member = self.node.require_member()?;
        let frames = request.into_inner();
        let (queue, replies) = reply_queue();
        let (greeting, greeted) = oneshot::channel();
        let server = PartServer::new(Server::new(member.plane.clone()));
        let exchange = Exchange { server: Arc::new(server), queue, room: Arc::new(Semaphore::new(IN_FLIGHT_MAX)) };
        self.node.life.spawn(exchange.run(frames, member.store().identity, greeting, self.node.clone()));
        Ok(Response::new(Box::pin(outgoing(greeted, replies))))
    }
}

/// One client's stream.
struct Exchange {
    server: Arc<PartServer>,
    queue: ReplyQueue,
    room: Arc<Semaphore>,
}

impl Exchange {
    /// Greets the client and reads its frames until the client ends the stream or the node drains.
    /// Requests in flight are still answered.
    async fn run(self, mut frames: Streaming<ClientFrame>, own: Identity, greeting: Greeting, node: Arc<Node>) {
        let mut greeting = Some(greeting);
        loop {
            let frame = tokio::select! {
                frame = frames.message() => frame,
                () = node.life.draining() => return,
            };
            let frame = match frame {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(status) => {
                    debug!(%status, "client gone");
                    return;
                }
            };
            if let Some(greeting) = greeting.take() {
                let greeted = greet_client(frame.hello, own).map_err(Status::from);
                let refused = greeted.is_err();
                // An error means that the client is gone; the next read of a frame reports it, too.
                let _ = greeting.send(greeted);
                if refused {
                    return;
                }
            }
            self.admit(frame.requests, &node.life).await;
        }
    }

    /// Starts a task for each part of a frame as soon as there is room for its requests.
    async fn admit(&self, requests: Vec<quorate_proto::kv::Request>, life: &Life) {
        let mut refused: Vec<Reply> = Vec::new();
        let decoded = requests.into_iter().filter_map(|request| {
            let id = request.id;
            let refuse = |reason: String| refused.push(reply_to_wire(id, Err(Rejection::Invalid { reason })));
            request_from_wire(request).map_err(|error| error.to_string()).map_err(refuse).ok()
        });
        let parts = split(decoded);
        if !refused.is_empty() {
            self.queue.send(Batch { replies: refused, requests: None, bytes: None }).await;
        }
        for part in parts {
            let portions = part.requests() + part.bytes / REQUEST_BYTES;
            let room = u32::try_from(portions.min(IN_FLIGHT_MAX)).expect("the bound is small");
            let Ok(room) = self.room.clone().acquire_many_owned(room).await else { return };
            let (server, queue) = (self.server.clone(), self.queue.clone());
            life.spawn_request(async move { server.serve(part, &queue, room).await });
        }
    }
}

/// The hello, then the frames of the queue until its senders are gone. A client that is refused
/// learns it right after its own hello.
fn outgoing(
    greeted: oneshot::Receiver<Result<ServerHello, Status>>,
    replies: Replies,
) -> impl Stream<Item = Result<ServerFrame, Status>> + Send {
    stream::unfold((Some(greeted), replies), async |(greeted, mut replies)| {
        let frame = match greeted {
            Some(greeted) => match greeted.await.ok()? {
                Ok(hello) => ServerFrame { hello: Some(hello), replies: Vec::new() },
                Err(refusal) => return Some((Err(refusal), (None, replies))),
            },
            None => ServerFrame { hello: None, replies: replies.next_frame().await? },
        };
        Some((Ok(frame), (None, replies)))
    })
}
