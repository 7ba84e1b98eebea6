//! Keeps one lane connected to one node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use quorate_proto::MESSAGE_BYTES_MAX;
use quorate_proto::peer::Hello;
use quorate_proto::peer::peer_client::PeerClient;
use quorate_types::{NodeId, error_chain};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{debug, info};

use super::connection::connect;
use super::frames::frames;
use super::lane::{LaneReceiver, LaneStatus};

/// The back-off after the first failure.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest back-off: a node that returns is found within about this time.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A connection that lasted this long resets the back-off.
const STEADY: Duration = Duration::from_secs(5);

/// Keeps one lane connected to one node.
pub(crate) struct Link {
    /// The node to connect to.
    pub(crate) to: NodeId,
    /// The lane's name in log lines.
    pub(crate) lane: &'static str,
    /// The first message on every connection.
    pub(crate) hello: Hello,
    /// The node's address; a change starts a new connection.
    pub(crate) address: watch::Receiver<String>,
    /// The open connection, for calls that share it.
    pub(crate) connection: Arc<ArcSwapOption<Channel>>,
    /// Ends the link.
    pub(crate) stopping: CancellationToken,
}

impl Link {
    /// Keeps the lane connected until the node leaves the topology or this one stops. Never gives
    /// up.
    pub(crate) async fn run(self, receiver: LaneReceiver) {
        self.keep_connected(receiver).await;
        self.connection.store(None);
    }

    async fn keep_connected(&self, receiver: LaneReceiver) {
        let mut addresses = self.address.clone();
        let status = receiver.status();
        // The stream of frames owns the receiver while the connection lasts; the lock passes it on
        // to the next connection.
        let receiver = Arc::new(Mutex::new(receiver));
        let mut backoff = BACKOFF_MIN;
        loop {
            let address = addresses.borrow_and_update().clone();
            let started = Instant::now();
            let ended = tokio::select! {
                () = self.stopping.cancelled() => return,
                changed = addresses.changed() => match changed {
                    Ok(()) => "the address changed".to_owned(),
                    Err(_) => return,
                },
                ended = self.carry(&address, &receiver, &status) => ended,
            };
            status.disconnected();
            self.connection.store(None);
            if started.elapsed() >= STEADY {
                backoff = BACKOFF_MIN;
            }
            debug!(node = %self.to, lane = self.lane, address, reason = ended, "peer disconnected");
            let pause = rand::random_range(backoff / 2..=backoff);
            backoff = (backoff * 2).min(BACKOFF_MAX);
            tokio::select! {
                () = self.stopping.cancelled() => return,
                changed = addresses.changed() => match changed {
                    Ok(()) => backoff = BACKOFF_MIN,
                    Err(_) => return,
                },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Carries frames over one connection until it ends; returns the reason.
    async fn carry(&self, address: &str, receiver: &Arc<Mutex<LaneReceiver>>, status: &LaneStatus) -> String {
        let channel = match connect(address).await {
            Ok(channel) => channel,
            Err(e) => return error_chain(&e),
        };
        let mut receiver = receiver.clone().lock_owned().await;
        receiver.connected();
        info!(node = %self.to, lane = self.lane, address, "peer connected");
        self.connection.store(Some(Arc::new(channel.clone())));
        let mut client = PeerClient::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX);
        let result = client.frames(frames(self.hello.clone(), receiver)).await;
        status.disconnected();
        match result {
            Ok(_) => "the peer ended the stream".to_owned(),
            Err(status) => error_chain(&status),
        }
    }
}
