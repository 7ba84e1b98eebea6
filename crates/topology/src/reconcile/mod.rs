//! The planner of the reconciler: what the cluster should be and what its nodes report → the next safe steps.
//!
//! ```text
//!   groups   the one replica of a group in motion: learner → caught up → leader elsewhere → joint change → in the map
//!   voters   group 0 has 1, 3 or 5 voters and follows the nodes
//!   leaders  spread over the nodes, away from those that drain
//!   lost     what moves to a node that stays away is taken back, where another one can have it
//!   moves    which replicas start to move next, for the operations that run
//! ```
//!
//! A pure function: the same state and the same reports give the same steps. Every step is safe whenever it is taken, also
//! twice, late, or by a reconciler that was deposed meanwhile; so whoever leads group 0 next simply goes on.

mod groups;
mod leaders;
mod lost;
mod moves;
mod reports;
mod steps;
mod voters;

use quorate_types::ReplicaId;
use quorate_types::operation::{Intent, OperationId, OperationState};
use quorate_types::report::ReplicaReport;
use quorate_types::topology::{Command, NodeState};

pub use self::moves::possible_moves;
pub use self::reports::{NodeReports, Reports};
pub use self::steps::{Plan, Progress, Step};
use crate::cluster::ClusterState;

/// Replicas on their way to one node, and away from one node, at the same time. One while there are users to serve.
pub const MOVES_PER_NODE_MAX: usize = 2;

/// Plans the next steps. `now_ms` is the time, in milliseconds since 1970, that ends operations.
pub fn plan(cluster: &ClusterState, reports: &Reports, now_ms: u64) -> Plan {
    let mut plan = Plan::default();
    if cluster.topology_replicas().is_empty() {
        return plan;
    }
    for running in cluster.running_operations() {
        plan.progress(running.id);
    }
    admit(cluster, reports, now_ms, &mut plan);
    groups::plan(cluster, reports, &mut plan);
    voters::plan(cluster, reports, &mut plan);
    leaders::plan(cluster, reports, &mut plan);
    lost::plan(cluster, reports, &mut plan);
    moves::plan(cluster, reports, &mut plan);
    explain(cluster, &mut plan);
    finish(cluster, now_ms, &mut plan);
    plan
}

/// A node that joined and answers gets its share.
fn admit(cluster: &ClusterState, reports: &Reports, now_ms: u64, plan: &mut Plan) {
    let joining = cluster.nodes.values().filter(|node| node.state == NodeState::Joining && reports.answers(node.id));
    plan.steps.extend(joining.map(|node| {
        Step::Propose(Command::StartOperation { intent: Intent::Add { node: node.id }, planned_on: 0, now_ms })
    }));
}

/// What says that it is done although its node still holds something.
fn explain(cluster: &ClusterState, plan: &mut Plan) {
    for running in cluster.running_operations() {
        let leaves = matches!(running.intent, Intent::Drain { .. } | Intent::Remove { .. } | Intent::Replace { .. });
        let Some(node) = running.intent.node().filter(|_| leaves) else { continue };
        let progress = plan.progress(running.id);
        let held = cluster.held_by(node);
        if held > 0 && progress.moving + progress.left == 0 {
            progress.left = u32::try_from(held).unwrap_or(u32::MAX);
            progress.waits.push(format!(
                "node {node} holds {} that move for another operation, or that too few active nodes can take",
                cluster.describe_held(node)
            ));
        }
    }
}

/// Operations that have nothing left to do.
fn finish(cluster: &ClusterState, now_ms: u64, plan: &mut Plan) {
    let done = cluster.running_operations().filter(|running| {
        let progress = plan.progress.get(&running.id);
        progress.is_none_or(|progress| progress.moving + progress.left == 0)
            && cluster.finish_operation(running.id, now_ms).is_ok()
    });
    let finishing = done.map(|running| Step::Propose(Command::FinishOperation { id: running.id, now_ms }));
    let finishing: Vec<Step> = finishing.collect();
    plan.steps.extend(finishing);
}

/// A voter that could take over: it answers, and lacks so few entries that it has them in a moment.
fn is_caught_up(leader: &ReplicaReport, replica: ReplicaId, entries: u64) -> bool {
    let follower = leader.others.iter().find(|other| other.replica == replica);
    follower.is_some_and(|other| other.answers && other.matched_index + entries >= leader.last_index)
}

/// The operation a move belongs to, if it still runs; what is left of others is upkeep.
fn owner(cluster: &ClusterState, operation: OperationId) -> OperationId {
    match cluster.operations.get(&operation) {
        Some(known) if known.state == OperationState::Running => operation,
        _ => OperationId::UPKEEP,
    }
}
