//! The reconciler: on the node that leads group 0 it compares the map as wanted with the groups as they are, and takes the next
//! safe steps, until it leads no more. What to do is planned in `quorate_topology`; here it is asked for and done.
//!
//! ```text
//!   round: confirm that it leads → read the cluster → ask every node for its report → plan → propose and order → (again)
//! ```
//!
//! Nothing is remembered from round to round that must be right: whoever leads next starts from the cluster and the reports.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_raft::Replica;
use quorate_testpoints::fail_point;
use quorate_topology::{Plan, Progress, Reports, Step, plan};
use quorate_types::operation::OperationId;
use quorate_types::report::{NodeReport, Order, OrderKind};
use quorate_types::topology::{Command, Outcome, Topology};
use quorate_types::{GroupId, NodeId, ReplicaId, Role};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::handshake;
use crate::member::Member;
use crate::node::Node;
use crate::peer::PeerCaller;
use crate::reporters::Reporters;

/// How often it looks whether it leads.
const WATCH: Duration = Duration::from_millis(100);
/// The pause between rounds while something is under way.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// The pause between rounds while nothing is: leaders are spread and strays are found at this pace.
const IDLE_PAUSE: Duration = Duration::from_secs(2);
/// How long the confirmation that it leads may take.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// How long group 0 may take for a command.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a leadership that was handed over stays where it is: longer than the reports and the order take.
const TRANSFER_COOLDOWN: Duration = Duration::from_secs(5);
/// How long a leadership that could not be handed over waits for all others, and holds nothing up.
const TRANSFER_RETRY_AFTER: Duration = Duration::from_secs(30);
/// How long a node may work on an order.
pub(crate) const ORDER_TIMEOUT: Duration = Duration::from_secs(5);

/// What the reconciler last found, for those who ask how far operations are.
#[derive(Default)]
pub(crate) struct Reconciler {
    view: Mutex<HashMap<OperationId, Progress>>,
    kick: Notify,
    /// The highest term of group 0 that an order here was given in.
    newest_term: Mutex<u64>,
}

impl Reconciler {
    /// How far an operation is, as of the last round here.
    pub(crate) fn progress(&self, operation: OperationId) -> Progress {
        self.view().get(&operation).cloned().unwrap_or_default()
    }

    /// Something was asked for: the next round comes at once.
    pub(crate) fn kick(&self) {
        self.kick.notify_one();
    }

    /// Refuses an order of a reconciler that was deposed.
    pub(crate) fn check_term(&self, term: u64) -> Result<(), String> {
        let mut executed = self.newest_term.lock().expect("nobody panics while holding this lock");
        if term < *executed {
            return Err(format!(
                "the order is of term {term} of the topology group, which is in term {executed}",
                executed = *executed
            ));
        }
        *executed = term;
        Ok(())
    }

    fn view(&self) -> MutexGuard<'_, HashMap<OperationId, Progress>> {
        self.view.lock().expect("nobody panics while holding this lock")
    }
}

/// Reconciles whenever this node leads group 0, for as long as it runs.
pub(crate) async fn run(node: Arc<Node>, member: Arc<Member>) {
    loop {
        tokio::time::sleep(WATCH).await;
        let Some(group) = member.topology_group() else { continue };
        if group.is_leader() {
            let term = group.status().term;
            info!(term, "reconciler starts");
            Round::new(node.clone(), member.clone(), group, term).lead().await;
            info!(term, "reconciler ends");
        }
    }
}

struct Round {
    node: Arc<Node>,
    member: Arc<Member>,
    group: Arc<Replica>,
    term: u64,
    reporters: Reporters,
    orders: JoinSet<(GroupId, OrderKind, Result<(), String>)>,
    ordered: HashSet<GroupId>,
    /// Replicas that the leader of their group confirmed to be no members, after their moves were taken back.
    absent: HashSet<ReplicaId>,
    /// Why the last order for a group failed, until one succeeds.
    failures: BTreeMap<GroupId, String>,
    /// When the leadership of a group was last handed over, and to which node.
    transfers: BTreeMap<GroupId, (NodeId, Instant)>,
    /// When the leadership of a group could last not be handed over.
    kept: BTreeMap<GroupId, Instant>,
}

