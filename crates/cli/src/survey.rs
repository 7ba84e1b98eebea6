//! The cluster as it is now: the newest topology that anyone knows, and what every node says of itself.
//!
//! Taking a survey is I/O; what follows from it (leaders, lag, how many more failures are survived) is computed here without any.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::future::join_all;
use quorate_proto::admin::{Node, NodeStatus, ReplicaStatus, Topology};
use quorate_proto::kv;
use serde::Serialize;

use crate::admin;
use crate::args::Connect;
use crate::failure::Failure;
use crate::output::{id, id_or_null};

/// The longest wait for one node's answer: a node that is slower counts as down.
const NODE_DEADLINE_MAX: Duration = Duration::from_secs(2);
/// The state of a node that is gone for good.
pub(crate) const REMOVED: &str = "removed";
/// The state of a node that has a part of the data.
const ACTIVE: &str = "active";
/// The state of a node that gives its replicas away, or has given them.
pub(crate) const DRAINING: &str = "draining";

/// A topology, and each of its nodes with what it answered; none: it did not.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) topology: Topology,
    pub(crate) nodes: Vec<(Node, Option<NodeStatus>)>,
    /// Nodes at whose address another one answers, or one without an id.
    pub(crate) strangers: BTreeSet<u64>,
}

/// A shard and its replicas.
#[derive(Debug, Serialize)]
pub(crate) struct Shard {
    #[serde(serialize_with = "id")]
    pub(crate) id: u64,
    /// The first token, as 16 hexadecimal digits.
    pub(crate) arc_start: String,
    /// The first token after the arc.
    pub(crate) arc_end: String,
    pub(crate) epoch: u64,
    /// About how many bytes a replica has on disk.
    pub(crate) size_bytes: u64,
    /// The node that leads; null: none does, or it did not answer.
    #[serde(serialize_with = "id_or_null")]
    pub(crate) leader: Option<u64>,
    pub(crate) replicas: Vec<Replica>,
}

/// A replica of a shard as its node reports it.
#[derive(Debug, Serialize)]
pub(crate) struct Replica {
    #[serde(serialize_with = "id")]
    pub(crate) replica: u64,
    #[serde(serialize_with = "id")]
    pub(crate) node: u64,
    /// `leader`, `follower`, `candidate`, `learner` or `stopped`; `down`: its node did not answer; `missing`: its node answered
    /// and does not have it.
    pub(crate) role: &'static str,
    pub(crate) term: Option<u64>,
    pub(crate) applied_index: Option<u64>,
    pub(crate) last_log_index: Option<u64>,
    /// About how many bytes it has on disk.
    pub(crate) size_bytes: Option<u64>,
}

/// How well a Raft group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Margin {
    /// Voters that may still fail before the group stops; negative: so many must come back.
    pub(crate) spare: i64,
    /// Whether every voter is there.
    pub(crate) complete: bool,
    /// Whether somebody leads.
    pub(crate) led: bool,
}

