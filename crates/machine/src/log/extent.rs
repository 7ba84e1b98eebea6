//! The range of entries that a replica's log holds: pure arithmetic on [`LogState`], used by both
//! logs.
//!
//! ```text
//!      purged          first                     last
//!        ▼               ▼                         ▼
//!   … ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌┃ entries of this log, no holes ┃ next append
//! ```

use std::ops::Range;

use quorate_types::{Entry, LogId};

use super::LogState;

/// The bounds of a replica's log.
///
/// # Invariants
/// * `first ≤ next()`; the log is empty if they are equal.
/// * After a purge, `first` is the index after the purged one. If the log is then empty, `last` is
///   the purged entry.
#[derive(Clone, Debug, Default)]
pub struct Extent {
    /// The marks that the trait exposes.
    pub state: LogState,
    first: u64,
}

impl Extent {
    /// The extent of a log with known marks whose entries are still to be appended.
    pub fn empty_after(purged: Option<LogId>) -> Self {
        let state = LogState { purged, last: purged, ..LogState::default() };
        Extent { state, first: purged.map_or(0, |id| id.index + 1) }
    }

    /// The index after the last entry.
    pub fn next(&self) -> u64 {
        self.state.last.map_or(self.first, |id| id.index + 1)
    }

    /// The part of `range` that the log holds.
    pub fn clamp(&self, range: Range<u64>) -> Range<u64> {
        let start = range.start.max(self.first);
        start..range.end.min(self.next()).max(start)
    }

    /// Lowers the commit mark to the end of the log after a restart. The mark was saved after its
    /// entry was appended, so a mark beyond the end shows that durable entries were lost: the
    /// replica is doubtful.
    pub fn clamp_committed(&mut self) {
        let LogState { committed, last, .. } = self.state;
        if committed.is_some_and(|committed| last.is_none_or(|last| committed.index > last.index)) {
            self.state.committed = last;
            self.state.doubtful = true;
        }
    }

    /// Appends entries that follow the last one. A hole is a bug of the caller; it panics before
    /// the entry reaches the disk.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(head) = entries.first() else { return };
        if self.state.last.is_none() {
            self.first = head.id.index;
        }
        for entry in entries {
            assert_eq!(entry.id.index, self.next(), "an append must follow the last entry");
            self.state.last = Some(entry.id);
        }
        self.check();
    }

    /// Removes the entries after `last` and returns their indexes, if there are any.
    pub fn truncate_after(&mut self, last: Option<LogId>) -> Option<Range<u64>> {
        let start = last.map_or(0, |id| id.index + 1).max(self.first);
        let end = self.next();
        if start >= end {
            return None;
        }
        self.state.last = if start == self.first { self.state.purged } else { last };
        self.check();
        Some(start..end)
    }

    /// Removes the entries up to and including `upto`, which may be beyond the end, and returns the
    /// indexes of those removed. None if everything up to `upto` is purged already.
    pub fn purge(&mut self, upto: LogId) -> Option<Range<u64>> {
        if self.state.purged.is_some_and(|purged| upto.index <= purged.index) {
            return None;
        }
        let (first, next) = (self.first, self.next());
        self.first = upto.index + 1;
        self.state.purged = Some(upto);
        if upto.index + 1 >= next {
            self.state.last = Some(upto);
        }
        self.check();
        Some(first..next.min(self.first).max(first))
    }

    /// Checks the invariants after a change.
    fn check(&self) {
        let LogState { purged, last, .. } = self.state;
        assert!(self.first <= self.next(), "the log begins at {} and ends before {}", self.first, self.next());
        assert!(purged.is_none_or(|purged| self.first == purged.index + 1), "the log begins after {purged:?}");
        assert!(self.first < self.next() || last == purged, "an empty log ends with the purged entry");
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{Payload, ReplicaId};

    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId { term, leader: ReplicaId(1), index }
    }

    fn filled(indexes: Range<u64>) -> Extent {
        let mut extent = Extent::default();
        extent.append(&indexes.map(|i| Entry { id: id(1, i), payload: Payload::Blank }).collect::<Vec<_>>());
        extent
    }

    /// Checks the bounds after each kind of cut.
    #[test]
    fn cuts_move_the_bounds() {
        let mut extent = filled(0..10);
        assert_eq!(extent.purge(id(1, 3)), Some(0..4));
        assert_eq!(extent.purge(id(1, 2)), None);
        assert_eq!(extent.truncate_after(Some(id(1, 7))), Some(8..10));
        assert_eq!(extent.truncate_after(Some(id(1, 7))), None);
        assert_eq!((extent.first, extent.next()), (4, 8));
        assert_eq!(extent.clamp(0..100), 4..8);
        assert_eq!(extent.clamp(50..100), 50..50);
        assert_eq!(extent.truncate_after(None), Some(4..8));
        assert_eq!(extent.state.last, Some(id(1, 3)));
        assert_eq!(extent.purge(id(2, 20)), Some(4..4));
        assert_eq!((extent.first, extent.next(), extent.state.last), (21, 21, Some(id(2, 20))));
    }

    /// A log that was never purged may start at any index again once it is empty.
    #[test]
    fn empty_log_may_start_at_any_index() {
        let mut extent = filled(3..5);
        assert_eq!(extent.truncate_after(None), Some(3..5));
        extent.append(&[Entry { id: id(2, 1), payload: Payload::Blank }]);
        assert_eq!((extent.first, extent.next()), (1, 2));
    }

    /// A commit mark beyond the end of the log is lowered, and shows that entries were lost.
    #[test]
    fn commit_mark_beyond_the_end_shows_lost_entries() {
        let mut extent = filled(0..5);
        extent.state.committed = Some(id(1, 4));
        extent.clamp_committed();
        assert!(!extent.state.doubtful);
        extent.state.committed = Some(id(1, 5));
        extent.clamp_committed();
        assert_eq!((extent.state.committed, extent.state.doubtful), (Some(id(1, 4)), true));
    }

    #[test]
    #[should_panic(expected = "must follow")]
    fn append_with_a_hole_panics() {
        let mut extent = filled(0..2);
        extent.append(&[Entry { id: id(1, 3), payload: Payload::Blank }]);
    }
}
