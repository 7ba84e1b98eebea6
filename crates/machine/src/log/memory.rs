//! The log in memory: the twin of `RocksLog` for tests and the simulation. It separates written
//! from durable, so that a test can crash it between the two.
//!
//! ```text
//!   call ──→ now (visible to readers)    crash: now = durable, pending is dropped
//!     └────→ pending ── sync ──→ durable, and the Dones are called
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use quorate_types::{Entry, GroupId, LogId, ReplicaId, Vote};

use super::extent::Extent;
use super::{Done, Log, LogError, LogState};

/// The [`Log`] of a node, in memory.
///
/// # Invariants
/// * `durable` with all pending changes applied equals `now` (held by the test
///   `pending_changes_lead_from_durable_to_now`).
pub struct MemoryLog {
    auto_sync: bool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    now: Disk,
    durable: Disk,
    pending: VecDeque<Pending>,
    closed: bool,
}

/// A pending change of a replica, and its completion callback.
struct Pending {
    replica: ReplicaId,
    change: Change,
    done: Option<Done>,
}

#[derive(Clone)]
enum Change {
    Create(GroupId),
    Destroy,
    Append(Vec<Entry>),
    Vote(Vote),
    VoteWon,
    Truncate(Option<LogId>),
    Purge(LogId),
    Committed(Option<LogId>),
    Doubtful,
}

/// The logs of all replicas at one point in time.
#[derive(Clone, Default)]
struct Disk {
    replicas: BTreeMap<ReplicaId, ReplicaLog>,
    destroyed: BTreeSet<ReplicaId>,
}

#[derive(Clone)]
struct ReplicaLog {
    group: GroupId,
    extent: Extent,
    entries: VecDeque<Entry>,
}

impl MemoryLog {
    /// Creates an empty log. With `auto_sync`, each call is durable on return; otherwise after
    /// [`Self::sync`].
    pub fn new(auto_sync: bool) -> Self {
        MemoryLog { auto_sync, inner: Mutex::default() }
    }

    /// Number of calls that are not durable yet.
    pub fn pending(&self) -> usize {
        self.lock().pending.len()
    }

    /// Makes all pending changes durable and calls their [`Done`]s in order.
    pub fn sync(&self) {
        let dones = self.lock().sync();
        dones.into_iter().for_each(|done| done(Ok(())));
    }

    /// Makes the first `count` pending changes durable and calls their [`Done`]s in order, like a
    /// sync that began when there were only `count`.
    pub fn sync_first(&self, count: usize) {
        let dones = self.lock().sync_first(count);
        dones.into_iter().for_each(|done| done(Ok(())));
    }

    /// The marks that the replica's log would have after [`Self::crash`].
    pub fn durable_state(&self, replica: ReplicaId) -> Option<LogState> {
        self.lock().durable.replicas.get(&replica).map(|replica| replica.extent.state)
    }

    /// The id of an entry that would survive [`Self::crash`]; none if the entry is not durable, or
    /// purged.
    pub fn durable_id(&self, replica: ReplicaId, index: u64) -> Option<LogId> {
        let inner = self.lock();
        let entries = &inner.durable.replicas.get(&replica)?.entries;
        let first = entries.front()?.id.index;
        let place = usize::try_from(index.checked_sub(first)?).ok()?;
        entries.get(place).map(|entry| entry.id)
    }

    /// Simulates a power failure: pending changes are lost and their [`Done`]s never called.
    /// Reopens a closed log.
    pub fn crash(&self) {
        self.crash_after(0);
    }

    /// Like [`Self::crash`], but the first `count` pending changes survive, although their
    /// [`Done`]s are never called.
    pub fn crash_after(&self, count: usize) {
        let mut inner = self.lock();
        let lost = {
            let Inner { durable, pending, .. } = &mut *inner;
            let kept = count.min(pending.len());
            pending.drain(..kept).for_each(|kept| durable.apply(kept.replica, kept.change));
            std::mem::take(pending)
        };
        inner.durable.replicas.values_mut().for_each(|replica| replica.extent.clamp_committed());
        inner.now = inner.durable.clone();
        inner.closed = false;
        drop(inner);
        // Dropping a `Done` may run its owner's code, so drop them outside the lock.
        drop(lost);
    }

