//! Judges whether a node is dead, by the pings that the nodes of the cluster receive.
//!
//! ```text
//!   pings ──→ PingTable: which node received a ping from which other node, and when
//!                 │
//!   office ───────┼──→ judge: may the operator give up this node as dead?
//! ```
//!
//! Every node keeps the table. The leader of the topology group judges, once it has been in office
//! for 15 s: a leader that was just elected may not have received the tables of all other nodes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_testpoints::Bug;
use quorate_types::NodeId;
use quorate_types::ping::Ping;
use quorate_types::topology::{NodeInfo, NodeState, Topology};
use tokio::time::Instant;

use crate::ping_table::PingTable;

/// The times of pings and of the judgement by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingTiming {
    /// The pause between two pings to a node.
    pub interval: Duration,
    /// How long a received ping counts as a sign of life: ten lost pings in a row.
    pub counts_for: Duration,
    /// How long the leader of the topology group is in office before it judges. Longer than a ping
    /// counts, so that a missing sign of life is one.
    pub office: Duration,
}

impl Default for PingTiming {
    fn default() -> Self {
        PingTiming {
            interval: Duration::from_secs(1),
            counts_for: Duration::from_secs(10),
            office: Duration::from_secs(15),
        }
    }
}

impl PingTiming {
    /// How long one ping may take. At most one to a node is outstanding, so a node that does not
    /// answer still gets three pings while one counts.
    pub fn timeout(&self) -> Duration {
        self.interval * 2
    }

    /// A pause of this node's own pings for longer than this, such as a stopped process, begins the
    /// time in office again: the pings of the others may wait unread. Half of the time that a ping
    /// counts.
    fn stall_max(&self) -> Duration {
        self.counts_for / 2
    }
}

/// The signs of life of all nodes, and this node's office as the judge. Shared by the tasks of a
/// node.
pub struct Liveness {
    timing: PingTiming,
    state: Mutex<LivenessState>,
}

struct LivenessState {
    table: PingTable,
    /// When this node last sent its pings, and since when it does so without a stall.
    sent_at: Option<Instant>,
    steady_since: Instant,
    office: Option<Office>,
}

/// One leadership of the topology group.
#[derive(Clone, Copy)]
struct Office {
    term: u64,
    since: Instant,
}

/// Why a node is not given up as dead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotDead {
    /// It is too early to judge: try again.
    #[error(
        "node {own} leads the topology group, and has received pings for {} s; it judges whether a node is dead after \
         {} s: try again in {} s", .served.as_secs(), .office.as_secs(), .office.saturating_sub(*.served).as_secs() + 1
    )]
    NotYet { own: NodeId, served: Duration, office: Duration },
    /// A majority of the other active nodes received pings from it.
    #[error(
        "node {node} is alive: {received} pings from it within the last {} s, although it may be unreachable from \
         elsewhere at {client}", .within.as_secs()
    )]
    Alive { node: NodeId, received: Receivers, client: String, within: Duration },
    /// Some nodes received pings from it, and the operator did not confirm its address.
    #[error(
        "{received} pings from node {node} within the last {} s, {silent} of {others} other active nodes did not; if \
         node {node} is lost for good, confirm it by its address: --confirm {client}", .within.as_secs()
    )]
    Unconfirmed { node: NodeId, received: Receivers, silent: usize, others: usize, client: String, within: Duration },
}

/// The nodes that received pings. Displays as the subject and verb of a sentence, such as `nodes 1
/// and 4 received`, with at most [`NAMED_MAX`] nodes by their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receivers(BTreeSet<NodeId>);

/// The most nodes that a refusal or an answer names.
pub const NAMED_MAX: usize = 8;

impl fmt::Display for Receivers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<String> = self.0.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        let more = self.0.len() - named.len();
        match &named[..] {
            [one] => write!(f, "node {one} received"),
            all if more > 0 => write!(f, "nodes {} and {more} more received", all.join(", ")),
            [first @ .., last] => write!(f, "nodes {} and {last} received", first.join(", ")),
            [] => f.write_str("no node received"),
        }
    }
}

