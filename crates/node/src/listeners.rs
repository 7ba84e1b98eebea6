//! The three ports of a node, bound before anything else is touched.

use std::net::SocketAddr;

use quorate_types::topology::NodeAddresses;
use tokio::net::TcpListener;

use crate::config::{NodeConfig, advertised_addresses};
use crate::error::NodeError;

/// The three bound ports of a node.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// For clients.
    pub(crate) client: TcpListener,
    /// For other nodes.
    pub(crate) peer: TcpListener,
    /// For operators.
    pub(crate) ops: TcpListener,
}

impl Listeners {
    /// Binds the ports; returns the addresses to advertise, too.
    pub(crate) async fn bind(config: &NodeConfig) -> Result<(Self, NodeAddresses), NodeError> {
        let address = |text: &str, what| config.listen_address(text, what);
        // All addresses are checked before the first one is bound.
        let client = address(&config.listen.client, "client")?;
        let peer = address(&config.listen.peer, "peer")?;
        let ops = address(&config.listen.ops, "ops")?;
        let (client, client_at) = bind(client, "client").await?;
        let (peer, peer_at) = bind(peer, "peer").await?;
        let (ops, ops_at) = bind(ops, "ops").await?;
        let told = advertised_addresses(&config.advertise, [client_at, peer_at, ops_at])?;
        Ok((Listeners { client, peer, ops }, told))
    }
}

async fn bind(address: SocketAddr, what: &'static str) -> Result<(TcpListener, SocketAddr), NodeError> {
    let failed = |source| NodeError::Listen { what, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_port_is_named_and_may_be_tried_again() {
        let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = NodeConfig::new("/data");
        config.listen.peer = holder.local_addr().unwrap().to_string();
        let refusal = Listeners::bind(&config).await.unwrap_err();
        assert!(refusal.to_string().contains(&config.listen.peer), "{refusal}");
        assert!(refusal.to_string().contains("peer connections"), "{refusal}");
        assert_eq!(refusal.exit_code(), 1);
    }

    #[tokio::test]
    async fn listening_beyond_loopback_is_a_matter_of_configuration() {
        let mut config = NodeConfig::new("/data");
        config.listen.ops = "0.0.0.0:0".to_owned();
        let refusal = Listeners::bind(&config).await.unwrap_err();
        assert_eq!(refusal.exit_code(), 78);
    }
}
