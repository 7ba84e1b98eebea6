//! Operations on nodes: their conditions, and the changes that start them.

use quorate_types::NodeId;
use quorate_types::operation::{Intent, Operation, OperationId, OperationState};
use quorate_types::topology::NodeState;

use super::cluster::{ClusterState, Unknown};
use super::held::Held;
use super::nodes::with_state;
use super::{endings, moves, plans};
use crate::record::Change;

/// The reason why an operation on a node does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IntentRefused {
    #[error(transparent)]
    Unknown(#[from] Unknown),
    #[error("node {node} is at {client}, not at '{typed}'; to confirm, pass its address: --confirm {client}")]
    OtherAddress { node: NodeId, client: String, typed: String },
    #[error("node {0} was removed")]
    Removed(NodeId),
    #[error("node {node} is {state}; only a joining node is added")]
    NotJoining { node: NodeId, state: NodeState },
    #[error("node {0} is joining and holds nothing to drain; remove it: quorate node remove {0}")]
    NothingToDrain(NodeId),
    #[error("node {node} is {state}, not draining")]
    NotDraining { node: NodeId, state: NodeState },
    #[error("operation {operation} is to {intent}; cancel it instead: quorate op cancel {operation}")]
    Leaving { operation: OperationId, intent: Intent },
    #[error(
        "node {node} holds {held}; drain it first: quorate node drain {node}; or, if it is dead for good: quorate node \
         remove {node} --dead --confirm {client}"
    )]
    Holds { node: NodeId, held: Held, client: String },
    #[error(
        "node {0} cannot replace itself; name the node that takes over, which quorate node list shows, with --with"
    )]
    ReplacesItself(NodeId),
    #[error("node {node} is {state}; there is nothing to replace")]
    NothingToReplace { node: NodeId, state: NodeState },
    #[error("node {node} is {state} and takes no replicas")]
    CannotTakeOver { node: NodeId, state: NodeState },
    #[error(
        "operation {operation} ({intent}) is running already; wait for it, or cancel it: quorate op cancel {operation}"
    )]
    Busy { operation: OperationId, intent: Intent },
    #[error(
        "{doing} node {node} would leave {others} active nodes for {replicas} replicas of every shard; start another \
         node with --join first"
    )]
    TooFewNodes { doing: &'static str, node: NodeId, others: usize, replicas: usize },
}

/// The effect of a new operation.
pub(super) enum Effect {
    /// The cluster is in the wanted state: no operation starts.
    AlreadyDone,
    /// These changes complete the operation.
    Complete(Vec<Change>),
    /// The operation starts with these changes, and runs until replicas have moved.
    Run(Vec<Change>),
}

type Decision = Result<Effect, IntentRefused>;

/// Refuses the confirmation of a dead node by the address of another one.
pub(super) fn check_confirmed(state: &ClusterState, intent: &Intent, typed: &str) -> Result<(), IntentRefused> {
    let Some(node) = intent.dead_node().filter(|_| !typed.is_empty()) else { return Ok(()) };
    let client = &state.node(node)?.addresses.client;
    if client == typed {
        return Ok(());
    }
    Err(IntentRefused::OtherAddress { node, client: client.clone(), typed: typed.escape_debug().to_string() })
}

/// Adds a node: it becomes active and gets its share of the replicas.
pub(super) fn add(state: &ClusterState, id: NodeId) -> Decision {
    check_not_busy(state, id)?;
    let node = state.node(id)?;
    match node.state {
        NodeState::Active => Ok(Effect::Run(Vec::new())),
        NodeState::Joining => Ok(Effect::Run(vec![with_state(node, NodeState::Active)])),
        state => Err(IntentRefused::NotJoining { node: id, state }),
    }
}

/// Drains a node: its replicas move to other nodes, and it keeps running.
pub(super) fn drain(state: &ClusterState, id: NodeId, now_ms: u64) -> Decision {
    check_not_busy(state, id)?;
    match state.node(id)?.state {
        NodeState::Active => {}
        NodeState::Draining if Held::by(state, id).total() == 0 => return Ok(Effect::AlreadyDone),
        NodeState::Draining => return Ok(Effect::Run(Vec::new())),
        NodeState::Joining => return Err(IntentRefused::NothingToDrain(id)),
        NodeState::Removed => return Err(IntentRefused::Removed(id)),
    }
    check_enough_without(state, id, "draining")?;
    Ok(Effect::Run(start_draining(state, id, now_ms)?))
}

/// Makes a draining node active again, and cancels its drain.
pub(super) fn undrain(state: &ClusterState, id: NodeId, now_ms: u64) -> Decision {
    let node = state.node(id)?;
    match node.state {
        NodeState::Active => return Ok(Effect::AlreadyDone),
        NodeState::Draining => {}
        state => return Err(IntentRefused::NotDraining { node: id, state }),
    }
    let mut changes = Vec::new();
    for running in state.running_operations().filter(|running| running.intent.node() == Some(id)) {
        match &running.intent {
            Intent::Drain { .. } => changes.extend(endings::cancelled(state, running, now_ms)),
            // The node still gets its share of the replicas.
            Intent::Add { .. } => {}
            intent => return Err(IntentRefused::Leaving { operation: running.id, intent: intent.clone() }),
        }
    }
    changes.push(with_state(node, NodeState::Active));
    Ok(Effect::Complete(changes))
}