impl Liveness {
    /// The signs of life as the node `own` receives them from now on.
    pub fn new(own: NodeId, timing: PingTiming) -> Self {
        let table = PingTable::new(own, timing.counts_for);
        let state = LivenessState { table, sent_at: None, steady_since: Instant::now(), office: None };
        Liveness { timing, state: Mutex::new(state) }
    }

    /// The times of pings.
    pub fn timing(&self) -> PingTiming {
        self.timing
    }

    /// Takes a ping, or the answer to one.
    pub(crate) fn receive(&self, ping: &Ping, now: Instant) {
        self.state().table.receive(ping, now);
    }

    /// This node's ping now.
    pub fn ping(&self, now: Instant) -> Ping {
        self.state().table.ping(now)
    }

    /// This node is about to ping the other nodes of the topology. Forgets removed nodes.
    pub(crate) fn sends(&self, topology: &Topology, now: Instant) {
        let mut state = self.state();
        state.table.retain(&topology.living().map(|node| node.id).collect());
        let stall_max = self.timing.stall_max();
        if state.sent_at.is_none_or(|last| now.saturating_duration_since(last) > stall_max) {
            state.steady_since = now;
        }
        state.sent_at = Some(now);
    }

    /// This node leads the topology group in a new term.
    pub(crate) fn enter_office(&self, term: u64, now: Instant) {
        self.state().office = Some(Office { term, since: now });
    }

    /// This node no longer leads the topology group.
    pub(crate) fn leave_office(&self) {
        self.state().office = None;
    }

    /// For each living node of the topology, the other nodes that received a ping from it within
    /// the last 10 s. None unless this node leads the topology group and has done so for long
    /// enough to judge.
    pub fn judgement(&self, topology: &Topology, term: u64, now: Instant) -> Option<Vec<(NodeId, BTreeSet<NodeId>)>> {
        let state = self.state();
        if self.served(&state, term, now) < self.timing.office {
            return None;
        }
        Some(topology.living().map(|node| (node.id, state.table.receivers(node.id, now))).collect())
    }

    /// Judges whether `node` may be given up as dead. `confirmed`: the operator typed its address.
    pub(crate) fn judge(
        &self,
        topology: &Topology,
        node: &NodeInfo,
        confirmed: bool,
        term: u64,
        now: Instant,
    ) -> Result<(), NotDead> {
        if Bug::RemoveDeadIgnoresPings.is_on() {
            return Ok(());
        }
        let state = self.state();
        let (own, office) = (state.table.own(), self.timing.office);
        let served = self.served(&state, term, now);
        if served < office {
            return Err(NotDead::NotYet { own, served, office });
        }
        let receivers = state.table.receivers(node.id, now);
        verdict(topology, node, &receivers, confirmed, self.timing.counts_for)
    }

    /// How long this node has been in office in that term, and received pings without a stall.
    fn served(&self, state: &LivenessState, term: u64, now: Instant) -> Duration {
        let Some(office) = state.office.filter(|office| office.term == term) else { return Duration::ZERO };
        let is_stalled = state.sent_at.is_none_or(|last| now.saturating_duration_since(last) > self.timing.stall_max());
        if is_stalled {
            return Duration::ZERO;
        }
        now.saturating_duration_since(office.since.max(state.steady_since))
    }

