//! One replica's log in memory: its marks, its newest entries, and the operations that the writer
//! makes durable.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_types::{Entry, GroupId, LogId, ReplicaId, Vote};

use super::reading::Reading;
use super::tail::{Tail, TailBudget};
use quorate_machine::log::{Extent, LogError, LogState};

/// One change of a replica's log, for the writer.
#[derive(Debug)]
pub(super) struct Operation {
    /// The replica.
    pub(super) replica: Arc<ReplicaLog>,
    /// Number of the operation; a replica's operations are numbered in call order.
    pub(super) number: u64,
    /// The change on disk.
    pub(super) change: Change,
    /// The commit mark, if it moved since the replica's last operation. It travels with an
    /// operation because it must not overtake one: written before a truncation, it would mark an
    /// entry as committed that is about to be deleted.
    pub(super) committed: Option<Option<LogId>>,
    /// The vote, if it was won since the replica's last operation.
    pub(super) won: Option<Vote>,
}

/// The change that an operation makes on disk.
#[derive(Debug)]
pub(super) enum Change {
    /// Create the replica.
    Create,
    /// Delete everything of the replica and write a tombstone.
    Destroy {
        /// Size of the deleted entries in bytes.
        freed: u64,
    },
    /// Append entries.
    Append(Vec<Entry>),
    /// Save a vote.
    Vote(Vote),
    /// Delete the entries at these indexes. None deletes nothing: the caller waits for its earlier
    /// operations.
    Truncate(Option<Range<u64>>),
    /// Delete the oldest entries and move the purge mark.
    Purge {
        /// The indexes of the deleted entries.
        gone: Range<u64>,
        /// The new purge mark.
        upto: LogId,
        /// Size of the deleted entries in bytes.
        freed: u64,
    },
    /// Mark the replica as doubtful.
    Doubtful,
    /// Write only the marks that travel with the operation.
    Mark,
}

/// One replica's log in memory.
#[derive(Debug)]
pub(super) struct ReplicaLog {
    pub(super) id: ReplicaId,
    pub(super) group: GroupId,
    budget: Arc<TailBudget>,
    inner: Mutex<Inner>,
}

/// # Invariants
/// * `sizes` has one size for each entry of `extent`.
/// * `tail` is empty or ends with the last entry of `extent`, and holds no purged entry.
#[derive(Debug)]
struct Inner {
    extent: Extent,
    tail: Tail,
    sizes: Sizes,
    /// The number of the last operation.
    operations: u64,
    /// The commit mark moved, and no operation carries the new mark yet.
    mark_moved: bool,
    /// The vote was won, and no operation carries that yet.
    vote_won: bool,
    cuts: u64,
    destroyed: bool,
}

/// The number of the operation that creates a replica.
const CREATION: u64 = 1;

impl ReplicaLog {
    /// A new replica; its creation will be the first operation.
    pub(super) fn new(id: ReplicaId, group: GroupId, budget: Arc<TailBudget>) -> Self {
        let inner = Inner {
            extent: Extent::default(),
            tail: Tail::new(),
            sizes: Sizes::default(),
            operations: 0,
            mark_moved: false,
            vote_won: false,
            cuts: 0,
            destroyed: false,
        };
        ReplicaLog { id, group, budget, inner: Mutex::new(inner) }
    }

    /// A replica found on disk with these marks; its entries must still be [`Self::load`]ed.
    pub(super) fn recovered(id: ReplicaId, group: GroupId, budget: Arc<TailBudget>, marks: LogState) -> Self {
        let replica = Self::new(id, group, budget);
        {
            let mut inner = replica.lock();
            inner.extent = Extent::empty_after(marks.purged);
            inner.extent.state.vote = marks.vote;
            inner.extent.state.committed = marks.committed;
            inner.extent.state.doubtful = marks.doubtful;
            inner.operations = CREATION;
            inner.tail.written(CREATION);
        }
        replica
    }

