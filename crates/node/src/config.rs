//! A node's configuration, and the checks before anything is touched.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use quorate_raft::Timing;
use quorate_ring::WEIGHT_MAX;
use quorate_types::topology::NodeAddresses;
use quorate_types::{HostPort, HostPortError};

/// The default weight of a node.
pub const WEIGHT_DEFAULT: u32 = 100;

/// A node's configuration.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The data directory. Created if it is absent; belongs to one node of one cluster for good.
    pub data_dir: PathBuf,
    /// The addresses to listen on, each `host:port`; port 0 takes a free one.
    pub listen: NodeAddresses,
    /// The addresses that other nodes and clients use, each `host:port`; an empty one is the listen
    /// address.
    pub advertise: NodeAddresses,
    /// Client addresses of nodes of the cluster to join, or of the other initial nodes. They are
    /// asked again after a restart.
    pub join: Vec<String>,
    /// The failure domain of this node; empty: none is named.
    pub zone: String,
    /// The node's share of the replicas relative to others, 1 to 10,000.
    pub weight: u32,
    /// Allows to listen beyond loopback without encryption.
    pub insecure: bool,
    /// Heartbeats and elections; the same on every node of a cluster.
    pub timing: Timing,
    /// Bounds of disk usage.
    pub limits: Limits,
}

/// Bounds of disk usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Puts are refused while the disk of the data directory has fewer free bytes. None: 512 MiB,
    /// or 2 % of the disk where that is less.
    pub disk_reserve_bytes: Option<u64>,
    /// Bytes of log that a group retains below its flushed index, for followers that lag.
    pub log_retained_bytes_per_group: u64,
    /// Bytes of log that all groups of the node together retain below their flushed indexes.
    pub log_retained_bytes_per_node: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            disk_reserve_bytes: None,
            log_retained_bytes_per_group: 64 << 20,
            log_retained_bytes_per_node: 1 << 30,
        }
    }
}

impl NodeConfig {
    /// A node with this data directory that listens on free loopback ports; all other fields have
    /// their defaults.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let any = || "127.0.0.1:0".to_owned();
        NodeConfig {
            data_dir: data_dir.into(),
            listen: NodeAddresses { client: any(), peer: any(), ops: any() },
            advertise: NodeAddresses::default(),
            join: Vec::new(),
            zone: String::new(),
            weight: WEIGHT_DEFAULT,
            insecure: false,
            timing: Timing::default(),
            limits: Limits::default(),
        }
    }

    /// Checks everything that can be checked without touching the disk or a port.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::NoDataDir);
        }
        if !(1..=WEIGHT_MAX).contains(&self.weight) {
            return Err(ConfigError::Weight(self.weight));
        }
        for address in self.join.iter().chain(advertised(&self.advertise)) {
            address.parse::<HostPort>()?;
        }
        let Timing { heartbeat_ms, lease_ms } = self.timing;
        if heartbeat_ms == 0 || heartbeat_ms * 2 > lease_ms {
            return Err(ConfigError::Timing { heartbeat_ms, lease_ms });
        }
        let Limits { log_retained_bytes_per_group: group, log_retained_bytes_per_node: node, .. } = self.limits;
        if group > node {
            return Err(ConfigError::Retention { group, node });
        }
        Ok(())
    }

    /// The address to listen on. Resolves names; refuses an address beyond loopback unless
    /// `insecure` is set.
    pub(crate) fn listen_address(&self, text: &str, what: &'static str) -> Result<SocketAddr, ConfigError> {
        HostPort::parse_listen(text)?;
        let unresolved = |reason: String| ConfigError::Unresolved { what, address: text.to_owned(), reason };
        let mut resolved = text.to_socket_addrs().map_err(|e| unresolved(e.to_string()))?;
        let address = resolved.next().ok_or_else(|| unresolved("it has no address".to_owned()))?;
        if !address.ip().is_loopback() && !self.insecure {
            return Err(ConfigError::Insecure { what, address: text.to_owned() });
        }
        Ok(address)
    }
}

