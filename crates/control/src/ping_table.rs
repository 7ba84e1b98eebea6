//! The signs of life that this node knows of: its own record of pings, and the records that other
//! nodes send with theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_types::NodeId;
use quorate_types::ping::{Ping, RECEIVED_MAX, ReceivedPing};
use tokio::time::Instant;

/// When each node last received a ping from each other node, as far as this node knows.
///
/// # Invariants
/// * Times never go back: a late message does not make a ping older.
/// * After [`retain`](Self::retain) only known nodes are in the table: the cluster's limit of nodes
///   bounds it.
#[derive(Debug)]
pub(crate) struct PingTable {
    own: NodeId,
    within: Duration,
    /// By receiver, then by sender.
    received: BTreeMap<NodeId, BTreeMap<NodeId, Instant>>,
}

impl PingTable {
    /// An empty table of the node `own`. A ping counts for `within`.
    pub(crate) fn new(own: NodeId, within: Duration) -> Self {
        PingTable { own, within, received: BTreeMap::new() }
    }

    /// The node whose table it is.
    pub(crate) fn own(&self) -> NodeId {
        self.own
    }

    /// Takes a ping, or the answer to one.
    pub(crate) fn receive(&mut self, ping: &Ping, now: Instant) {
        if ping.node == self.own {
            return;
        }
        self.note(self.own, ping.node, now);
        for ReceivedPing { from, ago_ms } in &ping.received {
            if let Some(at) = now.checked_sub(Duration::from_millis(u64::from(*ago_ms))) {
                self.note(ping.node, *from, at);
            }
        }
    }

    fn note(&mut self, by: NodeId, from: NodeId, at: Instant) {
        let last = self.received.entry(by).or_default().entry(from).or_insert(at);
        *last = at.max(*last);
    }

    /// Forgets all nodes but these.
    pub(crate) fn retain(&mut self, known: &BTreeSet<NodeId>) {
        self.received.retain(|by, _| known.contains(by));
        self.received.values_mut().for_each(|from| from.retain(|node, _| known.contains(node)));
        assert!(self.received.len() <= known.len(), "only known nodes are kept");
    }

    /// This node's own ping now.
    pub(crate) fn ping(&self, now: Instant) -> Ping {
        let recent = self.recent(self.own, now).take(RECEIVED_MAX);
        let received = recent.map(|(from, age)| {
            let ago_ms = u32::try_from(age.as_millis()).unwrap_or(u32::MAX);
            ReceivedPing { from, ago_ms }
        });
        Ping { node: self.own, received: received.collect() }
    }

    /// The nodes that received a recent ping from `node`.
    pub(crate) fn receivers(&self, node: NodeId, now: Instant) -> BTreeSet<NodeId> {
        let by = self.received.keys().filter(|by| self.recent(**by, now).any(|(from, _)| from == node));
        by.copied().collect()
    }

    fn recent(&self, by: NodeId, now: Instant) -> impl Iterator<Item = (NodeId, Duration)> {
        let all = self.received.get(&by).into_iter().flatten();
        let aged = all.map(move |(from, at)| (*from, now.saturating_duration_since(*at)));
        aged.filter(|(_, age)| *age <= self.within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    fn ping(node: u64, received: &[(u64, u32)]) -> Ping {
        let received = received.iter().map(|(from, ago_ms)| ReceivedPing { from: NodeId(*from), ago_ms: *ago_ms });
        Ping { node: NodeId(node), received: received.collect() }
    }

    /// A ping counts for 10 s after its receiver got it, also where another node passes it on.
    #[tokio::test(start_paused = true)]
    async fn a_ping_counts_for_ten_seconds() {
        let mut table = PingTable::new(NodeId(1), Duration::from_secs(10));
        let start = Instant::now() + Duration::from_secs(60);
        let at = |ms: u64| start + Duration::from_millis(ms);
        table.receive(&ping(2, &[(3, 4_000)]), at(0));
        assert_eq!(table.receivers(NodeId(2), at(10_000)), nodes(&[1]));
        assert_eq!(table.receivers(NodeId(2), at(10_001)), nodes(&[]));
        assert_eq!(table.receivers(NodeId(3), at(6_000)), nodes(&[2]));
        assert_eq!(table.receivers(NodeId(3), at(6_001)), nodes(&[]));
        assert_eq!(table.ping(at(500)), ping(1, &[(2, 500)]), "no ping of node 3 arrived here");
        assert_eq!(table.ping(at(10_001)), ping(1, &[]));
        // A message that arrives late says less than an earlier one.
        table.receive(&ping(2, &[(3, 9_000)]), at(1_000));
        assert_eq!(table.receivers(NodeId(3), at(6_000)), nodes(&[2]));
    }

    #[tokio::test(start_paused = true)]
    async fn removed_nodes_are_forgotten() {
        let mut table = PingTable::new(NodeId(1), Duration::from_secs(10));
        let now = Instant::now() + Duration::from_secs(60);
        table.receive(&ping(2, &[(1, 0), (3, 0), (9, 0)]), now);
        table.receive(&ping(3, &[(2, 0)]), now);
        table.receive(&ping(1, &[(2, 0)]), now);
        assert_eq!(table.ping(now), ping(1, &[(2, 0), (3, 0)]), "a node receives no pings from itself");
        table.retain(&nodes(&[1, 2]));
        assert_eq!(table.ping(now), ping(1, &[(2, 0)]));
        assert_eq!(table.receivers(NodeId(3), now), nodes(&[]));
        assert_eq!(table.receivers(NodeId(2), now), nodes(&[1]), "node 3 left, and its record with it");
    }
}
