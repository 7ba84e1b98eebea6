//! The sending half of a stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use quorate_proto::kv::{ClientFrame, ClientHello};

use super::link::Link;

/// The sending half of a link's stream: the hello, then frames of queued requests. A lone request
/// leaves immediately; requests submitted while a frame is being written leave in the next one.
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
