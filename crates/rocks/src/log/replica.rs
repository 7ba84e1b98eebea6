//! One replica's log in memory: where it stands, its newest entries, and the operations that the writer makes durable.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_types::{Entry, GroupId, LogId, ReplicaId, Vote};

use super::tail::{Tail, TailBudget};
use quorate_machine::log::Extent;
use quorate_machine::log::{LogError, LogState};

/// One thing that a replica did, for the writer.
#[derive(Debug)]
pub(super) struct Operation {
    /// Who did it.
    pub(super) replica: Arc<Replica>,
    /// The replica's operations are numbered in the order in which they were done.
    pub(super) number: u64,
    /// What is to change on disk.
    pub(super) change: Change,
    /// The commit mark, where it moved since the replica's last operation. It must not overtake an operation: ahead of a
    /// truncation it would declare an entry committed that is about to go.
    pub(super) committed: Option<Option<LogId>>,
    /// The vote, where it was won since the replica's last operation.
    pub(super) won: Option<Vote>,
}

/// What an operation changes on disk.
#[derive(Debug)]
pub(super) enum Change {
    /// The replica exists.
    Create,
    /// Everything of the replica goes, a tombstone stays.
    Destroy {
        /// Bytes of the entries that go.
        freed: u64,
    },
    /// New entries.
    Append(Vec<Entry>),
    /// A vote.
    Vote(Vote),
    /// The entries of these indexes go. None where there were none: the caller waits for what it did before.
    Truncate(Option<Range<u64>>),
    /// The oldest entries go, and the purge mark moves.
    Purge {
        /// The indexes of the entries that go.
        gone: Range<u64>,
        /// The mark.
        upto: LogId,
        /// Bytes of the entries that go.
        freed: u64,
    },
    /// Nothing but the marks that go along.
    Mark,
}

/// What a read of the log collects, up to a bound.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) entries: Vec<Entry>,
    bytes: usize,
    bytes_max: usize,
}

impl Reading {
    pub(super) fn new(bytes_max: usize) -> Self {
        Reading { entries: Vec::new(), bytes: 0, bytes_max }
    }

    /// Whether an entry of that size still belongs in. The first always does.
    pub(super) fn has_room(&self, size: usize) -> bool {
        self.entries.is_empty() || self.bytes + size <= self.bytes_max
    }

    /// Adds an entry, for which there is room.
    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += entry.size_bytes();
        self.entries.push(entry);
    }
}

/// One replica's log in memory.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) id: ReplicaId,
    pub(super) group: GroupId,
    budget: Arc<TailBudget>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    extent: Extent,
    tail: Tail,
    sizes: Sizes,
    /// The number of the last operation.
    operations: u64,
    /// The commit mark moved and no operation has taken it along yet.
    mark_moved: bool,
    /// The vote was won and no operation has taken that along yet.
    vote_won: bool,
    cuts: u64,
    destroyed: bool,
}

/// The number of the operation that creates a replica.
const CREATION: u64 = 1;

impl Replica {
    /// A replica whose creation is the next operation.
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
        Replica { id, group, budget, inner: Mutex::new(inner) }
    }

    /// A replica that was found on disk with these marks, and whose entries are still to be [`Self::load`]ed.
    pub(super) fn recovered(id: ReplicaId, group: GroupId, budget: Arc<TailBudget>, marks: LogState) -> Self {
        let replica = Self::new(id, group, budget);
        {
            let mut inner = replica.lock();
            inner.extent = Extent::empty_after(marks.purged);
            inner.extent.state.vote = marks.vote;
            inner.extent.state.committed = marks.committed;
            inner.operations = CREATION;
            inner.tail.written(CREATION);
        }
        replica
    }

    /// Takes the next entry that was found on disk.
    pub(super) fn load(&self, entry: Entry) {
        let mut inner = self.lock();
        inner.extent.append(std::slice::from_ref(&entry));
        inner.sizes.push(entry.size_bytes());
        inner.tail.push(entry, CREATION);
        inner.tail.evict(self.budget.share());
    }

    /// All entries are loaded: the commit mark must not be ahead of them.
    pub(super) fn loaded(&self) {
        self.lock().extent.clamp_committed();
    }

    /// The creation, also when it was done before and is perhaps not durable yet.
    pub(super) fn create(self: &Arc<Self>) -> Result<Operation, LogError> {
        self.operation(|_| Change::Create)
    }

    /// Whether the creation is durable.
    pub(super) fn is_durable(&self) -> bool {
        self.lock().tail.is_written(CREATION)
    }

    /// The end. Whatever is asked of the replica afterwards is refused.
    pub(super) fn destroy(self: &Arc<Self>) -> Result<Operation, LogError> {
        self.operation(|inner| {
            inner.destroyed = true;
            inner.cuts += 1;
            inner.tail.drop_from(0);
            Change::Destroy { freed: std::mem::take(&mut inner.sizes).total }
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

    /// The vote was won; the next operation takes that along.
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

    /// None where all of that is purged already.
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

    /// Moves the commit mark; the next operation takes it along.
    pub(super) fn save_committed(&self, committed: Option<LogId>) {
        let mut inner = self.lock();
        inner.mark_moved |= inner.extent.state.committed != committed;
        inner.extent.state.committed = committed;
    }

    /// An operation for marks that none has taken along.
    pub(super) fn leftover_marks(self: &Arc<Self>) -> Option<Operation> {
        let mut inner = self.lock();
        ((inner.mark_moved || inner.vote_won) && !inner.destroyed).then(|| inner.next_operation(self, |_| Change::Mark))
    }

    /// The writer has made everything up to this operation durable, or at least written it.
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

    /// Counts truncations and purges: while it stays the same, what is on disk below the tail stays the same.
    pub(super) fn cuts(&self) -> u64 {
        self.lock().cuts
    }

    /// Takes what the tail has of the range; or takes nothing and gives what must be read from disk before the tail can go on.
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
    fn next_operation(&mut self, replica: &Arc<Replica>, change: impl FnOnce(&mut Inner) -> Change) -> Operation {
        self.operations += 1;
        let change = change(self);
        let committed = std::mem::take(&mut self.mark_moved).then_some(self.extent.state.committed);
        let won = if std::mem::take(&mut self.vote_won) { self.extent.state.vote } else { None };
        Operation { replica: replica.clone(), number: self.operations, change, committed, won }
    }
}

/// The size of each entry that the log holds: four bytes an entry, so that a purge knows what it freed without a read.
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
