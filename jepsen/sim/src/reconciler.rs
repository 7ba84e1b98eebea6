//! The reconciler's rounds on the node that leads group 0, as `quorate_node` makes them, over the simulated network. What to do
//! is planned by the product's own planner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use quorate_machine::Reply;
use quorate_machine::state::State;
use quorate_raft::Replica;
use quorate_topology::{ClusterState, Reports, Step, plan, read_cluster};
use quorate_types::clock::Clock;
use quorate_types::report::{NodeReport, Order, OrderKind};
use quorate_types::topology::{Command, NodeState, Outcome, Topology};
use quorate_types::{GroupId, NodeId, ReplicaId, Role};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::member::Member;
use crate::world::World;

/// How often it looks whether it leads, and the pause between rounds while something is under way.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause between rounds while nothing is.
const IDLE_PAUSE: Duration = Duration::from_millis(1_000);
/// How long the confirmation that it leads may take.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a node may take to report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a node may stay away until nobody waits for it. Far shorter than outside: moves are to be taken back often.
const SILENT: Duration = Duration::from_millis(200);
/// How long group 0 may take for a command.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a node may work on an order.
const ORDER_TIMEOUT: Duration = Duration::from_secs(5);

/// Reconciles whenever the node leads group 0, for as long as it runs.
pub(crate) async fn run(world: Weak<World>, member: Weak<Member>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let (Some(world), Some(member)) = (world.upgrade(), member.upgrade()) else { return };
        let Some(group) = member.topology_group().filter(|replica| replica.is_leader()) else { continue };
        let term = group.status().term;
        world.trace.event(&format!("n{} reconciles in term {term}", member.node));
        let (orders, ordered, absent, heard) = Default::default();
        Lead { world, member, group, term, orders, ordered, absent, heard }.run().await;
    }
}

type Ordered = (GroupId, OrderKind, Result<(), String>);

/// One leadership of group 0.
struct Lead {
    world: Arc<World>,
    member: Arc<Member>,
    group: Arc<Replica>,
    term: u64,
    orders: JoinSet<Ordered>,
    ordered: BTreeSet<GroupId>,
    /// Replicas that were confirmed to be no members, after their moves were taken back.
    absent: BTreeSet<ReplicaId>,
    /// When each node last answered.
    heard: BTreeMap<NodeId, Instant>,
}

impl Lead {
    async fn run(mut self) {
        while self.leads() {
            let busy = self.round().await.unwrap_or(true);
            tokio::time::sleep(if busy { PAUSE } else { IDLE_PAUSE }).await;
        }
    }

    fn leads(&self) -> bool {
        let status = self.group.status();
        self.member.life.is_alive() && status.role == Role::Leader && status.term == self.term
    }

    async fn round(&mut self) -> Result<bool, String> {
        while let Some(done) = self.orders.try_join_next() {
            let (group, what, executed) = done.map_err(|error| error.to_string())?;
            self.ordered.remove(&group);
            if let (Ok(()), OrderKind::ConfirmAbsent(replica)) = (executed, what) {
                self.absent.insert(replica);
            }
        }
        let cluster = self.confirmed_cluster().await?;
        let Some(topology) = cluster.topology() else { return Ok(false) };
        let reports = self.reports(&topology).await;
        let planned = plan(&cluster, &reports, self.member.clock.now_ms());
        let busy =
            !planned.steps.is_empty() || planned.progress.values().any(|progress| progress.moving + progress.left > 0);
        for step in planned.steps {
            if !self.leads() {
                break;
            }
            self.take(step).await;
        }
        Ok(busy)
    }

    async fn confirmed_cluster(&self) -> Result<ClusterState, String> {
        self.group.confirm(CONFIRM_TIMEOUT).await.map_err(|reason| reason.to_string())?;
        let mut cluster = None;
        let viewed = self.member.state.view(&mut |view| {
            cluster = Some(read_cluster(view, self.group.id())?);
            Ok(())
        });
        viewed.map_err(|error| error.to_string())?;
        cluster.ok_or_else(|| "the state was not read".to_owned())
    }

    async fn reports(&mut self, topology: &Topology) -> Reports {
        let others: Vec<NodeId> =
            topology.nodes.iter().filter(|node| node.state != NodeState::Removed).map(|node| node.id).collect();
        let asked = others
            .iter()
            .map(async |node| tokio::time::timeout(REPORT_TIMEOUT, self.report(*node)).await.ok().flatten());
        let reports: Vec<NodeReport> = join_all(asked).await.into_iter().flatten().collect();
        let now = Instant::now();
        for node in &others {
            self.heard.entry(*node).or_insert(now);
        }
        self.heard.extend(reports.iter().map(|report| (report.node, now)));
        let unresponsive = others.into_iter().filter(|node| now - self.heard[node] >= SILENT).collect();
        Reports { nodes: reports.into_iter().collect(), unresponsive, ..Reports::default() }
    }

    async fn report(&self, node: NodeId) -> Option<NodeReport> {
        if node == self.member.node {
            return Some(self.member.report());
        }
        let network = &self.world.network;
        if !network.pass(self.member.node, node).await {
            return None;
        }
        let report = self.world.member(node)?.report();
        network.pass(node, self.member.node).await.then_some(report)
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Propose(command) => self.propose(command).await,
            Step::Order { node, group, what } => self.order(node, group, what),
            Step::FinishCancelledMove { node, moving } => match moving.to.map(|to| to.replica) {
                Some(replica) if !self.absent.contains(&replica) => {
                    self.order(node, moving.group, OrderKind::ConfirmAbsent(replica));
                }
                _ => self.propose(Command::FinishCancelledMove(moving)).await,
            },
        }
    }

    async fn propose(&self, command: Command) {
        let proposed = self.group.propose(command.encode().into(), PROPOSE_TIMEOUT).await;
        if let Ok(applied) = proposed
            && !matches!(applied.reply, Reply::Topology(Outcome::Refused(_)))
            && self.member.life.is_alive()
        {
            self.world.trace.event(&format!("group 0 takes over {command:?}"));
            if matches!(command, Command::FinishMove(_)) {
                self.world.counts.moves.one();
            }
        }
    }

    /// Gives an order, unless one is under way for the group.
    fn order(&mut self, node: NodeId, group: GroupId, what: OrderKind) {
        if !self.ordered.insert(group) {
            return;
        }
        let order = Order { term: self.term, group, what };
        self.world.trace.event(&format!("n{} orders n{node}: g{group} {what:?}", self.member.node));
        if matches!(what, OrderKind::TransferLeader(_)) {
            self.world.counts.transfers.one();
        }
        let (world, from) = (self.world.clone(), self.member.node);
        self.orders.spawn(async move {
            let executed = async {
                if !world.network.pass(from, node).await {
                    return Err("the order was lost".to_owned());
                }
                let member = world.member(node).ok_or("the node is down")?;
                // It is done whether or not somebody waits for the answer.
                let done = tokio::spawn(async move { member.execute(&order, ORDER_TIMEOUT).await }).await;
                let done = done.map_err(|error| error.to_string())?;
                if !world.network.pass(node, from).await {
                    return Err("the answer was lost".to_owned());
                }
                done
            };
            (group, what, executed.await)
        });
    }
}
