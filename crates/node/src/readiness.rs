//! Whether a node is ready for clients, and if not, why.

use serde::Serialize;

use crate::node::Node;

/// One condition of being ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What is checked.
    pub(crate) name: &'static str,
    /// Whether it holds.
    pub(crate) ok: bool,
    /// What is the case, in words.
    pub(crate) detail: String,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Readiness {
    /// Whether clients should be sent here.
    pub(crate) ready: bool,
    /// All conditions.
    pub(crate) checks: Vec<Check>,
}

/// What a node is told that was removed from its cluster.
pub(crate) const REMOVED: &str = "the node was removed from the cluster for good, and holds nothing any more: stop it; to use this \
                                  machine again, start a node with an empty data directory";

/// Checks everything. A missing quorum or a full disk is no reason to send clients away: other reads are served here.
pub(crate) fn check(node: &Node) -> Readiness {
    let member = node.member();
    let map = member.as_ref().and_then(|member| member.feed.latest());
    let knows_itself = match (&member, &map) {
        (Some(member), Some(map)) => map.topology.node(member.identity.node).is_some(),
        _ => false,
    };
    let removed = match (&member, &map) {
        (Some(member), Some(map)) => map.topology.is_removed(member.identity.node),
        _ => false,
    };
    let mut checks = vec![
        when(!removed, "membership", "the node was not removed", REMOVED),
        when(!node.is_stopping(), "running", "the node is running", "the node is stopping"),
        when(member.is_some(), "cluster", "the node is in a cluster", "the node is in no cluster yet"),
        when(knows_itself, "topology", "the topology is known", "no topology that has this node is known yet"),
    ];
    let (open, missing) = match (&member, &map) {
        (Some(member), Some(map)) => {
            let own = member.identity.node;
            let placed = map.topology.shards.iter().filter(|shard| shard.replicas.iter().any(|at| at.node == own));
            let missing = placed.filter(|shard| member.shards.get(shard.id).is_none()).count();
            (member.shards.all().len(), if member.shards.is_recovered() { missing } else { missing.max(1) })
        }
        _ => (0, 1),
    };
    let detail = format!("{open} replicas are open, {missing} are missing");
    checks.push(Check { name: "replicas", ok: missing == 0, detail });
    let ready = checks.iter().all(|check| check.ok);
    Readiness { ready, checks }
}

/// What is worth knowing beside, without making a node unready.
pub(crate) fn notes(node: &Node) -> Vec<Check> {
    let mut notes = Vec::new();
    let full = node.disk.is_full();
    notes.push(when(!full, "disk", "the disk has room", "the disk is below its reserve: puts are refused"));
    if let Some(member) = node.member() {
        let statuses = member.groups.statuses();
        let leaderless = statuses.iter().filter(|status| status.leader.is_none()).count();
        let detail = format!("{leaderless} of {} groups have no leader as far as this node knows", statuses.len());
        notes.push(Check { name: "leaders", ok: leaderless == 0, detail });
    }
    notes
}

fn when(ok: bool, name: &'static str, yes: &str, no: &str) -> Check {
    Check { name, ok, detail: if ok { yes } else { no }.to_owned() }
}
