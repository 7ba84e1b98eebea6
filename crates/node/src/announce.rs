//! Announces this node's addresses, zone and weight, which may differ from those before a restart.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::topology::{Command, NodeInfo, NodeState, Outcome};
use tracing::{error, info, warn};

use crate::cluster_node::ClusterNode;
use crate::node::Node;
use crate::refusal::REMOVED;

/// How long one attempt may take.
const TRY_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a failed attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Compares every topology with this node's configuration until the node stops. The first ones may
/// come from a cache that is older than the node's last change of address, or than the node itself.
pub(crate) async fn run(node: Arc<Node>, member: Arc<ClusterNode>) {
    let mut revision = 0;
    loop {
        let map = member.store().feed.newer_than(revision).await;
        revision = map.topology.revision;
        let Some(known) = map.topology.node(member.store().identity.node) else { continue };
        if known.state == NodeState::Removed {
            error!("{REMOVED}");
            return;
        }
        while let Some(update) = update(&node, known) {
            match member.proposer().propose(&update, TRY_TIMEOUT).await {
                Ok(Outcome::Refused(reason)) => {
                    warn!(reason, "the cluster refuses this node's addresses, zone or weight");
                    break;
                }
                Ok(_) => {
                    let config = &node.config;
                    info!(addresses = ?node.addresses, zone = config.zone, weight = config.weight, "node announced");
                    break;
                }
                Err(reason) => warn!(%reason, "node not announced yet"),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// The command that would correct the topology; none if it is correct.
fn update(node: &Node, known: &NodeInfo) -> Option<Command> {
    let config = &node.config;
    if known.addresses == node.addresses && known.zone == config.zone && known.weight == config.weight {
        return None;
    }
    Some(Command::UpdateNode {
        id: known.id,
        addresses: node.addresses.clone(),
        zone: config.zone.clone(),
        weight: config.weight,
    })
}
