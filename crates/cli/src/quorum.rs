//! Leaders, majorities and lag of the Raft groups, computed from a survey. Pure.

use quorate_proto::admin::ReplicaStatus;
use quorate_proto::kv::Role;

use crate::survey::Survey;

/// The health of a Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Margin {
    /// The voters that may still fail before the group stops. Negative: the voters that must return
    /// before it works again.
    pub(crate) spare: i64,
    /// Whether every voter works.
    pub(crate) complete: bool,
    /// Whether it has a leader.
    pub(crate) led: bool,
}

impl Survey {
    /// The shards that have lost their quorum.
    pub(crate) fn without_quorum(&self) -> Vec<u32> {
        self.shard_ids().filter(|shard| self.margin(*shard).spare < 0).collect()
    }

    /// The node that leads a group; none without a quorum. A leader that is cut off claims to lead
    /// until it learns of another one, and serves no strong request meanwhile.
    pub(crate) fn leader(&self, group: u32) -> Option<u64> {
        let (working, voters) = self.working(group);
        if 2 * working > voters { self.claims_to_lead(group) } else { None }
    }

    /// The node that reports itself as the group's leader, or is followed as such and unreachable
    /// from here, with the highest term if there are several.
    pub(crate) fn claims_to_lead(&self, group: u32) -> Option<u64> {
        let claims = self.reports(group).filter_map(|(node, report)| match report.role() {
            Role::Leader => Some((report.term, node)),
            _ => self.is_unreachable(report.leader).then_some((report.term, report.leader)),
        });
        claims.max_by_key(|(term, _)| *term).map(|(_, node)| node)
    }

    /// The health of a group.
    pub(crate) fn margin(&self, group: u32) -> Margin {
        let (working, voters) = self.working(group);
        let majority = voters / 2 + 1;
        Margin {
            spare: i64::try_from(working).unwrap_or(i64::MAX) - i64::try_from(majority).unwrap_or(i64::MAX),
            complete: working == voters,
            led: self.leader(group).is_some(),
        }
    }

    /// Whether a node responds, but one of its voters does not follow its group's leader: the
    /// network between the two is interrupted.
    pub(crate) fn is_cut_off(&self, node: u64) -> bool {
        let groups = self.shard_ids().chain([0]);
        let reports = groups.flat_map(|group| self.reports(group).filter(|(at, _)| *at == node));
        let takes_part = |report: &ReplicaStatus| report.role() != Role::Learner && !report.doubtful;
        reports.into_iter().any(|(_, report)| takes_part(report) && !self.follows(node, report))
    }

    /// Whether a replica leads its group or knows the leader. True for every replica of a group
    /// without a leader.
    fn follows(&self, node: u64, report: &ReplicaStatus) -> bool {
        let leads = self.claims_to_lead(report.group);
        leads.is_none_or(|leads| leads == node || leads == report.leader)
    }

