//! The reconciler: on the node that leads the topology group it compares the topology with the
//! groups as they are, and takes the next safe steps, until it is deposed. `quorate_topology`
//! plans the steps; this file has them proposed and executed.
//!
//! ```text
//!   round: confirm the lead → read the cluster → collect reports → plan
//!            → propose and order → pause → (again)
//! ```
//!
//! Correctness needs no memory from round to round: the next leader starts from the cluster's state
//! and fresh reports.

use std::sync::Arc;
use std::time::Duration;

use quorate_raft::Replica;
use quorate_testpoints::{Bug, fail_point};
use quorate_topology::{Plan, Reports, Step, plan};
use quorate_types::report::{Order, OrderKind};
use quorate_types::topology::{Command, Outcome, Topology};
use quorate_types::{GroupId, NodeId, Rejection, Role};
use tokio::time::Instant;
use tracing::{Instrument, debug, info, info_span, warn};

use crate::fail_points;
use crate::order_book::{Finished, OrderBook, OrderFailure};
use crate::orders::{ORDER_TIMEOUT, execute, own_report};
use crate::peers::PeerAddress;
use crate::plane::Plane;
use crate::proposer::APPLY_TIMEOUT;
use crate::reporters::Reporters;
use crate::transfers::Transfers;

/// How often a node checks whether it leads the topology group.
const WATCH: Duration = Duration::from_millis(100);
/// The pause between rounds while something is in progress.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// The pause between rounds otherwise: leaders are spread, and surplus replicas found, at this
/// pace.
const IDLE_PAUSE: Duration = Duration::from_secs(2);

/// Reconciles whenever this node leads the topology group, until the node stops.
/// `unresponsive_after` is [`UNRESPONSIVE_AFTER`](crate::reporters::UNRESPONSIVE_AFTER) in
/// production; simulations shorten it.
pub(crate) async fn run(plane: Plane, unresponsive_after: Duration) {
    let node = plane.store.identity.node;
    loop {
        tokio::time::sleep(WATCH).await;
        let Some(group) = plane.store.topology_group() else { continue };
        if group.is_leader() {
            let term = group.status().term;
            let span = info_span!("reconcile", %node, group = 0, term);
            info!(%node, term, "reconciler starts");
            plane.liveness.enter_office(term, Instant::now());
            Reconciler::new(plane.clone(), group, term, unresponsive_after).lead().instrument(span).await;
            plane.liveness.leave_office();
            info!(%node, term, "reconciler ends");
        }
    }
}

/// One leadership of the topology group.
///
/// # Invariants
/// * It proposes and orders only while its replica leads in its term. Steps sent before it was
///   deposed are harmless: receivers compare terms, and every step is safe when it is late.
struct Reconciler {
    plane: Plane,
    group: Arc<Replica>,
    term: u64,
    reporters: Reporters,
    orders: OrderBook,
    transfers: Transfers,
}

impl Reconciler {
    fn new(plane: Plane, group: Arc<Replica>, term: u64, unresponsive_after: Duration) -> Self {
        assert_eq!(group.group(), GroupId::TOPOLOGY, "the leader of the topology group reconciles");
        Reconciler {
            plane,
            group,
            term,
            reporters: Reporters::new(unresponsive_after),
            orders: OrderBook::default(),
            transfers: Transfers::default(),
        }
    }

    /// Makes rounds until another node leads, or this node is about to stop.
    async fn lead(&mut self) {
        while self.leads() && !self.plane.host.vitals().is_stopping {
            let is_busy = match self.round().await {
                Ok(is_busy) => is_busy,
                Err(reason) => {
                    debug!(%reason, "round not made");
                    true
                }
            };
            self.pause(if is_busy { BUSY_PAUSE } else { IDLE_PAUSE }).await;
        }
        self.plane.reconciler.publish(Default::default(), Reports::default());
        self.plane.peers.stop_reports();
    }

    /// Waits until the next round. The pause ends early if an operator asked for something or an
    /// order was executed. A failed order does not end it: it may fail again without delay.
    async fn pause(&mut self, most: Duration) {
        let end = Instant::now() + most;
        loop {
            let finished = tokio::select! {
                biased;
                finished = self.orders.next() => finished,
                () = self.plane.reconciler.kicked() => return,
                () = tokio::time::sleep_until(end) => return,
            };
            if finished.is_some_and(|finished| self.close(&finished)) {
                return;
            }
        }
    }

