//! Limits of a cluster, and the check of a node's description.

use std::collections::BTreeSet;

use quorate_ring::WEIGHT_MAX;
use quorate_types::topology::NodeAddresses;
use quorate_types::{HostPort, HostPortError};

/// Nodes that are not removed. Every client and node gets the whole map, so it must stay small.
pub const NODES_MAX: usize = 1000;
/// Operations that run at the same time.
pub const OPERATIONS_RUNNING_MAX: usize = 16;
/// Operations on record, running ones included. A new operation replaces the oldest ended one.
pub const OPERATIONS_KEPT_MAX: usize = 128;
/// Moves of one operation.
pub const PLAN_MOVES_MAX: usize = 20_000;
/// The longest name of a zone, in bytes.
pub const ZONE_BYTES_MAX: usize = 64;

/// The reason why a node's description is refused. The operator must correct it; no retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptionError {
    /// An address is not a `host:port`.
    #[error("the {purpose} address {error}")]
    Address {
        /// The purpose of the address: `client`, `peer` or `ops`.
        purpose: &'static str,
        /// The syntax error.
        error: HostPortError,
    },
    /// Two of the three addresses are the same.
    #[error(
        "the client, peer and ops addresses must differ ({}, {}, {})",
        .0.client, .0.peer, .0.ops
    )]
    SharedAddress(NodeAddresses),
    /// The zone's name is longer than [`ZONE_BYTES_MAX`].
    #[error("the zone's name has {0} bytes; at most {ZONE_BYTES_MAX} are allowed")]
    ZoneTooLong(usize),
    /// The zone's name has control characters.
    #[error("the zone's name '{}' has control characters", .0.escape_default())]
    ZoneCharacter(String),
    /// The weight is larger than [`WEIGHT_MAX`].
    #[error("the weight {0} is over {WEIGHT_MAX}")]
    Weight(u32),
}

/// Checks the description that a node gives of itself.
pub(crate) fn check_node(addresses: &NodeAddresses, zone: &str, weight: u32) -> Result<(), DescriptionError> {
    let NodeAddresses { client, peer, ops } = addresses;
    for (purpose, address) in [("client", client), ("peer", peer), ("ops", ops)] {
        address.parse::<HostPort>().map_err(|error| DescriptionError::Address { purpose, error })?;
    }
    if all(addresses).collect::<BTreeSet<_>>().len() < 3 {
        return Err(DescriptionError::SharedAddress(addresses.clone()));
    }
    if zone.len() > ZONE_BYTES_MAX {
        return Err(DescriptionError::ZoneTooLong(zone.len()));
    }
    if zone.contains(char::is_control) {
        return Err(DescriptionError::ZoneCharacter(zone.to_owned()));
    }
    if weight > WEIGHT_MAX {
        return Err(DescriptionError::Weight(weight));
    }
    Ok(())
}

/// The three addresses of a node.
pub(crate) fn all(addresses: &NodeAddresses) -> impl Iterator<Item = &str> {
    [&addresses.client, &addresses.peer, &addresses.ops].into_iter().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(client: &str, zone: &str, weight: u32) -> Option<String> {
        let addresses = NodeAddresses { client: client.into(), peer: "b:2".into(), ops: "b:3".into() };
        check_node(&addresses, zone, weight).err().map(|error| error.to_string())
    }

    /// A valid description passes, and every mistake is named.
    #[test]
    fn a_description_is_valid_or_its_mistake_is_named() {
        assert_eq!(refusal("db-1.example:7001", "eu-west-1a", 100), None);
        assert_eq!(refusal("[::1]:7001", "", 0), None);
        for bad in ["", "host", ":1", "host:", "host:0", "host:65536", "host:http", "a b:1", "host:1\n"] {
            let reason = refusal(bad, "", 100).unwrap();
            assert!(reason.starts_with("the client address '") && reason.contains("host:port"), "{reason}");
        }
        assert!(refusal(&format!("{}:1", "h".repeat(300)), "", 100).unwrap().contains("at most 253"));
        assert_eq!(refusal("b:2", "", 100).unwrap(), "the client, peer and ops addresses must differ (b:2, b:2, b:3)");
        assert!(refusal("a:1", &"z".repeat(65), 100).unwrap().contains("at most 64"));
        assert!(refusal("a:1", "z\n", 100).unwrap().contains("control characters"));
        assert_eq!(refusal("a:1", "", 10_001).unwrap(), "the weight 10001 is over 10000");
    }
}