    /// Simulates a disk that lied about its syncs: after a crash, the last `count` durable entries
    /// of a replica are gone as well, with the commit mark that came after them. Returns the number
    /// of entries lost: purged ones are not.
    pub fn lose_last(&self, replica: ReplicaId, count: usize) -> usize {
        let mut inner = self.lock();
        assert!(inner.pending.is_empty(), "a disk loses entries in a crash");
        let Some(held) = inner.durable.replicas.get_mut(&replica) else { return 0 };
        let kept = held.entries.len().saturating_sub(count);
        let lost = held.entries.len() - kept;
        let last = if kept == 0 { held.extent.state.purged } else { Some(held.entries[kept - 1].id) };
        held.apply(Change::Truncate(last));
        held.extent.state.committed = held.extent.state.committed.min(held.extent.state.last);
        inner.now = inner.durable.clone();
        lost
    }

    /// Executes a call if `check` allows it.
    fn call(
        &self,
        replica: ReplicaId,
        change: Change,
        done: Option<Done>,
        check: impl FnOnce(&Disk) -> Result<(), LogError>,
    ) {
        let mut inner = self.lock();
        let refusal = if inner.closed { Err(LogError::Closed) } else { check(&inner.now) };
        if let Err(error) = refusal {
            drop(inner);
            return done.into_iter().for_each(|done| done(Err(error.clone())));
        }
        inner.now.apply(replica, change.clone());
        inner.pending.push_back(Pending { replica, change, done });
        if self.auto_sync {
            let dones = inner.sync();
            drop(inner);
            dones.into_iter().for_each(|done| done(Ok(())));
        }
    }

    /// Like [`Self::call`], and durable on return.
    fn call_and_sync(
        &self,
        replica: ReplicaId,
        change: Change,
        check: impl FnOnce(&Disk) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let done: Done = Box::new(move |result| {
            // The receiver waits right below.
            let _ = sender.send(result);
        });
        self.call(replica, change, Some(done), check);
        self.sync();
        receiver.recv().unwrap_or(Err(LogError::Closed))
    }

    /// Reads from a replica's current log.
    fn look<T>(&self, replica: ReplicaId, look: impl FnOnce(&ReplicaLog) -> T) -> Result<T, LogError> {
        let inner = self.lock();
        if inner.closed {
            return Err(LogError::Closed);
        }
        inner.now.replicas.get(&replica).map(look).ok_or(LogError::NoReplica(replica))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a log is in doubt after a panic in the middle of a change")
    }
}

impl Log for MemoryLog {
    fn create(&self, replica: ReplicaId, group: GroupId) -> Result<(), LogError> {
        self.call_and_sync(replica, Change::Create(group), |now| {
            if now.destroyed.contains(&replica) {
                return Err(LogError::NoReplica(replica));
            }
            match now.replicas.get(&replica) {
                Some(there) if there.group != group => Err(LogError::OtherGroup { replica, group: there.group }),
                _ => Ok(()),
            }
        })
    }

    fn destroy(&self, replica: ReplicaId) -> Result<(), LogError> {
        self.call_and_sync(replica, Change::Destroy, |_| Ok(()))
    }

    fn mark_doubtful(&self, replica: ReplicaId) -> Result<(), LogError> {
        self.call_and_sync(replica, Change::Doubtful, |now| now.exists(replica))
    }

    fn replicas(&self) -> Vec<(ReplicaId, GroupId)> {
        self.lock().now.replicas.iter().map(|(id, replica)| (*id, replica.group)).collect()
    }

    fn state(&self, replica: ReplicaId) -> Result<LogState, LogError> {
        self.look(replica, |replica| replica.extent.state)
    }