    /// Adds the next entry found on disk.
    pub(super) fn load(&self, entry: Entry) {
        let mut inner = self.lock();
        inner.extent.append(std::slice::from_ref(&entry));
        inner.sizes.push(entry.size_bytes());
        inner.tail.push(entry, CREATION);
        inner.tail.evict(self.budget.share());
    }

    /// Ends the loading: the commit mark must not be ahead of the entries.
    pub(super) fn loaded(&self) {
        let mut inner = self.lock();
        inner.extent.clamp_committed();
        inner.check();
    }

    /// The operation that creates the replica. May be repeated, because an earlier one may not be
    /// durable yet.
    pub(super) fn create(self: &Arc<Self>) -> Result<Operation, LogError> {
        self.operation(|_| Change::Create)
    }

    /// Whether the creation is durable.
    pub(super) fn is_durable(&self) -> bool {
        self.lock().tail.is_written(CREATION)
    }

    /// The operation that destroys the replica. Every later operation is refused.
    pub(super) fn destroy(self: &Arc<Self>) -> Result<Operation, LogError> {
        self.operation(|inner| {
            inner.destroyed = true;
            inner.cuts += 1;
            inner.tail.drop_from(0);
            Change::Destroy { freed: std::mem::take(&mut inner.sizes).total }
        })
    }

    pub(super) fn mark_doubtful(self: &Arc<Self>) -> Result<Operation, LogError> {
        self.operation(|inner| {
            inner.extent.state.doubtful = true;
            Change::Doubtful
        })
    }

    pub(super) fn append(self: &Arc<Self>, entries: Vec<Entry>) -> Result<Operation, LogError> {
        self.operation(|inner| {
            inner.extent.append(&entries);
            for entry in &entries {
                inner.sizes.push(entry.size_bytes());
                inner.tail.push(entry.clone(), inner.operations);
            }
            Change::Append(entries)
        })
    }

    pub(super) fn save_vote(self: &Arc<Self>, vote: Vote) -> Result<Operation, LogError> {
        self.operation(|inner| {
            inner.extent.state.vote = Some(vote);
            inner.vote_won = false;
            Change::Vote(vote)
        })
    }

    /// Marks the vote as won; the next operation carries that to disk.
    pub(super) fn vote_won(&self) {
        let mut inner = self.lock();
        let Some(vote) = &mut inner.extent.state.vote else { return };
        let news = !std::mem::replace(&mut vote.committed, true);
        inner.vote_won |= news;
    }

    pub(super) fn truncate_after(self: &Arc<Self>, last: Option<LogId>) -> Result<Operation, LogError> {
        self.operation(|inner| {
            let gone = inner.extent.truncate_after(last);
            if let Some(gone) = &gone {
                inner.cuts += 1;
                inner.tail.drop_from(gone.start);
                inner.sizes.drop_last(gone.end - gone.start);
            }
            Change::Truncate(gone)
        })
    }

    /// None if everything up to `upto` is purged already.
    pub(super) fn purge(self: &Arc<Self>, upto: LogId) -> Option<Operation> {
        let mut inner = self.lock();
        if inner.destroyed {
            return None;
        }
        let gone = inner.extent.purge(upto)?;
        inner.cuts += 1;
        inner.tail.drop_below(upto.index + 1);
        let freed = inner.sizes.drop_first(gone.end - gone.start);
        Some(inner.next_operation(self, |_| Change::Purge { gone, upto, freed }))
    }

    /// Moves the commit mark; the next operation carries it to disk.
    pub(super) fn save_committed(&self, committed: Option<LogId>) {
        let mut inner = self.lock();
        inner.mark_moved |= inner.extent.state.committed != committed;
        inner.extent.state.committed = committed;
    }

    /// An operation for marks that no other operation carries.
    pub(super) fn leftover_marks(self: &Arc<Self>) -> Option<Operation> {
        let mut inner = self.lock();
        ((inner.mark_moved || inner.vote_won) && !inner.destroyed).then(|| inner.next_operation(self, |_| Change::Mark))
    }

