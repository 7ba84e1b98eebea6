//! Tells the cluster where this node is now: its addresses, zone and weight may be others than before a restart.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::topology::{Command, Outcome};
use tracing::{info, warn};

use crate::member::Member;
use crate::node::Node;
use crate::propose::Proposer;

/// How long one try may take.
const TRY_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a failed try.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Announces until the cluster knows.
pub(crate) async fn run(node: Arc<Node>, member: Arc<Member>) {
    loop {
        let map = member.feed.first().await;
        let Some(known) = map.topology.node(member.identity.node) else { return };
        let config = &node.config;
        if known.addresses == node.addresses && known.zone == config.zone && known.weight == config.weight {
            return;
        }
        let update = Command::UpdateNode {
            id: known.id,
            addresses: node.addresses.clone(),
            zone: config.zone.clone(),
            weight: config.weight,
        };
        match Proposer::of_member(&member).propose(&update, TRY_TIMEOUT).await {
            Ok(Outcome::Refused(reason)) => {
                warn!(reason, "the cluster refuses this node's addresses, zone or weight");
                return;
            }
            Ok(_) => {
                info!(addresses = ?node.addresses, zone = config.zone, weight = config.weight, "node announced");
                return;
            }
            Err(reason) => warn!(%reason, "node not announced yet"),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}
