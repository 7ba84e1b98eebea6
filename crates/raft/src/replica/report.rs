//! The report of a replica to the reconciler.

use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use quorate_types::ReplicaId;
use quorate_types::report::{Follower, ReplicaReport};
use tokio::time::Instant;

use super::Replica;
use crate::convert;
use crate::core::Core;

/// A follower counts as responsive if it acknowledged a heartbeat within this many milliseconds.
const ANSWERS_MS_MAX: u64 = 1_000;

impl Replica {
    /// Records the approximate size of its state, for its reports.
    pub(crate) fn set_state_bytes(&self, bytes: u64) {
        self.core.progress.set_state_bytes(bytes);
    }

    /// Its report to the reconciler; a leader reports its followers too. Each report is also a look
    /// at the members that do not catch up.
    pub(crate) fn report(&self) -> ReplicaReport {
        let Core { group, replica, raft, log, progress, .. } = &self.core;
        let log = log.state(*replica).unwrap_or_default();
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let acked = metrics.heartbeat.as_ref();
        let answers = |id: &u64| {
            let last = acked.and_then(|acked| acked.get(id)).and_then(|time| time.as_ref());
            last.is_some_and(|time| time.elapsed() < Duration::from_millis(ANSWERS_MS_MAX))
        };
        let others = metrics.replication.iter().flatten().filter(|(id, _)| **id != replica.0);
        let report = ReplicaReport {
            group: *group,
            replica: *replica,
            role: convert::role(metrics.state),
            term: metrics.vote.leader_id.term,
            last_index: log.last.map_or(0, |last| last.index),
            members: convert::our_stored_membership(&metrics.membership_config),
            applied_members: progress.applied().snapshot_meta().membership,
            doubtful: false,
            others: others
                .map(|(id, matched)| Follower {
                    replica: ReplicaId(*id),
                    matched_index: matched.as_ref().map_or(0, |matched| matched.index),
                    answers: answers(id),
                    snapshot_failure: None,
                })
                .collect(),
            bytes: progress.state_bytes(),
        };
        self.stalls.observe(&report, Instant::now());
        report
    }
}
