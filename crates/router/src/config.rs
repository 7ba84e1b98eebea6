//! The configuration of a router.

use std::time::Duration;

use quorate_types::HostPort;

/// How long a connection to a node may take unless the configuration says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The configuration of a router.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// Client addresses of nodes, to fetch the first map from.
    pub endpoints: Vec<HostPort>,
    /// How long a connection to a node may take, including its handshake.
    pub connect_timeout: Duration,
    /// Restricts the router to the nodes whose client addresses are the endpoints. An operation
    /// that only another node can serve then fails immediately. False: the map names the other
    /// nodes.
    pub pinned: bool,
}

impl RouterConfig {
    /// The default settings for these endpoints.
    pub fn new(endpoints: Vec<HostPort>) -> Self {
        Self { endpoints, connect_timeout: CONNECT_TIMEOUT, pinned: false }
    }

    /// Whether the router may send requests to the node with that client address.
    pub(crate) fn allows(&self, address: &str) -> bool {
        !self.pinned || address.parse().is_ok_and(|address: HostPort| self.endpoints.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_router_allows_its_endpoints_only() {
        let endpoints = vec!["a:1".parse().unwrap(), "[::1]:2".parse().unwrap()];
        let open = RouterConfig::new(endpoints.clone());
        let pinned = RouterConfig { pinned: true, ..RouterConfig::new(endpoints) };
        for (address, allowed) in [("a:1", true), ("[0:0::1]:2", true), ("a:2", false), ("b:1", false)] {
            assert_eq!((open.allows(address), pinned.allows(address)), (true, allowed), "{address}");
        }
    }
}
