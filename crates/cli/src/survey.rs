//! Takes a survey of the cluster: the newest topology, and the status of every node.
//!
//! This file does the I/O and simple look-ups. `presence` tells nodes that are down from nodes that
//! only this machine does not reach, `quorum` computes leaders and failure margins from a survey,
//! `advice` and `zones` word the next steps.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::future::join_all;
use quorate_client::{newest_topology, node_status};
use quorate_proto::admin::{Node, NodeStatus, ReplicaStatus, Topology};
use quorate_proto::kv::Shard;

use crate::admin_failure::no_topology;
use crate::connect::Connect;
use crate::failure::{Exit, Failure};

/// The longest wait for one node's status: a slower node counts as down.
const NODE_DEADLINE_MAX: Duration = Duration::from_secs(2);
/// The state of a node that left the cluster permanently.
pub(crate) const REMOVED: &str = "removed";
/// The state of a node that may hold replicas.
pub(crate) const ACTIVE: &str = "active";
/// The state of a node whose replicas move to other nodes, or have moved.
pub(crate) const DRAINING: &str = "draining";

/// The topology, and the status of each node that has not been removed.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) topology: Topology,
    /// The nodes with their status; none: the node did not respond.
    pub(crate) nodes: Vec<(Node, Option<NodeStatus>)>,
    /// Nodes at whose address another node responds, or one without an id.
    pub(crate) strangers: BTreeSet<u64>,
}

impl Survey {
    /// Asks every endpoint for its topology, and every node of the newest one for its status.
    pub(crate) async fn take(connect: &Connect) -> Result<Survey, Failure> {
        let began = Instant::now();
        let newest = newest_topology(&connect.endpoints, connect.deadline).await;
        let topology = Topology::from(newest.map_err(|errors| no_topology(&errors))?);
        let within = connect.deadline.saturating_sub(began.elapsed()).min(NODE_DEADLINE_MAX);
        let members: Vec<Node> = topology.nodes.iter().filter(|node| node.state != REMOVED).cloned().collect();
        let answers = join_all(members.iter().map(|node| node_status(&node.client_address, within))).await;
        let nodes: Vec<(Node, Option<NodeStatus>)> =
            members.into_iter().zip(answers.into_iter().map(Result::ok)).collect();
        let is_other =
            |(node, status): &&(Node, Option<NodeStatus>)| status.as_ref().is_some_and(|status| status.id != node.id);
        let strangers: BTreeSet<u64> = nodes.iter().filter(is_other).map(|(node, _)| node.id).collect();
        let nodes = nodes.into_iter().map(|(node, status)| {
            let status = status.filter(|_| !strangers.contains(&node.id));
            (node, status)
        });
        Ok(Survey { nodes: nodes.collect(), topology, strangers })
    }

    /// Refuses the id of a node that is not in the cluster.
    pub(crate) fn check_node(&self, id: u64) -> Result<(), Failure> {
        if self.nodes.iter().any(|(node, _)| node.id == id) {
            return Ok(());
        }
        let removed = self.is_removed(id);
        let message = if removed { format!("node {id} was removed") } else { format!("the cluster has no node {id}") };
        let ids: Vec<String> = self.nodes.iter().map(|(node, _)| node.id.to_string()).collect();
        Err(Failure::new(Exit::Usage, message).hint(format!("its nodes are {}", ids.join(", "))))
    }

    /// Whether a node was in the cluster and was removed.
    pub(crate) fn is_removed(&self, id: u64) -> bool {
        self.topology.nodes.iter().any(|node| node.id == id && node.state == REMOVED)
    }

    /// Whether a node was drained and holds no replica.
    pub(crate) fn is_drained(&self, id: u64) -> bool {
        let draining = self.topology.nodes.iter().any(|node| node.id == id && node.state == DRAINING);
        let settled = self.topology.shards.iter().flat_map(|shard| &shard.replicas);
        let all = settled.chain(&self.topology.topology_replicas);
        let moving = self.topology.moves.iter().flat_map(|moving| moving.to.iter().chain(&moving.from));
        draining && !all.chain(moving).any(|at| at.node == id)
    }

    /// The status of all replicas of a group, each with its node.
    pub(crate) fn reports(&self, group: u32) -> impl Iterator<Item = (u64, &ReplicaStatus)> + Clone {
        let answered = self.nodes.iter().filter_map(|(node, status)| Some((node.id, status.as_ref()?)));
        answered.flat_map(move |(node, status)| {
            status.replicas.iter().filter(move |report| report.group == group).map(move |report| (node, report))
        })
    }

    /// The ids of the shards.
    pub(crate) fn shard_ids(&self) -> impl Iterator<Item = u32> {
        self.topology.shards.iter().map(|shard| shard.id)
    }

