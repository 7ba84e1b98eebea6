//! How one node connects to another.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

/// How long connecting may take. It need not be shorter than an election time-out: candidates
/// repeat their requests.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A silent connection is pinged this often.
const PEER_PING_INTERVAL: Duration = Duration::from_secs(2);
/// A connection ends if a ping is not answered for this long: a network that drops packets must not
/// keep it open.
const PEER_PING_TIMEOUT: Duration = Duration::from_secs(4);
/// HTTP/2 window of a stream, in bytes: a frame or chunk of the largest size never waits for an
/// update.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// HTTP/2 window of a connection, in bytes.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Opens a new connection to `host:port`.
pub(crate) async fn connect(address: &str) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PEER_PING_INTERVAL)
        .keep_alive_timeout(PEER_PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect()
        .await
}
