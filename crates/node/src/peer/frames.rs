//! The stream of frames of one connection.

use bytes::Bytes;
use futures::stream::{self, Stream};
use quorate_proto::peer::{Frame, Hello};
use tokio::sync::OwnedMutexGuard;

use super::lane::LaneReceiver;

/// The hello, then the frames of the lane until it closes.
pub(super) fn frames(
    hello: Hello,
    receiver: OwnedMutexGuard<LaneReceiver>,
) -> impl Stream<Item = Frame> + Send + 'static {
    stream::unfold((Some(hello), receiver), async |(hello, mut receiver)| {
        let frame = match hello {
            Some(hello) => Frame { hello: Some(hello), messages: Bytes::new() },
            None => Frame { hello: None, messages: receiver.next_frame().await?.into() },
        };
        Some((frame, (None, receiver)))
    })
}
