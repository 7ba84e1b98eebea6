//! What the cluster takes from those who describe nodes, and how much of it.

use std::collections::BTreeSet;

use quorate_ring::WEIGHT_MAX;
use quorate_types::topology::NodeAddresses;

/// Nodes that are not removed. The map goes to every client and node whole: it must stay small.
pub const NODES_MAX: usize = 1000;
/// Operations that run at the same time.
pub const OPERATIONS_RUNNING_MAX: usize = 16;
/// Operations that are remembered, those that run included. The oldest that ended is forgotten for the next.
pub const OPERATIONS_KEPT_MAX: usize = 128;
/// Moves of one operation.
pub const PLAN_MOVES_MAX: usize = 20_000;
/// The longest name of a zone, in bytes.
pub const ZONE_BYTES_MAX: usize = 64;
/// The longest `host:port`: a DNS name has at most 253 bytes.
const ADDRESS_BYTES_MAX: usize = 253 + ":65535".len();

/// Checks what a node says of itself. The error says what is wrong with it.
pub(crate) fn check_node(addresses: &NodeAddresses, zone: &str, weight: u32) -> Result<(), String> {
    let NodeAddresses { client, peer, ops } = addresses;
    for (name, address) in [("client", client), ("peer", peer), ("ops", ops)] {
        check_address(address)
            .map_err(|reason| format!("the {name} address '{}' {reason}", address.escape_default()))?;
    }
    if all(addresses).collect::<BTreeSet<_>>().len() < 3 {
        return Err(format!("the client, peer and ops addresses must differ ({client}, {peer}, {ops})"));
    }
    if zone.len() > ZONE_BYTES_MAX {
        return Err(format!("the zone's name has {} bytes; at most {ZONE_BYTES_MAX} are allowed", zone.len()));
    }
    if zone.contains(char::is_control) {
        return Err(format!("the zone's name '{}' has control characters", zone.escape_default()));
    }
    if weight > WEIGHT_MAX {
        return Err(format!("the weight {weight} is over {WEIGHT_MAX}"));
    }
    Ok(())
}

/// The three addresses.
pub(crate) fn all(addresses: &NodeAddresses) -> impl Iterator<Item = &str> {
    [&addresses.client, &addresses.peer, &addresses.ops].into_iter().map(String::as_str)
}

fn check_address(address: &str) -> Result<(), String> {
    if address.len() > ADDRESS_BYTES_MAX {
        return Err(format!("is longer than {ADDRESS_BYTES_MAX} bytes"));
    }
    let whole = address
        .rsplit_once(':')
        .filter(|(host, port)| !host.is_empty() && port.parse().is_ok_and(|port: u16| port > 0));
    if whole.is_none() || address.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("is not host:port with a port from 1 to 65535".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(client: &str, zone: &str, weight: u32) -> Option<String> {
        let addresses = NodeAddresses { client: client.into(), peer: "b:2".into(), ops: "b:3".into() };
        check_node(&addresses, zone, weight).err()
    }

    #[test]
    fn a_node_is_taken_or_refused_with_a_reason() {
        assert_eq!(refusal("db-1.example:7001", "eu-west-1a", 100), None);
        assert_eq!(refusal("[::1]:7001", "", 0), None);
        for bad in ["", "host", ":1", "host:", "host:0", "host:65536", "host:http", "a b:1", "host:1\n"] {
            assert!(refusal(bad, "", 100).is_some_and(|reason| reason.contains("is not host:port")), "{bad:?}");
        }
        assert!(
            refusal(&format!("{}:1", "h".repeat(300)), "", 100).is_some_and(|reason| reason.contains("longer than"))
        );
        assert_eq!(refusal("b:2", "", 100).unwrap(), "the client, peer and ops addresses must differ (b:2, b:2, b:3)");
        assert!(refusal("a:1", &"z".repeat(65), 100).unwrap().contains("at most 64"));
        assert!(refusal("a:1", "z\n", 100).unwrap().contains("control characters"));
        assert_eq!(refusal("a:1", "", 10_001).unwrap(), "the weight 10001 is over 10000");
    }
}