    /// The shards with a replica on a node.
    pub(crate) fn shards_on(&self, node: u64) -> impl Iterator<Item = &Shard> {
        self.topology.shards.iter().filter(move |shard| shard.replicas.iter().any(|at| at.node == node))
    }

    /// The approximate size on disk of a replica of a group, in bytes: the largest that is
    /// reported, because a replica that is being copied is still small. Unflushed data is not
    /// included.
    pub(crate) fn size_bytes(&self, group: u32) -> u64 {
        self.reports(group).map(|(_, report)| report.data_bytes).max().unwrap_or(0)
    }

    /// The approximate size of all replicas on a node, in bytes.
    pub(crate) fn held_bytes(&self, node: u64) -> u64 {
        self.shards_on(node).map(|shard| self.size_bytes(shard.id)).sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use quorate_proto::admin::ReceivedPing;
    use quorate_proto::kv;

    use super::*;

    /// Three nodes with the topology group and shards 1 and 2 on each. Node 1 leads the topology
    /// group and shard 1, node 2 leads shard 2. The listed nodes do not respond, and the others
    /// receive no pings from them.
    pub(crate) fn survey(down: &[u64]) -> Survey {
        let placements = |shard: u64| (1..=3).map(|node| kv::Placement { replica: shard * 10 + node, node }).collect();
        let half = 1u64 << 63;
        let shards = [(1, half, 0), (2, 0, half)].map(|(id, arc_start, arc_end)| kv::Shard {
            id,
            arc_start,
            arc_end,
            epoch: 1,
            replicas: placements(u64::from(id)),
        });
        let member = |id: u64| Node {
            id,
            client_address: format!("127.0.0.1:71{}0", id - 1),
            state: "active".into(),
            weight: 100,
            ..Node::default()
        };
        let nodes: Vec<Node> = (1..=3).map(member).collect();
        let topology = Topology {
            cluster_id: "7c1e".repeat(8),
            revision: 5,
            replicas: 3,
            nodes: nodes.clone(),
            shards: shards.to_vec(),
            topology_replicas: placements(0),
            ..Topology::default()
        };
        let nodes = nodes.into_iter().map(|node| {
            let status = (!down.contains(&node.id)).then(|| status(node.id));
            (node, status)
        });
        Survey { nodes: nodes.collect(), topology, strangers: BTreeSet::new() }
    }

    /// Like [`survey`], but the nodes that respond receive pings from the others: those are
    /// unreachable from this machine.
    pub(crate) fn unreachable(nodes: &[u64]) -> Survey {
        let mut survey = survey(nodes);
        for (node, status) in &mut survey.nodes {
            let pings = (1..=3).filter(|from| *from != node.id).map(|from| ReceivedPing { from, ago_ms: 900 });
            status.iter_mut().for_each(|status| status.pings = pings.clone().collect());
        }
        survey
    }

    /// Like [`survey`] without nodes that are down, but the replica of a shard on a node is
    /// doubtful.
    pub(crate) fn doubtful_on(node: u64, shard: u32) -> Survey {
        let mut survey = survey(&[]);
        let (_, status) = survey.nodes.iter_mut().find(|(known, _)| known.id == node).unwrap();
        for report in status.as_mut().unwrap().replicas.iter_mut().filter(|report| report.group == shard) {
            let ReplicaStatus { group, replica, .. } = *report;
            let role = kv::Role::Stopped.into();
            *report = ReplicaStatus { group, replica, role, doubtful: true, ..ReplicaStatus::default() };
        }
        survey
    }

    fn status(id: u64) -> NodeStatus {
        let replica = |group: u32, leader: u64| ReplicaStatus {
            group,
            replica: u64::from(group) * 10 + id,
            role: if leader == id { kv::Role::Leader } else { kv::Role::Follower }.into(),
            term: 3,
            leader,
            last_log_index: 100,
            applied_index: 100 - id,
            voters: vec![1, 2, 3],
            data_bytes: u64::from(group) * (3 << 20),
            ..ReplicaStatus::default()
        };
        NodeStatus {
            id,
            version: "0.1.0".into(),
            uptime_ms: 90_000,
            disk_free_bytes: 5 << 30,
            replicas: vec![replica(0, 1), replica(1, 1), replica(2, 2)],
            ..NodeStatus::default()
        }
    }

    #[test]
    fn a_node_holds_the_bytes_of_its_shards() {
        assert_eq!(survey(&[]).held_bytes(2), 9 << 20);
        assert_eq!(survey(&[]).held_bytes(7), 0);
    }

    #[test]
    fn an_unknown_node_is_refused_with_the_known_ones() {
        let failure = survey(&[]).check_node(9).unwrap_err();
        assert_eq!(failure.to_string(), "error: the cluster has no node 9\n  hint:  its nodes are 1, 2, 3\n");
        assert!(survey(&[3]).check_node(3).is_ok(), "a node that is down is in the cluster");
    }
}
