//! The entries that another replica confirmed as durable, as this replica remembers them.
//!
//! A replica that refuses an append after an entry that it had confirmed has lost that entry.
//! openraft must not see such a refusal: a debug build panics on it, and a release build sends the
//! same entries without end while it counts the replica as healthy. So the link to that replica
//! keeps the refusal to itself, tells the replica, and sends nothing else to it. The same holds for
//! a voter whose log ends before a committed entry that it had confirmed: its vote does not count.
//!
//! ```text
//!   confirmed in this leadership   the follower's log is not cut below it while the leader leads
//!   confirmed and committed        holds for good, also for later leaders
//! ```

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use quorate_types::{LogId, Vote};
use tokio::time::Instant;

/// Pause between two messages that tell a replica of its lost entries: the first one may be lost.
const TELL_PERIOD: Duration = Duration::from_secs(2);

/// The entries that another replica of the group confirmed, and whether it lost them.
///
/// # Invariants
/// * `committed` never decreases, and `in_leadership` never decreases under one vote.
/// * A replica that lost entries is never trusted again.
#[derive(Default)]
pub(crate) struct Acknowledged(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    /// The vote of the last leadership here, and the last entry confirmed to it.
    in_leadership: Option<(Vote, LogId)>,
    /// The last entry that was confirmed and is committed.
    committed: Option<LogId>,
    distrust: Option<Distrust>,
}

/// Why a replica is not trusted.
#[derive(Clone, Copy)]
enum Distrust {
    /// It lost this entry, and was last told so then.
    Lost { confirmed: LogId, told_at: Instant },
    /// Its node says so.
    Doubtful,
}

impl Acknowledged {
    /// Records that the replica confirmed every entry up to `matched` to the leader with this vote,
    /// which knew `commit` as committed.
    pub(crate) fn confirm(&self, vote: Vote, matched: Option<LogId>, commit: Option<LogId>) {
        let Some(matched) = matched else { return };
        let mut memory = self.lock();
        match memory.in_leadership {
            Some((known, last)) if known.term > vote.term || (known == vote && last.index >= matched.index) => {}
            _ => memory.in_leadership = Some((vote, matched)),
        }
        let lasting = commit.map(|commit| if commit.index < matched.index { commit } else { matched });
        assert!(lasting.is_none_or(|id| id.index <= matched.index), "only confirmed entries are remembered");
        if lasting.map(|id| id.index) > memory.committed.map(|id| id.index) {
            memory.committed = lasting;
        }
    }

    /// The last entry that the replica must have when it handles a request which is sent now: by
    /// the leader with this vote, or by a candidate. Take it before the request is sent: an answer
    /// may arrive after later confirmations.
    pub(crate) fn known(&self, leader: Option<Vote>) -> Option<LogId> {
        let memory = self.lock();
        let in_leadership = memory.in_leadership.filter(|(vote, _)| Some(*vote) == leader).map(|(_, last)| last);
        [in_leadership, memory.committed].into_iter().flatten().max_by_key(|id| id.index)
    }

    /// The replica lost entries up to this one, which it had confirmed: it is not trusted from now
    /// on.
    pub(crate) fn lost(&self, confirmed: LogId, now: Instant) {
        self.lock().distrust = Some(Distrust::Lost { confirmed, told_at: now });
    }

    /// The replica's node says that it is doubtful: its mark is durable, and it need not be told
    /// again.
    pub(crate) fn set_doubtful(&self) {
        self.lock().distrust = Some(Distrust::Doubtful);
    }

    /// Whether the replica can be sent anything.
    pub(crate) fn is_trusted(&self) -> bool {
        self.lock().distrust.is_none()
    }

    /// The entry that the replica must be told about again; none if it is not due.
    pub(crate) fn due(&self, now: Instant) -> Option<LogId> {
        let mut memory = self.lock();
        let Some(Distrust::Lost { confirmed, told_at }) = &mut memory.distrust else { return None };
        if now < *told_at + TELL_PERIOD {
            return None;
        }
        *told_at = now;
        Some(*confirmed)
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().expect("only a broken invariant poisons this lock")
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::ReplicaId;

    use super::*;

    fn vote(term: u64) -> Vote {
        Vote { term, candidate: ReplicaId(1), committed: true }
    }

    fn id(term: u64, index: u64) -> LogId {
        LogId { term, leader: ReplicaId(1), index }
    }

    /// Within one leadership an entry stays known once it is confirmed.
    #[test]
    fn confirmed_entries_are_known_to_their_leader() {
        let known = Acknowledged::default();
        assert_eq!(known.known(Some(vote(3))), None);
        known.confirm(vote(3), Some(id(3, 10)), None);
        known.confirm(vote(3), Some(id(3, 8)), None);
        assert_eq!(known.known(Some(vote(3))), Some(id(3, 10)));
    }

    /// Another leader may have cut entries that were not committed; committed ones stay.
    #[test]
    fn only_committed_entries_outlive_a_leadership() {
        let known = Acknowledged::default();
        known.confirm(vote(3), Some(id(3, 10)), Some(id(3, 6)));
        known.confirm(vote(3), Some(id(3, 5)), Some(id(3, 9)));
        assert_eq!(known.known(Some(vote(3))), Some(id(3, 10)));
        assert_eq!(known.known(Some(vote(5))), Some(id(3, 6)));
        assert_eq!(known.known(None), Some(id(3, 6)));
    }

    /// An answer to an earlier leadership of this replica counts for that leadership only.
    #[test]
    fn late_answer_to_an_earlier_leadership_counts_for_nothing() {
        let known = Acknowledged::default();
        known.confirm(vote(5), Some(id(5, 4)), None);
        known.confirm(vote(3), Some(id(3, 10)), None);
        assert_eq!(known.known(Some(vote(5))), Some(id(5, 4)));
        assert_eq!(known.known(Some(vote(3))), None);
    }

    /// A replica that lost entries gets the message again, until it says itself that it is
    /// doubtful.
    #[test]
    fn replica_is_told_again_until_it_knows() {
        let (known, now) = (Acknowledged::default(), Instant::now());
        assert!(known.is_trusted());
        known.lost(id(3, 10), now);
        assert!(!known.is_trusted());
        assert_eq!(known.due(now), None);
        assert_eq!(known.due(now + TELL_PERIOD), Some(id(3, 10)));
        assert_eq!(known.due(now + TELL_PERIOD), None);
        known.set_doubtful();
        assert_eq!(known.due(now + 9 * TELL_PERIOD), None);
        assert!(!known.is_trusted());
    }
}