/// Removes a node for good. A dead node is drained by the operation; a node that is alive must hold
/// nothing.
pub(super) fn remove(state: &ClusterState, id: NodeId, dead: bool, now_ms: u64) -> Decision {
    let held = Held::by(state, id);
    let node = state.node(id)?;
    match node.state {
        NodeState::Removed => return Ok(Effect::AlreadyDone),
        // Without enough nodes it cannot be drained either: this reason comes before `Holds`.
        NodeState::Active if held.total() > 0 => check_enough_without(state, id, "removing")?,
        _ => {}
    }
    check_not_busy(state, id)?;
    if dead {
        check_enough_without(state, id, "removing")?;
        return Ok(Effect::Run(start_draining(state, id, now_ms)?));
    }
    if held.total() > 0 {
        return Err(IntentRefused::Holds { node: id, held, client: node.addresses.client.clone() });
    }
    if node.state == NodeState::Active {
        check_enough_without(state, id, "removing")?;
    }
    let mut changes = cancel_plans_to(state, id, now_ms);
    changes.push(with_state(node, NodeState::Removed));
    Ok(Effect::Complete(changes))
}

/// Replaces a node, dead or alive: `new` takes over the replicas of `old`, which is removed.
pub(super) fn replace(state: &ClusterState, old: NodeId, new: NodeId, now_ms: u64) -> Decision {
    let is_same = |intent: &Intent| matches!(intent, Intent::Replace { old: o, new: n, .. } if (*o, *n) == (old, new));
    // A removed node never returns under its id, so a replacement that is done stays done.
    if state.operations().any(|known| known.state == OperationState::Done && is_same(&known.intent)) {
        return Ok(Effect::AlreadyDone);
    }
    if old == new {
        return Err(IntentRefused::ReplacesItself(old));
    }
    check_not_busy(state, old)?;
    match state.node(old)?.state {
        NodeState::Active | NodeState::Draining => {}
        state => return Err(IntentRefused::NothingToReplace { node: old, state }),
    }
    let successor = state.node(new)?;
    let mut changes = match successor.state {
        NodeState::Active => Vec::new(),
        NodeState::Joining => vec![with_state(successor, NodeState::Active)],
        state => return Err(IntentRefused::CannotTakeOver { node: new, state }),
    };
    let others = state.replica_nodes().filter(|node| node.id != old && node.id != new).count() + 1;
    check_enough(state, others, old, "replacing")?;
    changes.extend(start_draining(state, old, now_ms)?);
    Ok(Effect::Run(changes))
}

/// Makes a node draining, and cancels the moves to it.
fn start_draining(state: &ClusterState, id: NodeId, now_ms: u64) -> Result<Vec<Change>, Unknown> {
    let mut changes = cancel_plans_to(state, id, now_ms);
    let coming = state.moves.values().filter(|moving| moving.to.is_some_and(|to| to.node == id));
    changes.extend(coming.map(moves::cancelled));
    changes.push(with_state(state.node(id)?, NodeState::Draining));
    Ok(changes)
}

/// Cancels every operation with a pending planned move to a node that leaves. The whole operation
/// is cancelled, because its plan was made for another set of nodes.
fn cancel_plans_to(state: &ClusterState, id: NodeId, now_ms: u64) -> Vec<Change> {
    let wants =
        |running: &&Operation| plans::pending(state, running.intent.planned_moves()).any(|planned| planned.to == id);
    let affected = state.running_operations().filter(wants);
    affected.flat_map(|running| endings::cancelled(state, running, now_ms)).collect()
}

/// Refuses a node that a running operation is about. An operation that adds the node is no
/// obstacle: a node may be told to give its replicas away while it still receives its share.
fn check_not_busy(state: &ClusterState, id: NodeId) -> Result<(), IntentRefused> {
    let is_about = |running: &&Operation| match running.intent {
        Intent::Add { .. } => false,
        Intent::Replace { old, new, .. } => old == id || new == id,
        _ => running.intent.node() == Some(id),
    };
    match state.running_operations().find(is_about) {
        None => Ok(()),
        Some(Operation { id: operation, intent, .. }) => {
            Err(IntentRefused::Busy { operation: *operation, intent: intent.clone() })
        }
    }
}

fn check_enough_without(state: &ClusterState, id: NodeId, doing: &'static str) -> Result<(), IntentRefused> {
    let others = state.replica_nodes().filter(|node| node.id != id).count();
    check_enough(state, others, id, doing)
}

/// Refuses to leave fewer active nodes than a shard has replicas.
fn check_enough(state: &ClusterState, others: usize, node: NodeId, doing: &'static str) -> Result<(), IntentRefused> {
    let replicas = state.replicas_per_shard() as usize;
    if others < replicas {
        return Err(IntentRefused::TooFewNodes { doing, node, others, replicas });
    }
    Ok(())
}
