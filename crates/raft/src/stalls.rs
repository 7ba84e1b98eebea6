//! Members that do not catch up, as the leader of their group sees them: they are behind, and their
//! confirmed entries have not moved for a while.
//!
//! Sampled with every report to the reconciler, at least every few seconds.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use quorate_types::report::ReplicaReport;
use quorate_types::{NodeId, ReplicaId, Role};
use tokio::time::Instant;

/// How long a member may be behind without a step forward. A slow disk confirms something within
/// two seconds, or its stream ends; 30 s leaves room for a restart of its node.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// A member that does not catch up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// The entries that it lacks.
    pub entries: u64,
    /// How long it has made no progress.
    pub since: Duration,
}

/// The members that are behind one leader.
#[derive(Default)]
pub(crate) struct Stalls(Mutex<BTreeMap<ReplicaId, Behind>>);

struct Behind {
    matched_index: u64,
    since: Instant,
}

impl Stalls {
    /// Takes a report of the replica into account. Returns the members that do not catch up.
    pub(crate) fn observe(&self, report: &ReplicaReport, now: Instant) -> Vec<Stalled> {
        let mut known = self.0.lock().expect("only a broken invariant poisons this lock");
        let behind: Vec<_> = match report.role {
            Role::Leader => report.others.iter().filter(|other| other.matched_index < report.last_index).collect(),
            _ => Vec::new(),
        };
        known.retain(|id, before| {
            let still = behind.iter().find(|other| other.replica == *id);
            still.is_some_and(|other| other.matched_index == before.matched_index)
        });
        let mut stalled = Vec::new();
        for other in behind {
            let first = || Behind { matched_index: other.matched_index, since: now };
            let since = now.duration_since(known.entry(other.replica).or_insert_with(first).since);
            let node = report.members.members.nodes.get(&other.replica).copied();
            if let Some(node) = node.filter(|_| since >= STALLED_AFTER) {
                let entries = report.last_index - other.matched_index;
                stalled.push(Stalled { replica: other.replica, node, entries, since });
            }
        }
        stalled
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::report::Follower;
    use quorate_types::state::StoredMembership;
    use quorate_types::{GroupId, Membership};

    use super::*;

    const FOLLOWER: ReplicaId = ReplicaId(2);

    fn report(last_index: u64, matched_index: u64) -> ReplicaReport {
        let nodes = [(ReplicaId(1), NodeId(1)), (FOLLOWER, NodeId(7))].into();
        let members = StoredMembership { at: None, members: Membership { voters: vec![], nodes } };
        ReplicaReport {
            group: GroupId(1),
            replica: ReplicaId(1),
            role: Role::Leader,
            term: 1,
            last_index,
            members: members.clone(),
            applied_members: members,
            doubtful: false,
            others: vec![Follower { replica: FOLLOWER, matched_index, answers: true, snapshot_failure: None }],
            bytes: 0,
        }
    }

    /// A member counts as stalled after it was behind for a while without a step forward. One that
    /// is up to date, or that moves, never does.
    #[test]
    fn member_that_makes_no_progress_is_stalled() {
        let (stalls, start) = (Stalls::default(), Instant::now());
        let observe = |after: Duration, last, matched| stalls.observe(&report(last, matched), start + after);
        assert_eq!(observe(Duration::ZERO, 10, 10), []);
        assert_eq!(observe(2 * STALLED_AFTER, 20, 10), [], "it fell behind just now");
        let found = observe(3 * STALLED_AFTER, 30, 10);
        let stalled = Stalled { replica: FOLLOWER, node: NodeId(7), entries: 20, since: STALLED_AFTER };
        assert_eq!(found, [stalled]);
        assert_eq!(observe(4 * STALLED_AFTER, 40, 11), [], "it moves");
        assert_eq!(observe(5 * STALLED_AFTER, 40, 11).len(), 1);
        assert_eq!(observe(6 * STALLED_AFTER, 40, 40), []);
        let follower = ReplicaReport { role: Role::Follower, ..report(40, 11) };
        assert_eq!(stalls.observe(&follower, start + 9 * STALLED_AFTER), []);
    }
}
