//! The disk of a node in one of its lives: the in-memory log and state, behind a gate that closes
//! when the node crashes.
//!
//! A dead process has no further effect, but a task runs until it is aborted. The gate therefore
//! closes first in a crash: from then on, writes, reads and replies of the node's tasks have no
//! effect.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quorate_machine::log::{Done, Log, LogError, LogState, MemoryLog};
use quorate_machine::state::{Call, MemoryState, ObservedState, Observer, State, StateError};
use quorate_testpoints::Bug;
use quorate_types::{Entry, GroupId, LogId, ReplicaId, Vote};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::Notify;

/// One life of a node, from its start to its crash.
pub(crate) struct Life {
    pub(crate) number: u64,
    alive: AtomicBool,
    end: Notify,
}

impl Life {
    pub(crate) fn new(number: u64) -> Arc<Self> {
        Arc::new(Life { number, alive: AtomicBool::new(true), end: Notify::new() })
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self) {
        self.alive.store(false, Ordering::Relaxed);
        self.end.notify_waiters();
    }

    /// Waits until the node dies.
    pub(crate) async fn ended(&self) {
        let mut ended = std::pin::pin!(self.end.notified());
        ended.as_mut().enable();
        if self.is_alive() {
            ended.await;
        }
    }
}

/// The current speed of the disk.
pub(crate) struct Speed {
    usual_us: (u64, u64),
    /// Milliseconds that every sync takes in addition, while the disk is slow.
    extra_ms: AtomicU64,
    rng: Mutex<StdRng>,
}

impl Speed {
    pub(crate) fn new(usual_us: (u64, u64), rng: StdRng) -> Arc<Self> {
        Arc::new(Speed { usual_us, extra_ms: AtomicU64::new(0), rng: Mutex::new(rng) })
    }

    pub(crate) fn slow_down(&self, extra_ms: u64) {
        self.extra_ms.store(extra_ms, Ordering::Relaxed);
    }

    fn next_sync(&self) -> Duration {
        let (least, most) = self.usual_us;
        let mut rng = self.rng.lock().expect("only a broken invariant poisons this lock");
        let usual = Duration::from_micros(rng.random_range(least..=most));
        let extra = self.extra_ms.load(Ordering::Relaxed);
        let extra = if extra == 0 { 0 } else { rng.random_range(extra / 4..=extra) };
        usual + Duration::from_millis(extra)
    }
}

/// The entries that were durable at the start of a node's life or became durable since, including
/// those that were truncated later.
#[derive(Default)]
pub(crate) struct Synced(Mutex<HashSet<(ReplicaId, LogId)>>);

impl Synced {
    pub(crate) fn has(&self, replica: ReplicaId, id: LogId) -> bool {
        self.entries().contains(&(replica, id))
    }

    fn note(&self, replica: ReplicaId, ids: impl IntoIterator<Item = LogId>) {
        self.entries().extend(ids.into_iter().map(|id| (replica, id)));
    }

    fn entries(&self) -> MutexGuard<'_, HashSet<(ReplicaId, LogId)>> {
        self.0.lock().expect("only a broken invariant poisons this lock")
    }
}

/// The log of a node in one of its lives.
pub(crate) struct LifeLog {
    log: Arc<MemoryLog>,
    life: Arc<Life>,
    synced: Arc<Synced>,
    written: Notify,
}

impl LifeLog {
    pub(crate) fn new(log: Arc<MemoryLog>, life: Arc<Life>) -> Arc<Self> {
        let synced = Arc::new(Synced::default());
        for (replica, _) in log.replicas() {
            let found = log.entries(replica, 0..u64::MAX, usize::MAX).expect("a log in memory can be read");
            synced.note(replica, found.iter().map(|entry| entry.id));
        }
        Arc::new(LifeLog { log, life, synced, written: Notify::new() })
    }

    /// The entries that were durable in this life.
    pub(crate) fn synced(&self) -> Arc<Synced> {
        self.synced.clone()
    }

    /// The log's writer: syncs pending writes in a loop. Writes that arrive during a sync wait for
    /// the next one.
    pub(crate) async fn write(self: Arc<Self>, speed: Arc<Speed>) {
        while self.life.is_alive() {
            let count = self.log.pending();
            if count == 0 {
                self.written.notified().await;
                continue;
            }
            tokio::time::sleep(speed.next_sync()).await;
            if self.life.is_alive() {
                self.log.sync_first(count);
            }
        }
    }