impl Round {
    fn new(node: Arc<Node>, member: Arc<Member>, group: Arc<Replica>, term: u64) -> Self {
        Round {
            node,
            member,
            group,
            term,
            reporters: Reporters::default(),
            orders: JoinSet::new(),
            ordered: HashSet::new(),
            absent: HashSet::new(),
            failures: BTreeMap::new(),
            transfers: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }

    /// Goes on until another leads, or this node is about to stop.
    async fn lead(&mut self) {
        while self.leads() && !self.node.is_stopping() {
            let busy = match self.round().await {
                Ok(busy) => busy,
                Err(reason) => {
                    debug!(reason, "no round");
                    true
                }
            };
            self.pause(if busy { BUSY_PAUSE } else { IDLE_PAUSE }).await;
        }
        self.member.reconciler.view().clear();
    }

    /// Waits until the next round: less if something was asked for, or an order was executed. One that failed does not cut the pause
    /// short: it may fail at once, again and again.
    async fn pause(&mut self, most: Duration) {
        let end = Instant::now() + most;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return,
                () = self.member.reconciler.kick.notified() => return,
                Some(done) = self.orders.join_next(), if !self.orders.is_empty() => {
                    if self.ordered(done) {
                        return;
                    }
                }
            }
        }
    }

    fn leads(&self) -> bool {
        let status = self.group.status();
        status.role == Role::Leader && status.term == self.term
    }

    /// One round; true while something is under way.
    async fn round(&mut self) -> Result<bool, String> {
        while let Some(done) = self.orders.try_join_next() {
            let _ = self.ordered(done);
        }
        // Everything that an earlier leader committed is applied here from now on.
        let cluster = self.member.confirmed_cluster(CONFIRM_TIMEOUT).await.map_err(|reason| reason.to_string())?;
        let Some(topology) = cluster.topology() else { return Ok(false) };
        let own = own_report(&self.node, &self.member);
        let reports = self.reporters.ask(&topology, self.member.identity, own).await;
        self.failures.retain(|group, _| topology.moves.iter().any(|moving| moving.group == *group));
        self.transfers.retain(|_, (_, at)| at.elapsed() < TRANSFER_COOLDOWN);
        let transfers = self.transfers.iter().map(|(group, (node, _))| (*group, *node)).collect();
        self.kept.retain(|_, at| at.elapsed() < TRANSFER_RETRY_AFTER);
        let kept = self.kept.keys().copied().collect();
        let reports = Reports { failures: self.failures.clone(), transfers, failed_transfers: kept, ..reports };
        let Plan { steps, progress, .. } = plan(&cluster, &reports, now_ms());
        let busy = !steps.is_empty() || progress.values().any(|progress| progress.moving + progress.left > 0);
        *self.member.reconciler.view() = progress.into_iter().collect();
        for step in steps {
            if !self.leads() {
                break;
            }
            self.take(&topology, step).await;
        }
        Ok(busy)
    }

    async fn take(&mut self, topology: &Topology, step: Step) {
        match step {
            Step::Propose(command) => self.propose(command).await,
            Step::Order { node, group, what } => self.order(topology, node, group, what),
            Step::FinishCancelledMove { node, moving } => match moving.to.map(|to| to.replica) {
                Some(replica) if !self.absent.contains(&replica) => {
                    self.order(topology, node, moving.group, OrderKind::ConfirmAbsent(replica));
                }
                _ => self.propose(Command::FinishCancelledMove(moving)).await,
            },
        }
    }

    async fn propose(&self, command: Command) {
        let name = command_name(&command);
        fail_point(&format!("{name}-planned"));
        let proposed = self.group.propose(command.encode().into(), PROPOSE_TIMEOUT).await;
        match proposed.map(|applied| applied.reply.into_topology()) {
            Ok(Outcome::Refused(reason)) => debug!(?command, reason, "not taken over"),
            Ok(_) => {
                info!(?command, "topology command");
                fail_point(&format!("{name}-done"));
            }
            Err(reason) => warn!(?command, %reason, "topology command not done"),
        }
    }

    /// Gives an order, unless one is under way for the group.
    fn order(&mut self, topology: &Topology, node: NodeId, group: GroupId, what: OrderKind) {
        let Some(address) = topology.node(node).map(|node| node.addresses.peer.clone()) else { return };
        if !self.ordered.insert(group) {
            return;
        }
        fail_point(&format!("{}-planned", order_name(what)));
        if let OrderKind::TransferLeader(to) = what
            && let Some(to) = topology.replicas(group).find(|at| at.replica == to)
        {
            self.transfers.insert(group, (to.node, Instant::now()));
        }
        let order = Order { term: self.term, group, what };
        let member = self.member.clone();
        info!(%node, %group, ?what, "order");
        self.orders.spawn(async move {
            let identity = member.identity;
            let executed = if node == identity.node {
                execute(&member, &order).await
            } else {
                let hello = handshake::hello(identity.cluster, identity.node, node);
                let executed = match PeerCaller::connect(&address).await {
                    Ok(mut caller) => caller.execute(hello, &order).await,
                    Err(reason) => Err(reason),
                };
                executed.map_err(|reason| format!("node {node}: {reason}"))
            };
            (group, what, executed)
        });
    }

    /// An order has come to its end; whether it was executed.
    fn ordered(&mut self, done: Result<(GroupId, OrderKind, Result<(), String>), tokio::task::JoinError>) -> bool {
        let (group, what, executed) = match done {
            Ok(done) => done,
            Err(ended) => {
                // Nobody knows which one it was: orders may be given twice.
                debug!(%ended, "an order ended without a word");
                self.ordered.clear();
                return false;
            }
        };
        self.ordered.remove(&group);
        let is_done = executed.is_ok();
        match executed {
            Ok(()) => {
                self.failures.remove(&group);
                self.kept.remove(&group);
                if let OrderKind::ConfirmAbsent(replica) = what {
                    self.absent.insert(replica);
                }
            }
            Err(reason) => {
                debug!(%group, ?what, reason, "order not done");
                self.failures.insert(group, reason);
                if matches!(what, OrderKind::TransferLeader(_)) {
                    self.kept.insert(group, Instant::now());
                }
                self.transfers.remove(&group);
            }
        }
        is_done
    }
}

