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

use std::collections::{BTreeMap, BTreeSet, HashMap};

use quorate_types::operation::{Intent, OperationId, OperationState, ReplicaMove};
use quorate_types::report::{Foreground, NodeReport, OrderKind, ReplicaReport};
use quorate_types::topology::{Command, NodeState, Placement};
use quorate_types::{GroupId, NodeId, ReplicaId, Role};

use crate::cluster::ClusterState;

mod groups;
mod leaders;
mod lost;
mod moves;
mod voters;

pub use moves::possible_moves;

/// Replicas on their way to one node, and away from one node, at the same time. One while there are users to serve.
pub const MOVES_PER_NODE_MAX: usize = 2;

/// What the nodes said of themselves, each a moment ago. A node that does not answer is missing.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    nodes: BTreeMap<NodeId, NodeReport>,
    /// Why the last order for a group failed.
    failures: BTreeMap<GroupId, String>,
    /// Groups whose leadership was handed over a moment ago, and to which node.
    transfers: BTreeMap<GroupId, NodeId>,
    /// Groups whose leadership could not be handed over a while ago.
    kept: BTreeSet<GroupId>,
    /// Nodes that have not answered for a long time.
    silent: BTreeSet<NodeId>,
    /// Where each replica stands in the report of its node.
    places: HashMap<(NodeId, ReplicaId), usize>,
}

impl Reports {
    /// The reports of those nodes that answered.
    pub fn new(reports: impl IntoIterator<Item = NodeReport>) -> Self {
        let nodes: BTreeMap<NodeId, NodeReport> = reports.into_iter().map(|report| (report.node, report)).collect();
        let all = nodes.values().flat_map(|report| {
            let replicas = report.replicas.iter().enumerate();
            replicas.map(|(place, replica)| ((report.node, replica.replica), place))
        });
        let (failures, transfers, kept, silent) = Default::default();
        Reports { places: all.collect(), failures, transfers, kept, silent, nodes }
    }

    /// The last order for each of these groups failed, for this reason.
    pub fn with_failures(self, failures: BTreeMap<GroupId, String>) -> Self {
        Reports { failures, ..self }
    }

    /// The leadership of each of these groups was handed over to a node a moment ago: the report of who leads may be older, and
    /// nobody is asked to hand it on at once.
    pub fn with_transfers(self, transfers: BTreeMap<GroupId, NodeId>) -> Self {
        Reports { transfers, ..self }
    }

    /// The leadership of each of these groups could not be handed over a while ago: it is tried again when there is nothing else to
    /// hand over, and nothing waits for it.
    pub fn with_kept(self, kept: BTreeSet<GroupId>) -> Self {
        Reports { kept, ..self }
    }

    /// These nodes have not answered for so long that nobody waits for them: what moves there is aimed elsewhere where it can be.
    pub fn with_silent(self, silent: BTreeSet<NodeId>) -> Self {
        Reports { silent, ..self }
    }

    /// What a node said.
    pub fn node(&self, node: NodeId) -> Option<&NodeReport> {
        self.nodes.get(&node)
    }

    /// Whether a node answered.
    pub fn answers(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }

    /// Whether a node has been away for so long that nobody waits for it.
    fn is_silent(&self, node: NodeId) -> bool {
        self.silent.contains(&node) && !self.answers(node)
    }

    /// Whether a node answers and has space.
    fn can_take(&self, node: NodeId) -> bool {
        self.node(node).is_some_and(|report| !report.disk_full)
    }

    /// Whether any node has users to serve.
    fn has_users(&self) -> bool {
        self.nodes.values().any(|report| report.foreground != Foreground::Idle)
    }

    /// What a replica said of itself.
    fn replica(&self, at: Placement) -> Option<&ReplicaReport> {
        let place = *self.places.get(&(at.node, at.replica))?;
        self.node(at.node)?.replicas.get(place)
    }

    /// The leader of a group among these replicas: the one of the highest term, as an older one may not know yet.
    fn leader(&self, group: GroupId, replicas: &[Placement]) -> Option<(Placement, &ReplicaReport)> {
        let all = replicas.iter().filter_map(|at| Some((*at, self.replica(*at)?)));
        let newest = all.filter(|(_, report)| report.group == group && report.role == Role::Leader);
        newest.max_by_key(|(_, report)| report.term)
    }
}

/// One safe step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A command for group 0.
    Propose(Command),
    /// An order for the node that leads a group.
    Order {
        /// That node.
        node: NodeId,
        /// The group.
        group: GroupId,
        /// What it is to do.
        what: OrderKind,
    },
    /// A move that was taken back is forgotten, once the node that leads its group has confirmed, after this was planned, that
    /// the new replica is no member: a leader of old may only not know it yet.
    Abandon {
        /// That node.
        node: NodeId,
        /// The move.
        moving: ReplicaMove,
    },
}

/// How far an operation is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Replicas that are in motion for it.
    pub moving: u32,
    /// Replicas that are still to start.
    pub left: u32,
    /// Why something of it stands still, by what: one line each.
    pub waits: Vec<String>,
}

/// What to do now, and how far what runs is.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The steps, independent of each other.
    pub steps: Vec<Step>,
    /// Every operation that runs, and [`OperationId::UPKEEP`] where something of it stands still.
    pub progress: BTreeMap<OperationId, Progress>,
    /// Groups whose replica in motion waits for something.
    stalled: BTreeSet<GroupId>,
    /// Leaderships are on their way, and nothing says that they will not arrive.
    transfers_leadership: bool,
}

impl Plan {
    fn progress(&mut self, operation: OperationId) -> &mut Progress {
        self.progress.entry(operation).or_default()
    }

    fn wait(&mut self, operation: OperationId, reason: String) {
        self.progress(operation).waits.push(reason);
    }

    fn order(&mut self, node: NodeId, group: GroupId, what: OrderKind) {
        self.steps.push(Step::Order { node, group, what });
    }
}

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