    fn append(&self, replica: ReplicaId, entries: Vec<Entry>, done: Done) {
        self.call(replica, Change::Append(entries), Some(done), |now| now.exists(replica));
    }

    fn save_vote(&self, replica: ReplicaId, vote: Vote, done: Done) {
        self.call(replica, Change::Vote(vote), Some(done), |now| now.exists(replica));
    }

    fn vote_won(&self, replica: ReplicaId) {
        self.call(replica, Change::VoteWon, None, |now| now.exists(replica));
    }

    fn truncate_after(&self, replica: ReplicaId, last: Option<LogId>, done: Done) {
        self.call(replica, Change::Truncate(last), Some(done), |now| now.exists(replica));
    }

    fn purge(&self, replica: ReplicaId, upto: LogId) {
        self.call(replica, Change::Purge(upto), None, |now| now.exists(replica));
    }

    fn save_committed(&self, replica: ReplicaId, committed: Option<LogId>) {
        self.call(replica, Change::Committed(committed), None, |now| now.exists(replica));
    }

    fn entries(&self, replica: ReplicaId, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        self.look(replica, |replica| replica.read(range, bytes_max))
    }

    fn retained_bytes(&self, replica: ReplicaId) -> u64 {
        self.look(replica, |replica| replica.entries.iter().map(|entry| entry.size_bytes() as u64).sum()).unwrap_or(0)
    }

    fn queued_bytes(&self) -> usize {
        let waiting = |pending: &Pending| match &pending.change {
            Change::Append(entries) => entries.iter().map(Entry::size_bytes).sum(),
            _ => 0,
        };
        self.lock().pending.iter().map(waiting).sum()
    }

    fn close(&self) {
        self.sync();
        self.lock().closed = true;
    }
}

impl Inner {
    /// Makes all pending changes durable and returns their callbacks.
    fn sync(&mut self) -> Vec<Done> {
        self.sync_first(self.pending.len())
    }

    fn sync_first(&mut self, count: usize) -> Vec<Done> {
        let mut dones = Vec::new();
        for pending in self.pending.drain(..count.min(self.pending.len())) {
            self.durable.apply(pending.replica, pending.change);
            dones.extend(pending.done);
        }
        dones
    }
}

impl Disk {
    fn exists(&self, replica: ReplicaId) -> Result<(), LogError> {
        if self.replicas.contains_key(&replica) { Ok(()) } else { Err(LogError::NoReplica(replica)) }
    }

    fn apply(&mut self, id: ReplicaId, change: Change) {
        match change {
            Change::Create(group) => {
                self.replicas.entry(id).or_insert_with(|| ReplicaLog {
                    group,
                    extent: Extent::default(),
                    entries: VecDeque::new(),
                });
            }
            Change::Destroy => {
                self.replicas.remove(&id);
                self.destroyed.insert(id);
            }
            change => {
                if let Some(replica) = self.replicas.get_mut(&id) {
                    replica.apply(change);
                }
            }
        }
    }
}

