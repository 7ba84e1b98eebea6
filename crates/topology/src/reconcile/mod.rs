//! The planner of the reconciler: from the cluster state and the reports of its nodes to the next
//! safe steps.
//!
//! ```text
//!   reports  the inputs: node reports and recent events
//!   steps    the outputs: steps, and the progress of operations
//!   groups   each move: learner → caught up → leader elsewhere → joint change → in the map
//!   voters   the topology group has 1, 3 or 5 voters and follows the nodes
//!   leaders  leaders are balanced, and leave draining nodes
//!   lost     moves to unresponsive nodes are cancelled where another node can have the replica
//!   doubtful replicas that lost log entries are replaced
//!   moves    the moves that start next, for the running operations
//!            (open_moves: those an operation needs; balance: those that balance the map;
//!            targets: the nodes that a replica may move to)
//!   room     the space that a moving replica needs on its target
//!   slots    the number of moves that a node may have at a time
//!   blocked  the reasons why a move waits
//! ```
//!
//! [`plan`] is a pure function: the same state and the same reports give the same steps. Every step
//! is safe whenever it is taken: also twice, late, or by a deposed reconciler. So the next leader
//! of the topology group simply continues.

mod balance;
mod blocked;
mod doubtful;
mod groups;
mod leaders;
mod lost;
mod moves;
mod open_moves;
mod reports;
mod room;
mod slots;
mod steps;
mod targets;
mod voters;

use quorate_types::operation::Intent;
use quorate_types::topology::{Command, NodeState};

pub use self::balance::possible_moves;
pub use self::reports::{NodeReports, Reports};
pub use self::room::{NoSpace, check_room};
pub use self::slots::MOVES_PER_NODE_MAX;
pub use self::steps::{Plan, Progress, Step};
use crate::state::{ClusterState, Held, completion};

/// Plans the next steps. `now_ms` is the time in milliseconds since 1970; operations end with it.
pub fn plan(cluster: &ClusterState, reports: &Reports, now_ms: u64) -> Plan {
    let mut plan = Plan::default();
    if cluster.topology_replicas().is_empty() {
        return plan;
    }
    for running in cluster.running_operations() {
        plan.progress(running.id);
    }
    add_joining_nodes(cluster, reports, now_ms, &mut plan);
    groups::plan(cluster, reports, &mut plan);
    voters::plan(cluster, reports, &mut plan);
    leaders::plan(cluster, reports, &mut plan);
    lost::plan(cluster, reports, &mut plan);
    moves::plan(cluster, reports, &mut plan);
    explain_held_replicas(cluster, &mut plan);
    finish_operations(cluster, now_ms, &mut plan);
    plan
}

/// Adds every joining node that answers.
fn add_joining_nodes(cluster: &ClusterState, reports: &Reports, now_ms: u64, plan: &mut Plan) {
    let joining = cluster.nodes.values().filter(|node| node.state == NodeState::Joining && reports.answers(node.id));
    plan.steps.extend(joining.map(|node| {
        let intent = Intent::Add { node: node.id };
        Step::Propose(Command::StartOperation { intent, planned_on: 0, confirm: String::new(), now_ms })
    }));
}

/// Explains why an operation continues without moves of its own: its node still holds replicas.
fn explain_held_replicas(cluster: &ClusterState, plan: &mut Plan) {
    for running in cluster.running_operations() {
        let Some(node) = running.intent.leaving_node() else { continue };
        let progress = plan.progress(running.id);
        let held = Held::by(cluster, node);
        if held.total() > 0 && progress.moving + progress.left == 0 {
            progress.left = u32::try_from(held.total()).unwrap_or(u32::MAX);
            progress.waits.push(format!(
                "node {node} holds {held}: another operation moves them, or too few active nodes can take them"
            ));
        }
    }
}

/// Finishes operations that have no moves left, where the cluster state agrees.
fn finish_operations(cluster: &ClusterState, now_ms: u64, plan: &mut Plan) {
    let done = cluster.running_operations().filter(|running| {
        let progress = plan.progress.get(&running.id);
        progress.is_none_or(|progress| progress.moving + progress.left == 0)
            && completion::finish(cluster, running.id, now_ms).is_ok()
    });
    let finishing = done.map(|running| Step::Propose(Command::FinishOperation { id: running.id, now_ms }));
    let finishing: Vec<Step> = finishing.collect();
    plan.steps.extend(finishing);
}