impl Survey {
    /// Asks every endpoint for its topology, and every node of the newest one for its status.
    pub(crate) async fn take(connect: &Connect) -> Result<Survey, Failure> {
        let began = Instant::now();
        let topology = admin::newest_topology(&connect.endpoints, connect.deadline).await?;
        let within = connect.deadline.saturating_sub(began.elapsed()).min(NODE_DEADLINE_MAX);
        let members: Vec<Node> = topology.nodes.iter().filter(|node| node.state != REMOVED).cloned().collect();
        let answers = join_all(members.iter().map(|node| admin::node(&node.client_address, within))).await;
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

    /// The shards in the order of their ids.
    pub(crate) fn shards(&self) -> Vec<Shard> {
        let mut shards: Vec<Shard> = self.topology.shards.iter().map(|shard| self.shard(shard)).collect();
        shards.sort_by_key(|shard| shard.id);
        shards
    }

    fn shard(&self, shard: &kv::Shard) -> Shard {
        let replicas = shard.replicas.iter().map(|placement| self.replica(shard.id, placement)).collect();
        Shard {
            id: u64::from(shard.id),
            arc_start: format!("{:016x}", shard.arc_start),
            arc_end: format!("{:016x}", shard.arc_end),
            epoch: shard.epoch,
            size_bytes: self.size_bytes(shard.id),
            leader: self.leader(shard.id),
            replicas,
        }
    }

    fn replica(&self, group: u32, placement: &kv::Placement) -> Replica {
        let answered = self.nodes.iter().any(|(node, status)| node.id == placement.node && status.is_some());
        let report =
            self.reports(group).find(|(_, report)| report.replica == placement.replica).map(|(_, report)| report);
        let role = match report {
            Some(report) => role(report.role()),
            None if answered => "missing",
            None => "down",
        };
        Replica {
            replica: placement.replica,
            node: placement.node,
            role,
            term: report.map(|report| report.term),
            applied_index: report.map(|report| report.applied_index),
            last_log_index: report.map(|report| report.last_log_index),
            size_bytes: report.map(|report| report.data_bytes),
        }
    }

    /// What the nodes that answered say of their replicas of a group.
    fn reports(&self, group: u32) -> impl Iterator<Item = (u64, &ReplicaStatus)> {
        let answered = self.nodes.iter().filter_map(|(node, status)| Some((node.id, status.as_ref()?)));
        answered.flat_map(move |(node, status)| {
            status.replicas.iter().filter(move |report| report.group == group).map(move |report| (node, report))
        })
    }

    /// Whether a node was drained, and holds nothing any more.
    pub(crate) fn is_drained(&self, id: u64) -> bool {
        let draining = self.topology.nodes.iter().any(|node| node.id == id && node.state == DRAINING);
        let settled = self.topology.shards.iter().flat_map(|shard| &shard.replicas);
        let all = settled.chain(&self.topology.topology_replicas);
        let moving = self.topology.moves.iter().flat_map(|moving| moving.to.iter().chain(&moving.from));
        draining && !all.chain(moving).any(|at| at.node == id)
    }

    /// What to do about a node that does not answer.
    pub(crate) fn way_back(&self, node: &Node) -> String {
        let Node { id, client_address, .. } = node;
        if self.is_drained(*id) {
            return format!("node {id} is drained and stopped: quorate node remove {id}");
        }
        // Removing it as dead would be refused, and nothing can be moved away from it.
        if !self.without_quorum().is_empty() {
            return format!("start node {id} again: shards wait for it");
        }
        if node.state == DRAINING {
            return format!("node {id} gives its replicas away, which goes on without it: quorate op list");
        }
        let dead = format!("quorate node remove {id} --dead --confirm {client_address}");
        let dead = match self.can_do_without(*id) {
            true => dead,
            false => format!("start another one with --join first, then: {dead}"),
        };
        match self.strangers.contains(id) {
            true => format!("what answers at {client_address} is not node {id}; if that lost its data: {dead}"),
            false => format!("start node {id} again, it catches up by itself; dead for good?  {dead}"),
        }
    }

    /// Whether there are nodes enough for every shard's replicas without this one; else it can neither be drained nor removed.
    pub(crate) fn can_do_without(&self, id: u64) -> bool {
        let takes = |node: &&Node| node.id != id && node.state == ACTIVE && node.weight > 0;
        self.topology.nodes.iter().filter(takes).count() >= self.topology.replicas as usize
    }

    /// The shards that have lost their quorum.
    pub(crate) fn without_quorum(&self) -> Vec<u32> {
        self.shard_ids().filter(|shard| self.margin(*shard).spare < 0).collect()
    }

    /// Those of these nodes that do not answer.
    pub(crate) fn silent(&self, nodes: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
        let down = |id: &u64| self.nodes.iter().any(|(node, status)| node.id == *id && status.is_none());
        nodes.into_iter().filter(down).collect()
    }

    /// The node that leads a group: of those that say they do, the one of the highest term. None without a quorum: a leader that
    /// is cut off believes that it leads for as long as it hears of no other, and serves nobody.
    pub(crate) fn leader(&self, group: u32) -> Option<u64> {
        let (working, voters) = self.working(group);
        if 2 * working > voters { self.claims_to_lead(group) } else { None }
    }

    /// The node that says that it leads, of those that answer; whether it does shows when it is asked for something.
    pub(crate) fn claims_to_lead(&self, group: u32) -> Option<u64> {
        let leaders = self.reports(group).filter(|(_, report)| report.role() == kv::Role::Leader);
        leaders.max_by_key(|(_, report)| report.term).map(|(node, _)| node)
    }

    /// How well a group is.
    pub(crate) fn margin(&self, group: u32) -> Margin {
        let (working, voters) = self.working(group);
        let majority = voters / 2 + 1;
        Margin {
            spare: i64::try_from(working).unwrap_or(i64::MAX) - i64::try_from(majority).unwrap_or(i64::MAX),
            complete: working == voters,
            led: self.leader(group).is_some(),
        }
    }

    /// Whether a node answers, but hears nothing of the leader of a group of which it has a voter: the way between the two is cut.
    pub(crate) fn is_cut_off(&self, node: u64) -> bool {
        let groups = self.shard_ids().chain([0]);
        let reports = groups.flat_map(|group| self.reports(group).filter(|(at, _)| *at == node));
        reports.into_iter().any(|(_, report)| report.role() != kv::Role::Learner && !self.follows(node, report))
    }

    /// Whether a replica leads its group or hears of who does; of a group that nobody leads all that run do.
    fn follows(&self, node: u64, report: &ReplicaStatus) -> bool {
        let leads = self.claims_to_lead(report.group);
        leads.is_none_or(|leads| leads == node || leads == report.leader)
    }

    /// How many voters of a group work, of how many. They are as its latest report says, else as the map places them.
    fn working(&self, group: u32) -> (usize, usize) {
        let latest = self.reports(group).max_by_key(|(_, report)| (report.term, report.applied_index));
        let placed = || {
            let shard = self.topology.shards.iter().find(|shard| shard.id == group);
            shard.map(|shard| shard.replicas.iter().map(|placement| placement.node).collect()).unwrap_or_default()
        };
        let voters: Vec<u64> = match latest {
            Some((_, report)) if !report.voters.is_empty() => report.voters.clone(),
            _ => placed(),
        };
        let works = |voter: &&u64| {
            let mut here = self.reports(group).filter(|(node, _)| node == *voter);
            here.any(|(node, report)| report.role() != kv::Role::Stopped && self.follows(node, report))
        };
        (voters.iter().filter(works).count(), voters.len())
    }

    /// About how many bytes a replica of a group has on disk: what its largest one reports, since one that is on its way has
    /// little yet. What was not flushed yet counts nowhere.
    pub(crate) fn size_bytes(&self, group: u32) -> u64 {
        self.reports(group).map(|(_, report)| report.data_bytes).max().unwrap_or(0)
    }

    /// The ids of the shards.
    pub(crate) fn shard_ids(&self) -> impl Iterator<Item = u32> {
        self.topology.shards.iter().map(|shard| shard.id)
    }

    /// The largest number of entries by which a replica of the node is behind its leader.
    pub(crate) fn lag_entries(&self, node: u64) -> Option<u64> {
        let (_, status) = self.nodes.iter().find(|(member, _)| member.id == node)?;
        let lag = |report: &ReplicaStatus| {
            let leader = self.reports(report.group).filter(|(_, other)| other.role() == kv::Role::Leader);
            let last = leader.map(|(_, other)| other.last_log_index).max().unwrap_or(report.last_log_index);
            last.saturating_sub(report.applied_index)
        };
        status.as_ref()?.replicas.iter().map(lag).max()
    }
}

/// A role's name.
pub(crate) fn role(role: kv::Role) -> &'static str {
    match role {
        kv::Role::Leader => "leader",
        kv::Role::Follower => "follower",
        kv::Role::Candidate => "candidate",
        kv::Role::Learner => "learner",
        kv::Role::Stopped => "stopped",
        kv::Role::Unspecified => "unknown",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Three nodes, group 0 and shards 1 and 2 on all of them; node 1 leads 0 and 1, node 2 leads 2. The listed nodes are down.
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
            ..Topology::default()
        };
        let nodes = nodes.into_iter().map(|node| {
            let status = (!down.contains(&node.id)).then(|| status(node.id));
            (node, status)
        });
        Survey { nodes: nodes.collect(), topology, strangers: BTreeSet::new() }
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
    fn all_well_survives_one_failure() {
        let survey = survey(&[]);
        for group in 0..=2 {
            assert_eq!(survey.margin(group), Margin { spare: 1, complete: true, led: true });
        }
        let shards = survey.shards();
        assert_eq!((shards[0].id, shards[0].leader), (1, Some(1)));
        assert_eq!((shards[1].id, shards[1].leader), (2, Some(2)));
        assert_eq!(shards[1].arc_end, "8000000000000000");
        assert_eq!(survey.lag_entries(3), Some(3));
    }

