//! What a node is started with, and what of it is refused before anything is touched.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use quorate_raft::Timing;
use quorate_ring::WEIGHT_MAX;
use quorate_types::topology::NodeAddresses;

/// The weight of a node that says none.
pub const WEIGHT_DEFAULT: u32 = 100;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The data directory. Made if it is absent; belongs to one node of one cluster for good.
    pub data_dir: PathBuf,
    /// Where to listen, each `host:port`; port 0 takes a free one.
    pub listen: NodeAddresses,
    /// Where others reach this node, each `host:port`; an empty one means: where it listens.
    pub advertise: NodeAddresses,
    /// Client addresses of nodes of the cluster to join, or of the future initial nodes; also asked after a restart.
    pub join: Vec<String>,
    /// The part of the world that fails together with this node; empty: none is named.
    pub zone: String,
    /// The node's share of the replicas relative to others, 1 to 10,000.
    pub weight: u32,
    /// Listening beyond loopback without encryption is meant.
    pub insecure: bool,
    /// Heartbeats and elections; the same on every node of a cluster.
    pub timing: Timing,
    /// How much disk the node may use for what.
    pub limits: Limits,
}

/// How much disk the node may use for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Below so many free bytes on the disk of the data directory, puts are refused. None: 512 MiB, or 2 % of the disk where
    /// that is less.
    pub disk_reserve_bytes: Option<u64>,
    /// How many bytes of log a group keeps behind what is flushed, for followers that were away.
    pub log_retained_bytes_per_group: u64,
    /// The same for all groups of the node together.
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
    /// A node with this data directory that listens on free ports of the loopback interface; the rest as by default.
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

    /// Checks everything that can be checked without touching the disk or a port. The text says what to change.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.data_dir.as_os_str().is_empty() {
            return Err("no data directory is given; use --data-dir DIR".to_owned());
        }
        if !(1..=WEIGHT_MAX).contains(&self.weight) {
            return Err(format!("the weight is {}; a weight is 1 to {WEIGHT_MAX}, 100 is usual", self.weight));
        }
        for address in self.join.iter().chain(advertised(&self.advertise)) {
            check_host_port(address)?;
        }
        let Timing { heartbeat_ms, lease_ms } = self.timing;
        if heartbeat_ms == 0 || heartbeat_ms * 2 > lease_ms {
            return Err(format!(
                "heartbeat {heartbeat_ms} ms, lease {lease_ms} ms: a lease must be at least two heartbeats long"
            ));
        }
        let Limits { log_retained_bytes_per_group: group, log_retained_bytes_per_node: node, .. } = self.limits;
        if group > node {
            return Err(format!(
                "the log retention of one group ({group} bytes) is larger than the node's ({node} bytes)"
            ));
        }
        Ok(())
    }

    /// The address to listen on. Resolves names; refuses what is not loopback unless that is meant.
    pub(crate) fn listen_address(&self, text: &str, what: &str) -> Result<SocketAddr, String> {
        check_host_port(text)?;
        let mut resolved =
            text.to_socket_addrs().map_err(|e| format!("the {what} address '{text}' cannot be resolved: {e}"))?;
        let address = resolved.next().ok_or_else(|| format!("the {what} address '{text}' resolves to nothing"))?;
        if !address.ip().is_loopback() && !self.insecure {
            return Err(format!(
                "the {what} address '{text}' is reachable from other machines, and connections are not encrypted; listen \
                 on a loopback address, or say --insecure if the network is trusted"
            ));
        }
        Ok(address)
    }
}

/// The addresses that others are told: as configured, else as bound.
pub(crate) fn advertised_addresses(
    configured: &NodeAddresses,
    bound: [SocketAddr; 3],
) -> Result<NodeAddresses, String> {
    let [client, peer, ops] = bound;
    Ok(NodeAddresses {
        client: advertised_address(&configured.client, client, "client")?,
        peer: advertised_address(&configured.peer, peer, "peer")?,
        ops: advertised_address(&configured.ops, ops, "ops")?,
    })
}

fn advertised_address(configured: &str, bound: SocketAddr, what: &str) -> Result<String, String> {
    if !configured.is_empty() {
        return Ok(configured.to_owned());
    }
    if bound.ip().is_unspecified() {
        return Err(format!(
            "the node listens for {what} connections on every address ({bound}); say with --advertise-{what} HOST:PORT where \
             others reach it"
        ));
    }
    Ok(bound.to_string())
}

fn advertised(addresses: &NodeAddresses) -> impl Iterator<Item = &String> {
    [&addresses.client, &addresses.peer, &addresses.ops].into_iter().filter(|address| !address.is_empty())
}

/// Checks that a text is `host:port`.
pub(crate) fn check_host_port(text: &str) -> Result<(), String> {
    let valid = text.rsplit_once(':').is_some_and(|(host, port)| {
        let host_is_name = !host.is_empty() && !host.contains(['/', ' ', '@']);
        let colons_are_bracketed = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        host_is_name && colons_are_bracketed && port.parse::<u16>().is_ok()
    });
    if valid { Ok(()) } else { Err(format!("'{}' is not an address; write host:port", text.escape_debug())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_accepted() {
        assert_eq!(NodeConfig::new("/data").check(), Ok(()));
    }

    /// Each line: what is changed, and a word of the refusal that tells the operator what to do.
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
            let refusal = config.check().unwrap_err();
            assert!(refusal.contains(word), "'{refusal}' should speak of '{word}'");
        }
    }

    #[test]
    fn only_loopback_is_listened_on_unless_insecure_is_meant() {
        let mut config = NodeConfig::new("/data");
        assert!(config.listen_address("127.0.0.1:0", "client").is_ok());
        assert!(config.listen_address("[::1]:7100", "client").is_ok());
        let refusal = config.listen_address("0.0.0.0:7100", "client").unwrap_err();
        assert!(refusal.contains("--insecure"), "{refusal}");
        config.insecure = true;
        assert!(config.listen_address("0.0.0.0:7100", "client").is_ok());
        assert!(config.listen_address("nonsense", "client").is_err());
    }

    #[test]
    fn who_listens_everywhere_must_say_where_it_is_reached() {
        let bound = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let all = [bound("127.0.0.1:1"), bound("0.0.0.0:2"), bound("127.0.0.1:3")];
        let refusal = advertised_addresses(&NodeAddresses::default(), all).unwrap_err();
        assert!(refusal.contains("--advertise-peer"), "{refusal}");
        let named = NodeAddresses { peer: "db1:2".into(), ..NodeAddresses::default() };
        let told = advertised_addresses(&named, all).unwrap();
        assert_eq!(
            (told.client.as_str(), told.peer.as_str(), told.ops.as_str()),
            ("127.0.0.1:1", "db1:2", "127.0.0.1:3")
        );
    }
}
