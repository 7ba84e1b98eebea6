//! Replicas that do not take part in their group although their node answers: doubtful ones, and
//! those that do not catch up.

use std::fmt;
use std::time::Duration;

use quorate_proto::admin::ReplicaStatus;
use quorate_proto::kv::Role;
use serde::Serialize;

use crate::duration;
use crate::output::id;
use crate::survey::Survey;

/// A replica that does not take part in its group. Displays as a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct IdleReplica {
    /// 0: the topology group.
    pub(crate) group: u32,
    #[serde(serialize_with = "id")]
    pub(crate) replica: u64,
    #[serde(serialize_with = "id")]
    pub(crate) node: u64,
    #[serde(flatten)]
    pub(crate) reason: Reason,
}

/// Why a replica does not take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "lowercase")]
pub(crate) enum Reason {
    /// It lost log entries that it had confirmed.
    Doubtful,
    /// It is behind, and makes no progress.
    Stalled {
        /// The entries that it lacks.
        entries: u64,
        stalled_ms: u64,
    },
}

impl fmt::Display for IdleReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node;
        match self.group {
            0 => f.write_str("the topology group")?,
            shard => write!(f, "shard {shard}")?,
        }
        match self.reason {
            Reason::Doubtful => write!(f, ": the replica on node {node} lost log entries that it had confirmed"),
            Reason::Stalled { entries, stalled_ms } => {
                let since = duration::rough(Duration::from_millis(stalled_ms));
                write!(f, ": the replica on node {node} is {entries} entries behind, without progress for {since}")
            }
        }
    }
}

impl Survey {
    /// The replicas that lost log entries that they had confirmed.
    pub(crate) fn doubtful(&self) -> Vec<IdleReplica> {
        let of_group = |group| {
            self.reports(group).filter(|(_, report)| report.doubtful).map(move |(node, report)| IdleReplica {
                group,
                replica: report.replica,
                node,
                reason: Reason::Doubtful,
            })
        };
        self.groups().flat_map(of_group).collect()
    }

    /// The replicas that do not catch up, as their leaders report them. Those on nodes that do not
    /// answer and doubtful ones are left out: both are reported for that.
    pub(crate) fn stalled(&self) -> Vec<IdleReplica> {
        let known: Vec<u64> = self.doubtful().iter().map(|idle| idle.replica).collect();
        let answers = |node: u64| self.nodes.iter().any(|(known, status)| known.id == node && status.is_some());
        let of_group = |group| {
            let stalled = self.leader_report(group).map(|report| &report.stalled[..]).unwrap_or_default();
            stalled.iter().map(move |stalled| IdleReplica {
                group,
                replica: stalled.replica,
                node: stalled.node,
                reason: Reason::Stalled { entries: stalled.entries, stalled_ms: stalled.stalled_ms },
            })
        };
        let all = self.groups().flat_map(of_group);
        all.filter(|idle| answers(idle.node) && !known.contains(&idle.replica)).collect()
    }

    /// The report of the replica that leads a group; of several, the one with the highest term.
    pub(crate) fn leader_report(&self, group: u32) -> Option<&ReplicaStatus> {
        let leaders = self.reports(group).filter(|(_, report)| report.role() == Role::Leader);
        leaders.max_by_key(|(_, report)| report.term).map(|(_, report)| report)
    }

    fn groups(&self) -> impl Iterator<Item = u32> {
        [0].into_iter().chain(self.shard_ids())
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::admin::StalledReplica;

    use super::*;
    use crate::quorum::Margin;
    use crate::survey::tests::{doubtful_on, survey};

    #[test]
    fn doubtful_replica_does_not_count_and_is_named() {
        let survey = doubtful_on(3, 1);
        let found: Vec<String> = survey.doubtful().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["shard 1: the replica on node 3 lost log entries that it had confirmed"]);
        assert_eq!(survey.margin(1), Margin { spare: 0, complete: false, led: true });
        assert_eq!(survey.margin(2), Margin { spare: 1, complete: true, led: true });
        assert!(!survey.is_cut_off(3), "its network is fine");
        assert_eq!(survey.lag_entries(3), Some(3), "it will never catch up, so its lag says nothing");
    }

    /// The new replica on the same node does not vote yet.
    #[test]
    fn successor_of_a_doubtful_replica_counts_once_it_votes() {
        let mut survey = doubtful_on(3, 1);
        let replicas = &mut survey.nodes[2].1.as_mut().unwrap().replicas;
        let learner = ReplicaStatus {
            group: 1,
            replica: 99,
            role: Role::Learner.into(),
            term: 3,
            leader: 1,
            ..ReplicaStatus::default()
        };
        replicas.push(learner);
        assert_eq!(survey.margin(1).spare, 0);
    }

    #[test]
    fn replica_that_does_not_catch_up_is_named() {
        let mut survey = survey(&[]);
        let stalled = StalledReplica { replica: 23, node: 3, entries: 120, stalled_ms: 45_000 };
        let led = |report: &&mut ReplicaStatus| report.group == 2;
        survey.nodes[1].1.as_mut().unwrap().replicas.iter_mut().find(led).unwrap().stalled = vec![stalled];
        let found: Vec<String> = survey.stalled().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["shard 2: the replica on node 3 is 120 entries behind, without progress for 45s"]);
        assert_eq!(survey.margin(2), Margin { spare: 0, complete: false, led: true });
        survey.nodes[2].1 = None;
        assert!(survey.stalled().is_empty(), "its node is down");
    }
}