impl ReplicaLog {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Create(_) | Change::Destroy => unreachable!("the disk handles both"),
            Change::Append(entries) => {
                self.extent.append(&entries);
                self.entries.extend(entries);
            }
            Change::Vote(vote) => self.extent.state.vote = Some(vote),
            Change::VoteWon => self.extent.state.vote.iter_mut().for_each(|vote| vote.committed = true),
            Change::Truncate(last) => {
                if let Some(gone) = self.extent.truncate_after(last) {
                    self.entries.retain(|entry| entry.id.index < gone.start);
                }
            }
            Change::Purge(upto) => {
                if self.extent.purge(upto).is_some() {
                    self.entries.retain(|entry| entry.id.index > upto.index);
                }
            }
            Change::Committed(committed) => self.extent.state.committed = committed,
            Change::Doubtful => self.extent.state.doubtful = true,
        }
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Vec<Entry> {
        let range = self.extent.clamp(range);
        let mut bytes = 0;
        let within = self.entries.iter().filter(|entry| range.contains(&entry.id.index));
        within
            .enumerate()
            .take_while(|(place, entry)| {
                bytes += entry.size_bytes();
                *place == 0 || bytes <= bytes_max
            })
            .map(|(_, entry)| entry.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use quorate_types::Payload;

    use super::*;

    const REPLICA: ReplicaId = ReplicaId(1);

    fn entry(index: u64) -> Entry {
        Entry { id: LogId { term: 1, leader: REPLICA, index }, payload: Payload::Blank }
    }

    fn counting(count: &Arc<AtomicUsize>) -> Done {
        let count = count.clone();
        Box::new(move |result| {
            assert!(result.is_ok());
            count.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// An unsynced append is readable, lost in a crash, and never reported durable.
    #[test]
    fn crash_drops_pending_changes() {
        let log = MemoryLog::new(false);
        let calls = Arc::new(AtomicUsize::new(0));
        log.create(REPLICA, GroupId(1)).unwrap();
        log.append(REPLICA, vec![entry(0)], counting(&calls));
        log.sync();
        log.append(REPLICA, vec![entry(1)], counting(&calls));
        log.append(REPLICA, vec![entry(2)], counting(&calls));
        log.save_committed(REPLICA, Some(entry(2).id));
        assert_eq!(log.entries(REPLICA, 0..9, usize::MAX).unwrap().len(), 3);
        assert_eq!(log.pending(), 3);
        log.crash_after(1);
        assert_eq!(log.entries(REPLICA, 0..9, usize::MAX).unwrap(), [entry(0), entry(1)]);
        log.append(REPLICA, vec![entry(2)], counting(&calls));
        log.crash();
        assert_eq!(log.state(REPLICA).unwrap().last, Some(entry(1).id));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    /// `durable` with all pending changes applied equals `now`, after each change and each sync.
    #[test]
    fn pending_changes_lead_from_durable_to_now() {
        let log = MemoryLog::new(false);
        let check = || {
            let inner = log.lock();
            let mut disk = inner.durable.clone();
            inner.pending.iter().for_each(|pending| disk.apply(pending.replica, pending.change.clone()));
            let contents = |disk: &Disk| -> Vec<_> {
                let replicas = disk.replicas.iter();
                replicas.map(|(id, held)| (*id, held.group, held.extent.state, held.entries.clone())).collect()
            };
            assert_eq!(contents(&disk), contents(&inner.now));
            assert_eq!(disk.destroyed, inner.now.destroyed);
        };
        let changes: [&dyn Fn(); 9] = [
            &|| log.create(REPLICA, GroupId(1)).unwrap(),
            &|| log.append(REPLICA, (0..5).map(entry).collect(), Box::new(drop)),
            &|| log.save_vote(REPLICA, Vote { term: 1, candidate: REPLICA, committed: false }, Box::new(drop)),
            &|| log.vote_won(REPLICA),
            &|| log.save_committed(REPLICA, Some(entry(3).id)),
            &|| log.purge(REPLICA, entry(1).id),
            &|| log.truncate_after(REPLICA, Some(entry(3).id), Box::new(drop)),
            &|| log.sync_first(2),
            &|| log.crash_after(3),
        ];
        for change in changes {
            change();
            check();
        }
        log.destroy(REPLICA).unwrap();
        check();
    }

    /// A durable call makes everything before it durable, like the single queue on disk.
    #[test]
    fn durable_create_syncs_everything_before_it() {
        let log = MemoryLog::new(false);
        let calls = Arc::new(AtomicUsize::new(0));
        log.create(REPLICA, GroupId(1)).unwrap();
        log.append(REPLICA, vec![entry(0)], counting(&calls));
        log.create(ReplicaId(2), GroupId(2)).unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        log.crash();
        assert_eq!(log.replicas(), [(REPLICA, GroupId(1)), (ReplicaId(2), GroupId(2))]);
        assert_eq!(log.state(REPLICA).unwrap().last, Some(entry(0).id));
    }
}