    fn leads(&self) -> bool {
        let status = self.group.status();
        status.role == Role::Leader && status.term == self.term
    }

    /// Makes one round; true while something is in progress.
    async fn round(&mut self) -> Result<bool, Rejection> {
        while let Some(finished) = self.orders.try_next() {
            if let Some(finished) = finished {
                self.close(&finished);
            }
        }
        // From here on, everything that earlier leaders committed is applied on this node.
        let cluster = self.plane.confirmed_cluster().await?;
        let Some(topology) = cluster.topology() else { return Ok(false) };
        let own = own_report(&self.plane);
        let reports = self.reporters.ask(&topology, &self.plane, own).await;
        let is_moving = |group| topology.moves.iter().any(|moving| moving.group == group);
        let reports = Reports {
            failures: self.orders.failures(is_moving),
            transfers: self.transfers.recent(),
            failed_transfers: self.transfers.failed(),
            ..reports
        };
        let Plan { steps, progress, .. } = plan(&cluster, &reports, self.plane.clock.now_ms());
        let is_busy = !steps.is_empty() || progress.values().any(|progress| progress.moving + progress.left > 0);
        self.plane.reconciler.publish(progress, reports);
        for step in steps {
            if !self.leads() {
                break;
            }
            self.take(&topology, step).await;
        }
        Ok(is_busy)
    }

    async fn take(&mut self, topology: &Topology, step: Step) {
        match step {
            Step::Propose(command) => self.propose(command).await,
            Step::Order { node, group, what } => {
                self.order(topology, node, group, what);
                if Bug::FinishMoveBeforeCommit.is_on()
                    && matches!(what, OrderKind::ChangeVoters { .. })
                    && let Some(moving) = topology.moves.iter().find(|moving| moving.group == group)
                {
                    self.propose(Command::FinishMove(*moving)).await;
                }
            }
            Step::FinishCancelledMove { node, moving } => match moving.to.map(|to| to.replica) {
                Some(replica) if !self.orders.is_absent(replica) => {
                    self.order(topology, node, moving.group, OrderKind::ConfirmAbsent(replica));
                }
                _ => self.propose(Command::FinishCancelledMove(moving)).await,
            },
        }
    }

    async fn propose(&self, command: Command) {
        let points = fail_points::of_command(&command);
        fail_point(points.planned);
        let proposed = self.group.propose(command.encode().into(), APPLY_TIMEOUT).await;
        match proposed.map(|applied| applied.reply.into_topology()) {
            Ok(Outcome::Refused(reason)) => debug!(?command, reason, "topology command refused"),
            Ok(_) => {
                info!(?command, "topology command applied");
                fail_point(points.done);
            }
            Err(reason) => warn!(?command, %reason, "topology command not applied"),
        }
    }

    /// Sends an order, unless one of the group is in flight.
    fn order(&mut self, topology: &Topology, node: NodeId, group: GroupId, what: OrderKind) {
        let Some(peer) = topology.node(node).map(PeerAddress::from) else { return };
        if self.orders.is_in_flight(group) {
            return;
        }
        fail_point(fail_points::of_order(what).planned);
        if let OrderKind::TransferLeader(to) = what
            && let Some(to) = topology.replicas(group).find(|at| at.replica == to)
        {
            self.transfers.ordered(group, to.node);
        }
        info!(%node, %group, ?what, "order sent");
        let order = Order { term: self.term, group, what };
        let plane = self.plane.clone();
        let sent = async move {
            let result = if node == plane.store.identity.node {
                execute(&plane, &order).await.map_err(OrderFailure::Here)
            } else {
                let executed = plane.peers.execute(&peer, order, ORDER_TIMEOUT).await;
                executed.map_err(|error| OrderFailure::At { node, error })
            };
            Finished { group, what, result }
        };
        self.orders.send(group, sent.in_current_span());
    }

    /// Notes the end of an order; true if it was executed.
    fn close(&mut self, finished: &Finished) -> bool {
        let Finished { group, what, result } = finished;
        match result {
            Ok(()) => self.transfers.order_done(*group),
            Err(failure) => {
                debug!(%group, ?what, %failure, "order not executed");
                self.transfers.order_failed(*group, matches!(what, OrderKind::TransferLeader(_)));
            }
        }
        result.is_ok()
    }
}
