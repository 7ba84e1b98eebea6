//! The settings of every gRPC connection of a client.

use std::time::Duration;

use quorate_types::{HostPort, HostPortError};
use tonic::transport::Endpoint;

/// An idle connection is probed this often.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// A connection whose probe is not answered for this long is closed.
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// The most bytes that a node may send before this side has read them. Large, so that a stream of
/// large values does not wait for a window update after every frame.
const WINDOW_BYTES: u32 = 8 << 20;

/// The transport to a `host:port`.
pub(crate) fn transport(address: &str, connect_timeout: Duration) -> Result<Endpoint, HostPortError> {
    let address: HostPort = address.parse()?;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a host:port makes a URI");
    Ok(endpoint
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every address that `HostPort` accepts makes a URI; other texts are refused.
    #[test]
    fn transport_takes_every_host_port() {
        for good in ["127.0.0.1:7100", "localhost:1", "[::1]:7100", "node-1.example:65535", "under_score:1", "a.:1"] {
            assert_eq!(transport(good, Duration::from_secs(1)).is_ok(), good.parse::<HostPort>().is_ok(), "{good}");
        }
        for bad in ["", "localhost", ":7100", "host:0", "http://host:1", "a b:1", "host:1/x", "::1:7100"] {
            let error = transport(bad, Duration::from_secs(1)).expect_err(bad);
            assert!(error.to_string().contains("host:port"), "{error}");
        }
    }
}