    /// The writer has written all operations up to this one.
    pub(super) fn written(&self, operation: u64) {
        let mut inner = self.lock();
        inner.tail.written(operation);
        inner.tail.evict(self.budget.share());
    }

    pub(super) fn state(&self) -> LogState {
        self.lock().extent.state
    }

    pub(super) fn retained_bytes(&self) -> u64 {
        self.lock().sizes.total
    }

    /// Counts truncations and purges. While it is unchanged, so are the entries on disk below the
    /// tail.
    pub(super) fn cuts(&self) -> u64 {
        self.lock().cuts
    }

    /// Reads the part of the range that the tail holds. If the start of the range is only on disk,
    /// reads nothing and returns the part to read from disk first.
    pub(super) fn read(&self, range: Range<u64>, reading: &mut Reading) -> Result<Option<Range<u64>>, LogError> {
        let inner = self.lock();
        if inner.destroyed {
            return Err(LogError::NoReplica(self.id));
        }
        let range = inner.extent.clamp(range);
        let warm = inner.tail.first().unwrap_or(inner.extent.next());
        if range.is_empty() {
            return Ok(None);
        }
        if range.start < warm {
            return Ok(Some(range.start..range.end.min(warm)));
        }
        for entry in inner.tail.from(range.start).take_while(|entry| entry.id.index < range.end) {
            if !reading.has_room(entry.size_bytes()) {
                break;
            }
            reading.push(entry.clone());
        }
        Ok(None)
    }

    fn operation(self: &Arc<Self>, change: impl FnOnce(&mut Inner) -> Change) -> Result<Operation, LogError> {
        let mut inner = self.lock();
        if inner.destroyed {
            return Err(LogError::NoReplica(self.id));
        }
        Ok(inner.next_operation(self, change))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a replica's log is in doubt after a panic in the middle of a change")
    }
}

impl Inner {
    fn next_operation(&mut self, replica: &Arc<ReplicaLog>, change: impl FnOnce(&mut Inner) -> Change) -> Operation {
        self.operations += 1;
        let change = change(self);
        if !self.destroyed {
            self.check();
        }
        let committed = std::mem::take(&mut self.mark_moved).then_some(self.extent.state.committed);
        let won = if std::mem::take(&mut self.vote_won) { self.extent.state.vote } else { None };
        Operation { replica: replica.clone(), number: self.operations, change, committed, won }
    }

    /// Checks the invariants, before an operation goes to the writer.
    fn check(&self) {
        let held = self.extent.clamp(0..u64::MAX);
        assert_eq!(self.sizes.each.len() as u64, held.end - held.start, "each entry of {held:?} has a size");
        assert!(self.tail.last().is_none_or(|last| last + 1 == held.end), "the tail ends with the log, {held:?}");
        assert!(self.tail.first().is_none_or(|first| first >= held.start), "the tail begins in the log, {held:?}");
    }
}

/// The size of each entry in the log. Four bytes per entry tell a purge how much it frees without a
/// read.
#[derive(Debug, Default)]
struct Sizes {
    each: VecDeque<u32>,
    total: u64,
}

impl Sizes {
    fn push(&mut self, size: usize) {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.each.push_back(size);
        self.total += u64::from(size);
    }

    fn drop_first(&mut self, count: u64) -> u64 {
        let count = self.count(count);
        let freed = self.each.drain(..count).map(u64::from).sum();
        self.total -= freed;
        if self.each.capacity() > 1024 && self.each.len() < self.each.capacity() / 8 {
            self.each.shrink_to(self.each.len() * 2);
        }
        freed
    }

    fn drop_last(&mut self, count: u64) {
        let keep = self.each.len() - self.count(count);
        self.total -= self.each.drain(keep..).map(u64::from).sum::<u64>();
    }

    fn count(&self, count: u64) -> usize {
        usize::try_from(count).unwrap_or(usize::MAX).min(self.each.len())
    }
}