    #[test]
    fn a_dead_follower_leaves_none_to_spare() {
        let survey = survey(&[3]);
        assert_eq!(survey.margin(1), Margin { spare: 0, complete: false, led: true });
        assert_eq!(survey.shards()[0].replicas[2].role, "down");
        assert_eq!(survey.lag_entries(3), None);
    }

    /// A node that answered counted as there, though the others heard nothing of it, nor it of them.
    #[test]
    fn a_node_that_is_cut_off_counted_as_there() {
        let mut survey = survey(&[]);
        for report in &mut survey.nodes[2].1.as_mut().unwrap().replicas {
            report.leader = 0;
        }
        assert_eq!(survey.margin(1), Margin { spare: 0, complete: false, led: true });
        assert_eq!([1, 2, 3].map(|node| survey.is_cut_off(node)), [false, false, true]);
        // It led shard 2, and still believes so: the others have elected node 1 since.
        for (node, status) in &mut survey.nodes {
            let report = &mut status.as_mut().unwrap().replicas[2];
            if node.id != 2 {
                (report.leader, report.term) = (1, 4);
            }
            report.role = if node.id == 3 { kv::Role::Follower } else { kv::Role::Leader }.into();
        }
        assert_eq!(survey.leader(2), Some(1));
        assert!(survey.is_cut_off(2));
    }