/// Why a configuration is refused. The message names the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no data directory.
    #[error("no data directory is given; use --data-dir DIR")]
    NoDataDir,
    /// The weight is out of range.
    #[error("the weight is {0}; a weight is 1 to {WEIGHT_MAX}, 100 is usual")]
    Weight(u32),
    /// An address is not `host:port`.
    #[error(transparent)]
    Address(#[from] HostPortError),
    /// The lease is too short for the heartbeat.
    #[error("heartbeat {heartbeat_ms} ms, lease {lease_ms} ms: a lease must be at least two heartbeats long")]
    Timing {
        /// The heartbeat interval.
        heartbeat_ms: u64,
        /// The lease.
        lease_ms: u64,
    },
    /// A group may retain more log than the whole node.
    #[error("the log retention of one group ({group} bytes) is larger than the node's ({node} bytes)")]
    Retention {
        /// Bytes of one group.
        group: u64,
        /// Bytes of all groups.
        node: u64,
    },
    /// A listen address does not resolve.
    #[error("the {what} address '{address}' cannot be resolved: {reason}")]
    Unresolved {
        /// The port.
        what: &'static str,
        /// The address.
        address: String,
        /// The resolver's error.
        reason: String,
    },
    /// A listen address is reachable from other machines.
    #[error(
        "the {what} address '{address}' is reachable from other machines, and connections are not encrypted; listen on a \
         loopback address, or say --insecure if the network is trusted"
    )]
    Insecure {
        /// The port.
        what: &'static str,
        /// The address.
        address: String,
    },
    /// The node listens on every address and has none to advertise.
    #[error(
        "the node listens for {what} connections on every address ({bound}); say with --advertise-{what} HOST:PORT where \
         others reach it"
    )]
    NotAdvertised {
        /// The port.
        what: &'static str,
        /// The address that the node listens on.
        bound: SocketAddr,
    },
}

/// The addresses that other nodes and clients get: as configured, else as bound.
pub(crate) fn advertised_addresses(
    configured: &NodeAddresses,
    bound: [SocketAddr; 3],
) -> Result<NodeAddresses, ConfigError> {
    let [client, peer, ops] = bound;
    Ok(NodeAddresses {
        client: advertised_address(&configured.client, client, "client")?,
        peer: advertised_address(&configured.peer, peer, "peer")?,
        ops: advertised_address(&configured.ops, ops, "ops")?,
    })
}

fn advertised_address(configured: &str, bound: SocketAddr, what: &'static str) -> Result<String, ConfigError> {
    if !configured.is_empty() {
        return Ok(configured.to_owned());
    }
    if bound.ip().is_unspecified() {
        return Err(ConfigError::NotAdvertised { what, bound });
    }
    Ok(bound.to_string())
}

fn advertised(addresses: &NodeAddresses) -> impl Iterator<Item = &String> {
    [&addresses.client, &addresses.peer, &addresses.ops].into_iter().filter(|address| !address.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_accepted() {
        assert_eq!(NodeConfig::new("/data").check(), Ok(()));
    }

    /// Each line: a change, and a word of the refusal that names the fix.
    #[test]
    fn bad_configurations_are_refused_by_name() {
        type Change = fn(&mut NodeConfig);
        let cases: [(Change, &str); 7] = [
            (|c| c.data_dir = PathBuf::new(), "--data-dir"),
            (|c| c.weight = 0, "weight is 0"),
            (|c| c.join = vec!["somewhere".into()], "host:port"),
            (|c| c.join = vec!["http://a:1".into()], "host:port"),
            (|c| c.advertise.peer = "a:b".into(), "host:port"),
            (|c| c.timing.heartbeat_ms = 350, "heartbeat"),
            (|c| c.limits.log_retained_bytes_per_group = u64::MAX, "retention"),
        ];
        for (change, word) in cases {
            let mut config = NodeConfig::new("/data");
            change(&mut config);
            let refusal = config.check().unwrap_err().to_string();
            assert!(refusal.contains(word), "'{refusal}' should speak of '{word}'");
        }
    }

    #[test]
    fn only_loopback_is_listened_on_unless_insecure_is_meant() {
        let mut config = NodeConfig::new("/data");
        assert!(config.listen_address("127.0.0.1:0", "client").is_ok());
        assert!(config.listen_address("[::1]:7100", "client").is_ok());
        let refusal = config.listen_address("0.0.0.0:7100", "client").unwrap_err().to_string();
        assert!(refusal.contains("--insecure"), "{refusal}");
        config.insecure = true;
        assert!(config.listen_address("0.0.0.0:7100", "client").is_ok());
        assert!(config.listen_address("nonsense", "client").is_err());
    }

    #[test]
    fn listening_everywhere_requires_an_advertised_address() {
        let bound = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let all = [bound("127.0.0.1:1"), bound("0.0.0.0:2"), bound("127.0.0.1:3")];
        let refusal = advertised_addresses(&NodeAddresses::default(), all).unwrap_err().to_string();
        assert!(refusal.contains("--advertise-peer"), "{refusal}");
        let named = NodeAddresses { peer: "db1:2".into(), ..NodeAddresses::default() };
        let told = advertised_addresses(&named, all).unwrap();
        assert_eq!(
            (told.client.as_str(), told.peer.as_str(), told.ops.as_str()),
            ("127.0.0.1:1", "db1:2", "127.0.0.1:3")
        );
    }
}