    /// The number of working voters of a group, and of all its voters. The voters are those of the
    /// latest report, or without a report those of the topology. A voter on a node that only this
    /// machine does not reach works.
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
        let stalled = self.leader_report(group).map(|report| &report.stalled[..]).unwrap_or_default();
        let works = |voter: &&u64| {
            if self.is_unreachable(**voter) {
                return !stalled.iter().any(|stalled| stalled.node == **voter);
            }
            let mut here = self.reports(group).filter(|(node, _)| node == *voter);
            let is_replaced = here.clone().any(|(_, report)| report.doubtful);
            here.any(|(node, report)| {
                let votes = report.role() != Role::Stopped && !(is_replaced && report.role() == Role::Learner);
                let is_stalled = stalled.iter().any(|stalled| stalled.replica == report.replica);
                votes && !is_stalled && self.follows(node, report)
            })
        };
        (voters.iter().filter(works).count(), voters.len())
    }

    /// The number of shards that a node leads.
    pub(crate) fn shards_led_by(&self, node: u64) -> usize {
        self.shard_ids().filter(|shard| self.leader(*shard) == Some(node)).count()
    }

    /// The entries that a node's slowest replica is behind its leader.
    pub(crate) fn lag_entries(&self, node: u64) -> Option<u64> {
        let (_, status) = self.nodes.iter().find(|(member, _)| member.id == node)?;
        let lag = |report: &ReplicaStatus| {
            let leader = self.reports(report.group).filter(|(_, other)| other.role() == Role::Leader);
            let last = leader.map(|(_, other)| other.last_log_index).max().unwrap_or(report.last_log_index);
            last.saturating_sub(report.applied_index)
        };
        status.as_ref()?.replicas.iter().filter(|report| !report.doubtful).map(lag).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::tests::{survey, unreachable};

    /// Of a cluster that works, this machine reaches one node: it is not without a quorum. (A status
    /// on the wrong side of a firewall once read UNAVAILABLE.)
    #[test]
    fn voters_that_are_unreachable_from_here_work() {
        let mut survey = unreachable(&[1, 3]);
        assert_eq!(survey.margin(1), Margin { spare: 1, complete: true, led: true });
        assert_eq!([1, 2].map(|shard| survey.leader(shard)), [Some(1), Some(2)]);
        assert!(!survey.is_cut_off(2), "it follows node 1");
        let stalled = quorate_proto::admin::StalledReplica { replica: 23, node: 3, entries: 9, stalled_ms: 60_000 };
        survey.nodes[1].1.as_mut().unwrap().replicas[2].stalled = vec![stalled];
        assert_eq!(survey.margin(2), Margin { spare: 0, complete: false, led: true });
    }

    #[test]
    fn a_healthy_cluster_survives_one_failure() {
        let survey = survey(&[]);
        for group in 0..=2 {
            assert_eq!(survey.margin(group), Margin { spare: 1, complete: true, led: true });
        }
        assert_eq!([1, 2].map(|shard| survey.leader(shard)), [Some(1), Some(2)]);
        assert_eq!([1, 2, 3].map(|node| survey.shards_led_by(node)), [1, 1, 0]);
        assert_eq!(survey.lag_entries(3), Some(3));
    }

    #[test]
    fn a_dead_follower_leaves_no_spare_voter() {
        let survey = survey(&[3]);
        assert_eq!(survey.margin(1), Margin { spare: 0, complete: false, led: true });
        assert_eq!(survey.lag_entries(3), None);
    }

    /// A node that responds, but does not know the leader, once counted as a working voter.
    #[test]
    fn a_node_that_is_cut_off_is_no_working_voter() {
        let mut survey = survey(&[]);
        for report in &mut survey.nodes[2].1.as_mut().unwrap().replicas {
            report.leader = 0;
        }
        assert_eq!(survey.margin(1), Margin { spare: 0, complete: false, led: true });
        assert_eq!([1, 2, 3].map(|node| survey.is_cut_off(node)), [false, false, true]);
        // Node 2 led shard 2 and still claims to; the others have elected node 1 since.
        for (node, status) in &mut survey.nodes {
            let report = &mut status.as_mut().unwrap().replicas[2];
            if node.id != 2 {
                (report.leader, report.term) = (1, 4);
            }
            report.role = if node.id == 3 { Role::Follower } else { Role::Leader }.into();
        }
        assert_eq!(survey.leader(2), Some(1));
        assert!(survey.is_cut_off(2));
    }

    #[test]
    fn a_group_without_a_quorum_has_no_leader() {
        let survey = survey(&[1, 3]);
        assert_eq!(survey.margin(1), Margin { spare: -1, complete: false, led: false });
        assert_eq!(survey.leader(1), None);
        // Node 2 claims to lead shard 2, without a majority that follows it.
        assert_eq!((survey.leader(2), survey.margin(2).led), (None, false));
    }
}