    #[test]
    fn without_a_quorum_and_a_leader_the_group_waits() {
        let survey = survey(&[1, 3]);
        assert_eq!(survey.margin(1), Margin { spare: -1, complete: false, led: false });
        assert_eq!(survey.shards()[0].leader, None);
        // Node 2 says that it leads; it counted as the shard's leader.
        assert_eq!((survey.shards()[1].leader, survey.margin(2).led), (None, false));
    }

    /// A node that was drained and stopped was to be started again, and so was one whose data was lost.
    #[test]
    fn what_to_do_about_a_node_that_does_not_answer() {
        let mut survey = survey(&[3]);
        let way = |survey: &Survey| survey.way_back(&survey.nodes[2].0.clone());
        assert!(way(&survey).starts_with("start node 3 again"), "{}", way(&survey));
        let dead = "quorate node remove 3 --dead --confirm 127.0.0.1:7120";
        assert!(way(&survey).ends_with(&format!("start another one with --join first, then: {dead}")));
        let fourth = Node { id: 4, ..survey.topology.nodes[0].clone() };
        survey.topology.nodes.push(fourth);
        assert!(way(&survey).ends_with(&format!("dead for good?  {dead}")), "{}", way(&survey));
        survey.strangers.insert(3);
        assert!(way(&survey).starts_with("what answers at 127.0.0.1:7120 is not node 3"), "{}", way(&survey));
        for state in [&mut survey.topology.nodes[2].state, &mut survey.nodes[2].0.state] {
            *state = DRAINING.into();
        }
        assert!(!survey.is_drained(3), "it holds replicas");
        assert!(
            way(&survey).starts_with("node 3 gives its replicas away, which goes on without it"),
            "{}",
            way(&survey)
        );
        for shard in &mut survey.topology.shards {
            shard.replicas.retain(|at| at.node != 3);
        }
        assert_eq!(way(&survey), "node 3 is drained and stopped: quorate node remove 3");
        assert_eq!(survey.silent([1, 3, 9]), BTreeSet::from([3]));
    }

    #[test]
    fn a_node_without_its_replica_is_told_apart_from_a_dead_one() {
        let mut survey = survey(&[]);
        let status = survey.nodes[2].1.as_mut().unwrap();
        status.replicas.retain(|report| report.group != 1);
        assert_eq!(survey.shards()[0].replicas[2].role, "missing");
        assert_eq!(survey.margin(1).spare, 0);
    }
}
