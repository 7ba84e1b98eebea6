//! What a router is told when it is made.

use std::time::Duration;

use tonic::transport::Endpoint;

use crate::Error;

/// What a router is told when it is made.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// Endpoints to fetch the first map from, each `host:port` of a node's client port.
    pub endpoints: Vec<String>,
    /// How long a connection to a node may take, its handshake included.
    pub connect_timeout: Duration,
    /// Whether the nodes with these endpoints as client addresses, written as the cluster's map has them, are the only ones that are
    /// ever talked to. An operation that another node must serve then fails at once. Otherwise the others are learned from the map.
    pub pinned: bool,
}

/// How long a connection to a node may take unless the configuration says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A silent connection is asked for a sign of life this often…
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// …and given up when none comes for this long.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// What a node may send before this side has taken it, in bytes: a stream of large values must not stop at every frame.
const WINDOW_BYTES: u32 = 8 << 20;

impl RouterConfig {
    /// The default settings for these endpoints.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints, connect_timeout: CONNECT_TIMEOUT, pinned: false }
    }

    /// Whether the node with that client address may be talked to.
    pub(crate) fn allows(&self, address: &str) -> bool {
        !self.pinned || self.endpoints.iter().any(|endpoint| endpoint == address)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.endpoints.is_empty() {
            return Err(Error::Invalid { reason: "no endpoint was given; name at least one as host:port".to_owned() });
        }
        for endpoint in &self.endpoints {
            transport(endpoint, self.connect_timeout)?;
        }
        Ok(())
    }
}

/// The transport to a `host:port`, with this project's settings.
pub(crate) fn transport(address: &str, connect_timeout: Duration) -> Result<Endpoint, Error> {
    let invalid = || Error::Invalid { reason: format!("endpoint '{}' is not host:port", address.escape_debug()) };
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || ":/@[]?#".contains(c));
    if !(plain || bracketed) || port.parse::<u16>().ok().is_none_or(|port| port == 0) {
        return Err(invalid());
    }
    Ok(Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| invalid())?
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES))
}

/// An error with all that it was caused by, on one line.
pub(crate) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_host_and_port_and_nothing_else() {
        for good in ["127.0.0.1:7100", "localhost:1", "[::1]:7100", "node-1.example:65535"] {
            assert!(transport(good, CONNECT_TIMEOUT).is_ok(), "{good}");
        }
        for bad in [
            "",
            "localhost",
            ":7100",
            "host:",
            "host:0",
            "host:65536",
            "http://host:1",
            "a b:1",
            "host:1/x",
            "::1:7100",
        ] {
            let error = transport(bad, CONNECT_TIMEOUT).expect_err(bad);
            assert!(error.to_string().contains("host:port"), "{error}");
        }
    }
}
