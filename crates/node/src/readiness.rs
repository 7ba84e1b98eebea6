//! Whether a node is ready for clients, and the reasons if it is not.

use quorate_raft::ReplicaStatus;
use quorate_types::report::ReplicaReport;
use quorate_types::{ReplicaId, Role, ShardId};
use serde::Serialize;

use crate::node::Node;
use crate::refusal::REMOVED;

/// One condition of being ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// The condition.
    pub(crate) name: &'static str,
    /// Whether it holds.
    pub(crate) ok: bool,
    /// An explanation.
    pub(crate) detail: String,
}

/// The result of all checks.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Readiness {
    /// Whether clients should be sent here.
    pub(crate) ready: bool,
    /// All conditions.
    pub(crate) checks: Vec<Check>,
}

/// Checks all conditions. A missing quorum or a full disk does not make a node unready: it still
/// serves other reads.
pub(crate) fn check(node: &Node) -> Readiness {
    let member = node.cluster_node();
    let map = member.as_ref().and_then(|member| member.store().feed.latest());
    let knows_itself = match (&member, &map) {
        (Some(member), Some(map)) => map.topology.node(member.store().identity.node).is_some(),
        _ => false,
    };
    let removed = match (&member, &map) {
        (Some(member), Some(map)) => map.topology.is_removed(member.store().identity.node),
        _ => false,
    };
    let mut checks = vec![
        when(!removed, "membership", "the node was not removed", REMOVED),
        when(!node.life.is_stopping(), "running", "the node is running", "the node is stopping"),
        when(member.is_some(), "cluster", "the node is in a cluster", "the node is in no cluster yet"),
        when(knows_itself, "topology", "the topology is known", "no topology that has this node is known yet"),
    ];
    let (open, missing) = match (&member, &map) {
        (Some(member), Some(map)) => {
            let own = member.store().identity.node;
            let placed = map.topology.shards.iter().filter(|shard| shard.replicas.iter().any(|at| at.node == own));
            // A doubtful replica stays closed while the cluster replaces it; the others serve.
            let doubtful = member.store().groups.doubtful();
            let is_doubtful = |shard: ShardId| doubtful.iter().any(|(_, group)| *group == shard.group());
            let is_missing = |id: ShardId| member.store().shards.get(id).is_none() && !is_doubtful(id);
            let missing = placed.filter(|shard| is_missing(shard.id)).count();
            (
                member.store().shards.all().len(),
                if member.store().shards.is_recovered() { missing } else { missing.max(1) },
            )
        }
        _ => (0, 1),
    };
    let detail = format!("{open} replicas are open, {missing} are missing");
    checks.push(Check { name: "replicas", ok: missing == 0, detail });
    let ready = checks.iter().all(|check| check.ok);
    Readiness { ready, checks }
}

/// Whether a shard of this node has a leader, as far as this node knows: writes to such a shard
/// reach their leader through any of its nodes. False on a node without shards.
pub(crate) fn writes(node: &Node) -> Check {
    let Some(member) = node.cluster_node() else { return of_writes(&[], &[]) };
    let groups = &member.store().groups;
    of_writes(&groups.statuses(), &groups.reports())
}

fn of_writes(statuses: &[ReplicaStatus], reports: &[ReplicaReport]) -> Check {
    let shards = statuses.iter().filter(|status| status.group.shard().is_some());
    let (led, leaderless): (Vec<_>, Vec<_>) = shards.partition(|status| match status.role {
        // A leader without a quorum is one only by name.
        Role::Leader => reports.iter().any(|report| report.replica == status.replica && has_quorum(report)),
        _ => status.leader.is_some(),
    });
    let detail =
        format!("{} of {} shards have a leader as far as this node knows", led.len(), led.len() + leaderless.len());
    Check { name: "writes", ok: !led.is_empty(), detail }
}

