//! The life of a node: it asks for an id, says where it is, and comes and goes.
//!
//! ```text
//!   RegisterNode ─→ joining ─→ active ⇄ draining ─→ removed        (a node that is joining, or dead, may be removed at once)
//! ```
//!
//! What moves it on is an operation (`operations`).

use quorate_types::NodeId;
use quorate_types::topology::{NodeAddresses, NodeInfo, NodeState, Outcome};

use crate::cluster::{ClusterState, Decision};
use crate::limits::{self, NODES_MAX};
use crate::record::{Change, Record};

impl ClusterState {
    /// A node asks for an id. A retry while it joins gets the same one. Later the addresses are those of a node that holds
    /// replicas, and a node that asks for an id has none: it has lost its data directory, and must not be taken for the one
    /// that voted and acknowledged.
    pub(crate) fn register_node(&self, addresses: &NodeAddresses, zone: &str, weight: u32) -> Decision {
        limits::check_node(addresses, zone, weight)?;
        match self.living().find(|node| node.addresses == *addresses) {
            Some(NodeInfo { id, state: NodeState::Joining, .. }) => return Ok((Outcome::Node(*id), Vec::new())),
            Some(NodeInfo { id, state, .. }) => {
                return Err(format!(
                    "the addresses belong to node {id}, which is {}; if it lost its data directory: quorate node remove {id} \
                     --dead --confirm {}; else start the new node at other addresses",
                    name(*state),
                    addresses.client
                ));
            }
            None => self.check_addresses_free(addresses, None)?,
        }
        if self.living().count() >= NODES_MAX {
            return Err(format!("there are {NODES_MAX} nodes already, which is the most"));
        }
        let id = NodeId(self.counters().last_node.0 + 1);
        let node = NodeInfo { id, addresses: addresses.clone(), zone: zone.into(), weight, state: NodeState::Joining };
        Ok((Outcome::Node(id), vec![Change::Put(Record::Node(node))]))
    }

    /// A node says on start how it is reached, where it is and what it can carry.
    pub(crate) fn update_node(&self, id: NodeId, addresses: &NodeAddresses, zone: &str, weight: u32) -> Decision {
        limits::check_node(addresses, zone, weight)?;
        let node = self.known(id)?;
        if node.state == NodeState::Removed {
            return Err(format!("node {id} was removed"));
        }
        self.check_addresses_free(addresses, Some(id))?;
        self.put_node(node, NodeInfo { addresses: addresses.clone(), zone: zone.into(), weight, ..node.clone() })
    }

    /// The node in another state of its life.
    pub(crate) fn with_state(&self, id: NodeId, state: NodeState) -> Result<Change, String> {
        Ok(Change::Put(Record::Node(NodeInfo { state, ..self.known(id)?.clone() })))
    }

    /// The node of that id, in whatever state.
    pub(crate) fn known(&self, id: NodeId) -> Result<&NodeInfo, String> {
        self.nodes.get(&id).ok_or_else(|| format!("there is no node {id}"))
    }

    fn living(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values().filter(|node| node.state != NodeState::Removed)
    }

    /// No node but `own` may be reached at any of these addresses.
    fn check_addresses_free(&self, addresses: &NodeAddresses, own: Option<NodeId>) -> Result<(), String> {
        for node in self.living().filter(|node| Some(node.id) != own) {
            if let Some(taken) = limits::all(addresses).find(|&new| limits::all(&node.addresses).any(|old| old == new))
            {
                return Err(format!("the address {taken} belongs to node {}", node.id));
            }
        }
        Ok(())
    }

    fn put_node(&self, old: &NodeInfo, new: NodeInfo) -> Decision {
        let changes = if *old == new { Vec::new() } else { vec![Change::Put(Record::Node(new))] };
        Ok((Outcome::Done, changes))
    }
}

/// The state as operators know it.
pub(crate) fn name(state: NodeState) -> &'static str {
    match state {
        NodeState::Joining => "joining",
        NodeState::Active => "active",
        NodeState::Draining => "draining",
        NodeState::Removed => "removed",
    }
}
