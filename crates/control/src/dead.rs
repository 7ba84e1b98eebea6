//! Guards the operations that give up a node as dead: they start only if the leader of the topology
//! group judges that the cluster receives no pings from it.

use quorate_topology::ClusterState;
use quorate_types::operation::Intent;
use quorate_types::topology::{Command, Outcome};
use quorate_types::{NodeId, Rejection};
use tokio::time::Instant;
use tracing::info;

use crate::liveness::NotDead;
use crate::plane::Plane;

/// Whether a command may be proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It gives up no node, or one that is dead, or it would start nothing.
    Granted,
    /// The node is alive, or the operator must confirm its loss.
    Refused(String),
    /// It is too early to judge.
    NotYet(String),
}

/// Judges a command that is about to be proposed here. Rejected where this node does not lead the
/// topology group.
pub(crate) async fn judge(plane: &Plane, command: &Command) -> Result<Verdict, Rejection> {
    let Command::StartOperation { intent, confirm, .. } = command else { return Ok(Verdict::Granted) };
    let Some(node) = intent.dead_node() else { return Ok(Verdict::Granted) };
    let term = plane.store.topology_group().ok_or(Rejection::NotLeader { leader: None })?.status().term;
    let cluster = plane.confirmed_cluster().await?;
    // A repeated request finds the operation that is running, also when the node has returned.
    if !matches!(cluster.outcome_of(command), Outcome::Operation { already: false, .. }) {
        return Ok(Verdict::Granted);
    }
    let Some(topology) = cluster.topology() else { return Ok(Verdict::Granted) };
    let Some(info) = topology.node(node) else { return Ok(Verdict::Granted) };
    let judged = plane.liveness.judge(&topology, info, !confirm.is_empty(), term, Instant::now());
    let verdict = match judged {
        Ok(()) => Verdict::Granted,
        Err(reason @ NotDead::NotYet { .. }) => Verdict::NotYet(reason.to_string()),
        Err(reason @ NotDead::Unconfirmed { .. }) => Verdict::Refused(reason.to_string()),
        Err(reason @ NotDead::Alive { .. }) => {
            Verdict::Refused(format!("{reason}; {}", way_out(&cluster, command, node)))
        }
    };
    info!(%node, confirmed = !confirm.is_empty(), ?verdict, "judged whether a node is dead");
    Ok(verdict)
}

/// The next step for a node that is alive and should leave: an operation that would be accepted.
fn way_out(cluster: &ClusterState, command: &Command, node: NodeId) -> String {
    if let Command::StartOperation { intent: Intent::Replace { new, .. }, .. } = command {
        return format!("to replace a node that is alive: quorate node replace {node} --with {new}");
    }
    let drain =
        Command::StartOperation { intent: Intent::Drain { node }, planned_on: 0, confirm: String::new(), now_ms: 0 };
    match cluster.outcome_of(&drain) {
        Outcome::Refused(_) => {
            format!("if it should leave, start another node with --join, then: quorate node replace {node} --with ID")
        }
        _ => format!("if it should leave, drain it: quorate node drain {node}"),
    }
}