/// Whether a majority of the voters answered this leader a moment ago.
fn has_quorum(leader: &ReplicaReport) -> bool {
    let answers = |voter: &&ReplicaId| {
        **voter == leader.replica || leader.others.iter().any(|other| other.replica == **voter && other.answers)
    };
    leader.members.members.voters.iter().all(|voters| 2 * voters.iter().filter(answers).count() > voters.len())
}

/// Further observations that do not make a node unready.
pub(crate) fn notes(node: &Node) -> Vec<Check> {
    let mut notes = Vec::new();
    let full = node.disk.is_full();
    notes.push(when(!full, "disk", "the disk has room", "the disk is below its reserve: puts are refused"));
    if let Some(member) = node.cluster_node() {
        let statuses = member.store().groups.statuses();
        let leaderless = statuses.iter().filter(|status| status.leader.is_none()).count();
        let detail = format!("{leaderless} of {} groups have no leader as far as this node knows", statuses.len());
        notes.push(Check { name: "leaders", ok: leaderless == 0, detail });
        let doubtful = member.store().groups.doubtful().len();
        let detail = format!("{doubtful} replicas lost log entries and wait for their replacement");
        notes.push(Check { name: "logs", ok: doubtful == 0, detail });
    }
    notes
}

fn when(ok: bool, name: &'static str, yes: &str, no: &str) -> Check {
    Check { name, ok, detail: if ok { yes } else { no }.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use quorate_types::report::Follower;
    use quorate_types::state::{Head, StoredMembership};
    use quorate_types::{GroupId, Membership, NodeId};

    use super::*;

    fn replica(group: u32, role: Role, leader: Option<u64>) -> ReplicaStatus {
        ReplicaStatus {
            group: GroupId(group),
            replica: ReplicaId(1),
            role,
            term: 1,
            leader: leader.map(NodeId),
            initialized: true,
            last_log_index: None,
            applied_index: None,
            purged_index: None,
            head: Head::default(),
            log_bytes: 0,
            voters: vec![],
            snapshots_installed: 0,
            stalled: vec![],
        }
    }

    /// The report of replica 1, which leads three voters; `answering` of the others answer.
    fn leader(answering: u64) -> ReplicaReport {
        let other = |id: u64| Follower {
            replica: ReplicaId(id),
            matched_index: 1,
            answers: id <= 1 + answering,
            snapshot_failure: None,
        };
        let voters = vec![BTreeSet::from([1, 2, 3].map(ReplicaId))];
        let members = StoredMembership { members: Membership { voters, nodes: BTreeMap::new() }, at: None };
        ReplicaReport {
            group: GroupId(1),
            replica: ReplicaId(1),
            role: Role::Leader,
            term: 1,
            last_index: 1,
            bytes: 0,
            doubtful: false,
            members: members.clone(),
            applied_members: members,
            others: vec![other(2), other(3)],
        }
    }

    /// A node takes writes if any of its shards has a leader; the topology group is no shard, and a
    /// leader without a quorum is none.
    #[test]
    fn writes_need_a_shard_with_a_leader() {
        use Role::{Follower as Follows, Leader as Leads};
        let ok = |statuses: &[ReplicaStatus]| of_writes(statuses, &[]).ok;
        assert!(ok(&[replica(1, Follows, None), replica(2, Follows, Some(3))]));
        assert!(!ok(&[replica(0, Follows, Some(3)), replica(1, Follows, None), replica(2, Follows, None)]));
        assert!(!ok(&[replica(0, Follows, Some(3))]), "a node without shards");
        let detail = of_writes(&[replica(1, Follows, None), replica(2, Follows, Some(3))], &[]).detail;
        assert_eq!(detail, "1 of 2 shards have a leader as far as this node knows");
        assert!(of_writes(&[replica(1, Leads, Some(1))], &[leader(1)]).ok);
        assert!(!of_writes(&[replica(1, Leads, Some(1))], &[leader(0)]).ok, "alone");
    }
}
