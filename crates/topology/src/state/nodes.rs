//! The life of a node.
//!
//! ```text
//!   RegisterNode ─→ joining ─→ active ⇄ draining ─→ removed
//!                      └──────────┴──────────────────────┘  (joining or dead nodes)
//! ```
//!
//! This file registers and updates nodes. Operations change their state (`intents`).

use quorate_types::NodeId;
use quorate_types::topology::{NodeAddresses, NodeInfo, NodeState, Outcome};

use super::cluster::{ClusterState, Unknown};
use crate::limits::{self, DescriptionError, NODES_MAX};
use crate::record::{Change, Record};

/// The reason why a node is not registered or updated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NodeRefused {
    #[error(transparent)]
    Description(#[from] DescriptionError),
    #[error(transparent)]
    Unknown(#[from] Unknown),
    #[error("node {0} was removed")]
    Removed(NodeId),
    #[error(
        "the addresses belong to node {id}, which is {state}; if it lost its data directory: quorate node remove {id} \
         --dead --confirm {client}; else start the new node at other addresses"
    )]
    AddressesTaken { id: NodeId, state: NodeState, client: String },
    #[error("the address {address} belongs to node {node}")]
    AddressTaken { address: String, node: NodeId },
    #[error("the cluster has {NODES_MAX} nodes, which is the maximum")]
    TooMany,
}

type Decision = Result<(Outcome, Vec<Change>), NodeRefused>;

/// Gives a new node its id. A joining node that asks again gets the same id. Addresses of any other
/// node are refused: that node holds replicas, while a node that asks for an id has lost its data
/// directory, and must not be taken for the one that voted and acknowledged.
pub(super) fn register(state: &ClusterState, addresses: &NodeAddresses, zone: &str, weight: u32) -> Decision {
    limits::check_node(addresses, zone, weight)?;
    match living(state).find(|node| node.addresses == *addresses) {
        Some(NodeInfo { id, state: NodeState::Joining, .. }) => return Ok((Outcome::Node(*id), Vec::new())),
        Some(NodeInfo { id, state, .. }) => {
            let client = addresses.client.clone();
            return Err(NodeRefused::AddressesTaken { id: *id, state: *state, client });
        }
        None => check_addresses_free(state, addresses, None)?,
    }
    if living(state).count() >= NODES_MAX {
        return Err(NodeRefused::TooMany);
    }
    let id = NodeId(state.counters.last_node.0 + 1);
    assert!(!state.nodes.contains_key(&id), "node id {id} is given out twice");
    let node = NodeInfo { id, addresses: addresses.clone(), zone: zone.into(), weight, state: NodeState::Joining };
    Ok((Outcome::Node(id), vec![Change::Put(Record::Node(node))]))
}

/// Records the addresses, zone and weight that a node reports when it starts.
pub(super) fn update(state: &ClusterState, id: NodeId, addresses: &NodeAddresses, zone: &str, weight: u32) -> Decision {
    limits::check_node(addresses, zone, weight)?;
    let node = state.node(id)?;
    if node.state == NodeState::Removed {
        return Err(NodeRefused::Removed(id));
    }
    check_addresses_free(state, addresses, Some(id))?;
    let updated = NodeInfo { addresses: addresses.clone(), zone: zone.into(), weight, ..node.clone() };
    let changes = if *node == updated { Vec::new() } else { vec![Change::Put(Record::Node(updated))] };
    Ok((Outcome::Done, changes))
}

/// Puts a node into another state.
pub(super) fn with_state(node: &NodeInfo, state: NodeState) -> Change {
    assert!(node.state != NodeState::Removed, "node {} returns from its removal", node.id);
    Change::Put(Record::Node(NodeInfo { state, ..node.clone() }))
}

fn living(state: &ClusterState) -> impl Iterator<Item = &NodeInfo> {
    state.nodes.values().filter(|node| node.state != NodeState::Removed)
}

/// Refuses addresses that a living node other than `own` has.
fn check_addresses_free(
    state: &ClusterState,
    addresses: &NodeAddresses,
    own: Option<NodeId>,
) -> Result<(), NodeRefused> {
    for node in living(state).filter(|node| Some(node.id) != own) {
        let taken = limits::all(addresses).find(|&new| limits::all(&node.addresses).any(|old| old == new));
        if let Some(address) = taken {
            return Err(NodeRefused::AddressTaken { address: address.to_owned(), node: node.id });
        }
    }
    Ok(())
}
