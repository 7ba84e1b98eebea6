//! The hello of two sides: cluster, node, and versions of the protocol.

use quorate_proto::{WIRE_VERSION, kv, peer};
use quorate_testpoints::Bug;
use quorate_types::topology::Identity;
use quorate_types::{ClusterId, NodeId};

use crate::refusal::Refusal;

/// A node's hello to another node. `to` is 0 if any node may answer.
pub(crate) fn hello(cluster: ClusterId, from: NodeId, to: NodeId) -> peer::Hello {
    let wire_version = WIRE_VERSION + u32::from(Bug::NextWireVersion.is_on());
    peer::Hello {
        cluster_id: cluster.to_string(),
        wire_version_min: wire_version,
        wire_version_max: wire_version,
        from_node: from.0,
        to_node: to.0,
    }
}

/// Checks another node's hello. Returns that node's id; 0 for a machine without one.
pub(crate) fn check_peer(hello: Option<peer::Hello>, own: Identity) -> Result<NodeId, Refusal> {
    let hello = hello.ok_or_else(|| Refusal::Invalid("the first message has no hello".to_owned()))?;
    check_version(hello.wire_version_min, hello.wire_version_max)?;
    check_cluster(&hello.cluster_id, own.cluster)?;
    let to = NodeId(hello.to_node);
    if to != NodeId(0) && to != own.node {
        let reason = format!("this is node {}, not node {to}; the address of node {to} is out of date", own.node);
        return Err(Refusal::Handshake(reason));
    }
    Ok(NodeId(hello.from_node))
}

/// Checks a client's hello, and returns the answer.
pub(crate) fn greet_client(hello: Option<kv::ClientHello>, own: Identity) -> Result<kv::ServerHello, Refusal> {
    let hello = hello.ok_or_else(|| Refusal::Invalid("the first frame has no hello".to_owned()))?;
    let wire_version = check_version(hello.wire_version_min, hello.wire_version_max)?;
    if !hello.cluster_id.is_empty() {
        check_cluster(&hello.cluster_id, own.cluster)?;
    }
    Ok(kv::ServerHello { cluster_id: own.cluster.to_string(), wire_version, node: own.node.0 })
}

fn check_version(min: u32, max: u32) -> Result<u32, Refusal> {
    quorate_proto::negotiate(min, max).ok_or_else(|| {
        Refusal::Handshake(format!(
            "the caller speaks wire versions {min} to {max}, this node speaks {WIRE_VERSION}: run the same release of \
             quorate on both sides"
        ))
    })
}

fn check_cluster(theirs: &str, own: ClusterId) -> Result<(), Refusal> {
    if theirs == own.to_string() {
        return Ok(());
    }
    Err(Refusal::Handshake(format!("this node belongs to cluster {own}, not to cluster {}", theirs.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Identity = Identity { cluster: ClusterId(0xc1), node: NodeId(2) };

    #[test]
    fn nodes_of_one_cluster_understand_each_other() {
        let hello = |to| Some(hello(ClusterId(0xc1), NodeId(1), NodeId(to)));
        assert_eq!(check_peer(hello(2), OWN).unwrap(), NodeId(1));
        assert_eq!(check_peer(hello(0), OWN).unwrap(), NodeId(1));
        assert!(check_peer(hello(3), OWN).unwrap_err().to_string().contains("this is node 2"));
    }

    #[test]
    fn mismatch_names_the_differing_field() {
        let other = hello(ClusterId(0xc2), NodeId(1), NodeId(2));
        let refusal = check_peer(Some(other), OWN).unwrap_err();
        assert!(refusal.to_string().contains("not to cluster 000000000000000000000000000000c2"), "{refusal}");
        let newer =
            peer::Hello { wire_version_min: 2, wire_version_max: 3, ..hello(ClusterId(0xc1), NodeId(1), NodeId(2)) };
        let refusal = check_peer(Some(newer), OWN).unwrap_err();
        assert!(refusal.to_string().contains("wire versions 2 to 3"), "{refusal}");
        assert!(check_peer(None, OWN).is_err());
    }

    #[test]
    fn a_client_may_leave_the_cluster_open_but_not_name_another() {
        let client = |cluster: &str| {
            Some(kv::ClientHello { cluster_id: cluster.to_owned(), wire_version_min: 1, wire_version_max: 1 })
        };
        assert_eq!(greet_client(client(""), OWN).unwrap().node, 2);
        assert_eq!(greet_client(client(&OWN.cluster.to_string()), OWN).unwrap().wire_version, 1);
        assert!(greet_client(client("7"), OWN).is_err());
        assert!(greet_client(None, OWN).is_err());
    }
}
