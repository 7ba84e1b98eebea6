//! Whether a node is ready for clients, and the reasons if it is not.

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
    let member = node.member();
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
            let missing = placed.filter(|shard| member.store().shards.get(shard.id).is_none()).count();
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

/// Further observations that do not make a node unready.
pub(crate) fn notes(node: &Node) -> Vec<Check> {
    let mut notes = Vec::new();
    let full = node.disk.is_full();
    notes.push(when(!full, "disk", "the disk has room", "the disk is below its reserve: puts are refused"));
    if let Some(member) = node.member() {
        let statuses = member.store().groups.statuses();
        let leaderless = statuses.iter().filter(|status| status.leader.is_none()).count();
        let detail = format!("{leaderless} of {} groups have no leader as far as this node knows", statuses.len());
        notes.push(Check { name: "leaders", ok: leaderless == 0, detail });
    }
    notes
}

fn when(ok: bool, name: &'static str, yes: &str, no: &str) -> Check {
    Check { name, ok, detail: if ok { yes } else { no }.to_owned() }
}