/// What this node says of itself.
pub(crate) fn own_report(node: &Node, member: &Member) -> NodeReport {
    NodeReport {
        node: member.identity.node,
        // One that is about to stop is given no leadership, as one that has just started.
        uptime_ms: if node.is_stopping() { 0 } else { node.uptime_ms() },
        disk_free_bytes: node.disk.free_bytes(),
        disk_full: node.disk.is_full(),
        foreground: member.foreground.state(),
        replicas: member.groups.reports(),
    }
}

/// Does what a reconciler orders.
pub(crate) async fn execute(member: &Member, order: &Order) -> Result<(), String> {
    member.reconciler.check_term(order.term)?;
    let name = order_name(order.what);
    fail_point(&format!("{name}-received"));
    let executed = member.groups.execute(order.group, order.what, ORDER_TIMEOUT).await;
    fail_point(&format!("{name}-done"));
    executed.map_err(|reason| reason.to_string())
}

/// What the fail points around an order are called.
fn order_name(what: OrderKind) -> &'static str {
    match what {
        OrderKind::AddLearner(_) => "add-learner",
        OrderKind::RemoveLearner(_) => "remove-learner",
        OrderKind::ChangeVoters { .. } => "change-voters",
        OrderKind::FinishJoint => "finish-joint",
        OrderKind::TransferLeader(_) => "transfer-leader",
        OrderKind::ConfirmAbsent(_) => "confirm-absent",
    }
}

/// What the fail points around a command of the reconciler's are called.
fn command_name(command: &Command) -> &'static str {
    match command {
        Command::StartMove { .. } => "start-move",
        Command::FinishMove(_) => "finish-move",
        Command::FinishCancelledMove(_) => "finish-cancelled-move",
        Command::CancelMove(_) => "cancel-move",
        Command::FinishOperation { .. } => "finish-operation",
        _ => "command",
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