    /// The log, or none after a crash: then no caller waits for an answer.
    fn alive(&self) -> Option<&MemoryLog> {
        self.life.is_alive().then_some(&*self.log)
    }

    fn check(&self) -> Result<&MemoryLog, LogError> {
        self.alive().ok_or(LogError::Closed)
    }

    /// Makes a call whose effect is durable when `done` is called. With `eager`, a seeded defect,
    /// `done` is called immediately, before the effect is durable.
    fn call(&self, done: Done, eager: bool, call: impl FnOnce(&MemoryLog, Done)) {
        let Some(log) = self.alive() else { return };
        if eager {
            call(log, Box::new(|_| {}));
            done(Ok(()));
        } else {
            call(log, done);
        }
        self.written.notify_one();
    }
}

impl Log for LifeLog {
    fn create(&self, replica: ReplicaId, group: GroupId) -> Result<(), LogError> {
        self.check()?.create(replica, group)
    }

    fn destroy(&self, replica: ReplicaId) -> Result<(), LogError> {
        self.check()?.destroy(replica)
    }

    fn mark_doubtful(&self, replica: ReplicaId) -> Result<(), LogError> {
        self.check()?.mark_doubtful(replica)
    }

    fn replicas(&self) -> Vec<(ReplicaId, GroupId)> {
        self.alive().map(Log::replicas).unwrap_or_default()
    }

    fn state(&self, replica: ReplicaId) -> Result<LogState, LogError> {
        self.check()?.state(replica)
    }

    fn append(&self, replica: ReplicaId, entries: Vec<Entry>, done: Done) {
        let eager = Bug::AckBeforeSync.is_on();
        let (ids, synced): (Vec<_>, _) = (entries.iter().map(|entry| entry.id).collect(), self.synced.clone());
        self.call(done, eager, |log, done| {
            let noted = move |result: Result<(), LogError>| {
                if result.is_ok() {
                    synced.note(replica, ids);
                }
                done(result);
            };
            log.append(replica, entries, Box::new(noted));
        });
    }

    fn save_vote(&self, replica: ReplicaId, vote: Vote, done: Done) {
        let eager = Bug::VoteNotSynced.is_on();
        self.call(done, eager, |log, done| log.save_vote(replica, vote, done));
    }

    fn vote_won(&self, replica: ReplicaId) {
        self.alive().into_iter().for_each(|log| log.vote_won(replica));
        self.written.notify_one();
    }

    fn truncate_after(&self, replica: ReplicaId, last: Option<LogId>, done: Done) {
        self.call(done, false, |log, done| log.truncate_after(replica, last, done));
    }

    fn purge(&self, replica: ReplicaId, upto: LogId) {
        self.alive().into_iter().for_each(|log| log.purge(replica, upto));
        self.written.notify_one();
    }

    fn save_committed(&self, replica: ReplicaId, committed: Option<LogId>) {
        self.alive().into_iter().for_each(|log| log.save_committed(replica, committed));
        self.written.notify_one();
    }

    fn entries(&self, replica: ReplicaId, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        self.check()?.entries(replica, range, bytes_max)
    }

    fn retained_bytes(&self, replica: ReplicaId) -> u64 {
        self.alive().map_or(0, |log| log.retained_bytes(replica))
    }

    fn queued_bytes(&self) -> usize {
        self.alive().map_or(0, Log::queued_bytes)
    }

    fn close(&self) {
        self.alive().into_iter().for_each(Log::close);
    }
}

/// The state of a node in one of its lives.
pub(crate) fn life_state(state: Arc<MemoryState>, life: Arc<Life>) -> Arc<dyn State> {
    Arc::new(ObservedState::new(state, LifeGuard(life)))
}

/// Ends every call of a state whose node is dead.
struct LifeGuard(Arc<Life>);

impl Observer for LifeGuard {
    fn before(&self, _call: Call<'_>) -> Result<(), StateError> {
        self.0.is_alive().then_some(()).ok_or_else(|| StateError::Io("the node is dead".into()))
    }
}
