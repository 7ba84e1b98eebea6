//! The nodes that call the peer port: their hellos, and the log of refusals.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quorate_proto::peer::Hello;
use quorate_types::NodeId;
use tracing::{debug, warn};

use crate::cluster_node::ClusterNode;
use crate::handshake::check_peer;
use crate::node::Node;
use crate::refusal::Refusal;

/// A refused peer reconnects soon: the reason is logged this often.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Reasons that are remembered as logged. With more, all are forgotten.
const SAID_MAX: usize = 64;

/// Checks the callers of the peer port.
pub(super) struct Callers {
    node: Arc<Node>,
    /// When each reason for refusing a peer was last logged.
    said: Mutex<HashMap<String, Instant>>,
}

impl Callers {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Callers { node, said: Mutex::default() }
    }

    /// Logs why a peer is refused, unless the same reason was logged a moment ago.
    pub(super) fn say_refused(&self, refusal: &Refusal) {
        let reason = refusal.to_string();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(&reason).is_some_and(|at| at.elapsed() < SAY_AGAIN) {
            return debug!(reason, "peer refused");
        }
        warn!(reason, "peer refused");
        if said.len() >= SAID_MAX {
            said.clear();
        }
        said.insert(reason, Instant::now());
    }

    /// Like [`greet`](Self::greet), but refuses removed nodes: they may only watch the topology.
    pub(super) fn greet_living(&self, hello: Option<Hello>) -> Result<(Arc<ClusterNode>, NodeId), Refusal> {
        let (member, from) = self.greet(hello)?;
        if member.store().feed.latest().is_some_and(|map| map.topology.is_removed(from)) {
            return Err(Refusal::Handshake(format!(
                "node {from} was removed from this cluster; start it again with an empty data directory and --join"
            )));
        }
        Ok((member, from))
    }

    /// Checks the caller's hello. Returns this node's membership and the caller's id.
    pub(super) fn greet(&self, hello: Option<Hello>) -> Result<(Arc<ClusterNode>, NodeId), Refusal> {
        let member = self.node.require_member()?;
        let from = check_peer(hello, member.store().identity)?;
        Ok((member, from))
    }
}