    fn state(&self) -> MutexGuard<'_, LivenessState> {
        // Every change of the state is a single assignment or insertion.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The verdict on a node, from the nodes that received its pings within the time that a ping
/// counts.
fn verdict(
    topology: &Topology,
    node: &NodeInfo,
    receivers: &BTreeSet<NodeId>,
    confirmed: bool,
    within: Duration,
) -> Result<(), NotDead> {
    let is_other = |other: &&NodeInfo| other.id != node.id && other.state == NodeState::Active;
    let (receiving, silent): (Vec<NodeId>, Vec<NodeId>) =
        topology.nodes.iter().filter(is_other).map(|other| other.id).partition(|other| receivers.contains(other));
    let others = receiving.len() + silent.len();
    let (received, client) = (Receivers(receivers.clone()), node.addresses.client.clone());
    let node = node.id;
    if 2 * receiving.len() > others {
        return Err(NotDead::Alive { node, received, client, within });
    }
    if !receivers.is_empty() && !confirmed {
        return Err(NotDead::Unconfirmed { node, received, silent: silent.len(), others, client, within });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use quorate_types::ClusterId;
    use quorate_types::ping::ReceivedPing;
    use quorate_types::topology::{ClusterInfo, NodeAddresses};

    use super::*;

    const TERM: u64 = 7;

    /// Four active nodes. Node 1 leads the topology group from the start, and sends pings.
    struct Leader {
        topology: Topology,
        liveness: Liveness,
        start: Instant,
    }

    impl Leader {
        fn new() -> Self {
            let addresses = |id: u64| NodeAddresses { client: format!("10.0.0.{id}:7100"), ..NodeAddresses::default() };
            let node = |id: u64| NodeInfo {
                id: NodeId(id),
                addresses: addresses(id),
                zone: String::new(),
                weight: 100,
                state: NodeState::Active,
            };
            let topology = Topology {
                revision: 1,
                cluster: ClusterInfo { id: ClusterId(1), hash_key: [0; 16], replicas: 3, shards: 1 },
                nodes: (1..=4).map(node).collect(),
                shards: vec![],
                topology_replicas: vec![],
                moves: vec![],
                paused: false,
            };
            let start = Instant::now() + Duration::from_secs(60);
            let liveness = Liveness::new(NodeId(1), PingTiming::default());
            liveness.enter_office(TERM, start);
            Leader { topology, liveness, start }
        }

        /// In every second of the range, the nodes in the second part of a pair ping the node in its
        /// first part, and each receiver pings node 1.
        fn pings(&self, seconds: std::ops::RangeInclusive<u64>, received: &[(u64, &[u64])]) {
            for second in seconds {
                let now = self.start + Duration::from_secs(second);
                self.liveness.sends(&self.topology, now);
                for (by, from) in received.iter().filter(|(by, _)| *by != 1) {
                    let received = from.iter().map(|from| ReceivedPing { from: NodeId(*from), ago_ms: 300 });
                    self.liveness.receive(&Ping { node: NodeId(*by), received: received.collect() }, now);
                }
                for from in received.iter().filter(|(by, _)| *by == 1).flat_map(|(_, from)| *from) {
                    self.liveness.receive(&Ping { node: NodeId(*from), received: vec![] }, now);
                }
            }
        }

        /// The verdict on node 3, as text; empty if it is dead.
        fn verdict(&self, second: u64, confirmed: bool) -> String {
            let now = self.start + Duration::from_secs(second);
            let node = self.topology.node(NodeId(3)).unwrap();
            let verdict = self.liveness.judge(&self.topology, node, confirmed, TERM, now);
            verdict.map_or_else(|refused| refused.to_string(), |()| String::new())
        }
    }

    /// A node whose pings a majority of the other active nodes receives is not given up, confirmed
    /// or not, until ten seconds after its last ping.
    #[tokio::test(start_paused = true)]
    async fn a_node_whose_pings_a_majority_receives_is_alive() {
        let leader = Leader::new();
        leader.pings(0..=20, &[(1, &[2, 3, 4]), (2, &[1, 3, 4]), (3, &[1, 2, 4]), (4, &[1, 2, 3])]);
        let alive = "node 3 is alive: nodes 1, 2 and 4 received pings from it within the last 10 s, although it may be \
                     unreachable from elsewhere at 10.0.0.3:7100";
        assert_eq!(leader.verdict(20, true), alive);
        assert_eq!(leader.verdict(20, false), alive);
        leader.pings(21..=40, &[(1, &[2, 4]), (2, &[1, 4]), (4, &[1, 2])]);
        assert!(leader.verdict(29, true).contains("node 3 is alive"));
        assert_eq!(leader.verdict(31, false), "", "nodes 2 and 4 and the leader received nothing for 10 s");
    }

    /// Two of three are a majority, one of three is not; nodes that leave count as receivers, and
    /// not for the majority.
    #[tokio::test(start_paused = true)]
    async fn a_node_whose_pings_a_minority_receives_needs_a_confirmation() {
        let mut leader = Leader::new();
        leader.pings(0..=20, &[(1, &[2, 4]), (2, &[1, 3, 4]), (4, &[1, 2])]);
        let unconfirmed = "node 2 received pings from node 3 within the last 10 s, 2 of 3 other active nodes did not; if \
                           node 3 is lost for good, confirm it by its address: --confirm 10.0.0.3:7100";
        assert_eq!(leader.verdict(20, false), unconfirmed);
        assert_eq!(leader.verdict(20, true), "");
        leader.pings(20..=21, &[(4, &[3])]);
        assert!(leader.verdict(21, true).contains("is alive: nodes 2 and 4 received"));
        leader.topology.nodes[1].state = NodeState::Draining;
        assert!(
            leader.verdict(21, false).contains("nodes 2 and 4 received pings from node 3"),
            "1 of 2 is no majority"
        );
        assert!(leader.verdict(21, false).contains("1 of 2 other active nodes did not"));
        assert_eq!(leader.verdict(21, true), "");
        leader.topology.nodes[0].state = NodeState::Draining;
        assert!(leader.verdict(21, true).contains("is alive"), "node 4 is the only other active node");
    }

    /// A leader judges after 15 s in office. Another term, and a pause of its own pings, begin them
    /// again: the pings of the others may wait unread.
    #[tokio::test(start_paused = true)]
    async fn a_leader_judges_after_fifteen_seconds_in_office() {
        let leader = Leader::new();
        leader.pings(0..=15, &[(1, &[2, 4]), (2, &[1, 4]), (4, &[1, 2])]);
        assert_eq!(
            leader.verdict(14, true),
            "node 1 leads the topology group, and has received pings for 14 s; it judges whether a node is dead after \
             15 s: try again in 2 s"
        );
        assert_eq!(leader.verdict(15, true), "");
        let at = |second| leader.start + Duration::from_secs(second);
        assert!(leader.liveness.judgement(&leader.topology, TERM, at(14)).is_none());
        let judged = leader.liveness.judgement(&leader.topology, TERM, at(15)).unwrap();
        assert_eq!(judged[1], (NodeId(2), BTreeSet::from([NodeId(1), NodeId(4)])));
        assert_eq!(judged[2], (NodeId(3), BTreeSet::new()));
        assert!(leader.liveness.judgement(&leader.topology, TERM + 1, at(15)).is_none(), "it was elected again");

        assert!(leader.verdict(21, true).contains("for 0 s"), "its pings stopped 6 s ago");
        leader.pings(21..=36, &[(1, &[2, 4]), (2, &[1, 4]), (4, &[1, 2])]);
        assert!(leader.verdict(35, true).contains("for 14 s"));
        assert_eq!(leader.verdict(36, true), "");
        leader.liveness.leave_office();
        assert!(leader.verdict(36, true).contains("for 0 s"));
        leader.liveness.enter_office(TERM, at(36));
        assert!(leader.verdict(36, true).contains("for 0 s"));
    }

    #[test]
    fn a_refusal_names_at_most_eight_nodes() {
        let named = |ids: std::ops::RangeInclusive<u64>| Receivers(ids.map(NodeId).collect()).to_string();
        assert_eq!(named(7..=7), "node 7 received");
        assert_eq!(named(1..=2), "nodes 1 and 2 received");
        assert_eq!(named(1..=8), "nodes 1, 2, 3, 4, 5, 6, 7 and 8 received");
        assert_eq!(named(1..=11), "nodes 1, 2, 3, 4, 5, 6, 7, 8 and 3 more received");
    }
}
