//! Helpers for tests of a state store: a store that can crash, and a shard driven by a script. The
//! tests of `quorate-rocks` include this file too.
#![allow(dead_code, reason = "every test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use quorate_machine::state::{MemoryState, State};
use quorate_machine::{KvMachine, ReplicaState, Reply, StateHash, kv, state_hash};
use quorate_types::peer::SnapshotMeta;
use quorate_types::{
    Command, Condition, Entry, Key, LogId, Mutation, Outcome, Proposal, Record, ReplicaId, SessionId, SessionStamp,
    Token, TokenArc, Value, Write,
};
use tempfile::TempDir;

/// The disk below a store.
pub(crate) trait Disk {
    /// Loses all changes that are not durable, and opens the store again.
    fn crash(&mut self) -> Arc<dyn State>;

    /// Opens the store again after an orderly stop.
    fn restart(&mut self) -> Arc<dyn State>;
}

/// A store that can crash.
pub(crate) struct Store {
    pub(crate) state: Arc<dyn State>,
    disk: Box<dyn Disk>,
    dir: TempDir,
}

impl Store {
    pub(crate) fn new(mut disk: Box<dyn Disk>) -> Self {
        Store { state: disk.restart(), disk, dir: tempfile::tempdir().unwrap() }
    }

    /// Loses all changes that are not durable.
    pub(crate) fn crash(&mut self) {
        self.state = self.disk.crash();
    }

    /// Closes the store and opens it again. All other users of `state` must be gone.
    pub(crate) fn restart(&mut self) {
        // Dropping the state closes it.
        self.state = Arc::new(MemoryState::new());
        self.state = self.disk.restart();
    }

    /// An empty directory.
    pub(crate) fn staging(&self) -> PathBuf {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        assert!(fs::read_dir(&dir).unwrap().next().is_none());
        dir
    }

    pub(crate) fn hash(&self, replica: ReplicaId) -> StateHash {
        hash_of(&*self.state, replica)
    }
}

/// A store in memory.
pub(crate) fn memory() -> Store {
    Store::new(Box::new(InMemory(Arc::new(MemoryState::new()))))
}

struct InMemory(Arc<MemoryState>);

impl Disk for InMemory {
    fn crash(&mut self) -> Arc<dyn State> {
        self.0.crash();
        self.0.clone()
    }

    fn restart(&mut self) -> Arc<dyn State> {
        // An orderly stop flushes.
        self.0.flush().unwrap();
        self.0.clone()
    }
}

pub(crate) fn hash_of(state: &dyn State, replica: ReplicaId) -> StateHash {
    let mut hash = None;
    state
        .view(&mut |view| {
            hash = Some(state_hash(view, replica)?);
            Ok(())
        })
        .unwrap();
    hash.unwrap()
}

pub(crate) fn read(state: &dyn State, replica: ReplicaId, keys: &[Key]) -> Vec<Option<Record>> {
    let mut records = Vec::new();
    state
        .view(&mut |view| {
            records = kv::read(view, replica, keys, usize::MAX)?.1;
            Ok(())
        })
        .unwrap();
    records
}

pub(crate) fn open(state: &Arc<dyn State>, replica: ReplicaId) -> ReplicaState<KvMachine> {
    ReplicaState::open(state.clone(), replica, KvMachine::open).unwrap()
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text.to_owned()).unwrap()
}

pub(crate) fn value(text: &str) -> Value {
    Value::new(text.to_owned()).unwrap()
}

pub(crate) fn log_id(index: u64) -> LogId {
    LogId { term: 1, leader: ReplicaId(1), index }
}

pub(crate) fn entry(index: u64, time_ms: u64, commands: Vec<Command>) -> Entry {
    Entry::normal(log_id(index), Proposal { time_ms, commands }.encode().into())
}

pub(crate) fn bootstrap(epoch: u64) -> Command {
    Command::Bootstrap { arc: TokenArc { start: Token(0), end: Token(0) }, epoch }
}

pub(crate) fn put(
    session: u64,
    sequence: u64,
    lowest: u64,
    name: &str,
    text: &str,
    condition: Option<Condition>,
) -> Command {
    Command::Write {
        epoch: 1,
        stamp: SessionStamp { session: SessionId(session), sequence, lowest },
        write: Write { key: key(name), mutation: Mutation::Put(value(text)), condition },
    }
}

/// Writes a snapshot of a replica into files for another one.
pub(crate) fn export(store: &Store, from: &ReplicaState<KvMachine>, to: ReplicaId) -> (Vec<PathBuf>, SnapshotMeta) {
    let pinned = from.pin().unwrap();
    (pinned.write_files(&store.staging(), to).unwrap(), pinned.meta().clone())
}

/// A shard on one store, with the log that a Raft group would have for it.
pub(crate) struct Shard {
    pub store: Store,
    pub(crate) replica: ReplicaId,
    machine: Option<ReplicaState<KvMachine>>,
    log: Vec<(Entry, Option<Reply>)>,
    pub(crate) time_ms: u64,
}

impl Shard {
    pub(crate) fn new(store: Store) -> Self {
        let replica = ReplicaId(1);
        let machine = Some(open(&store.state, replica));
        Shard { store, replica, machine, log: Vec::new(), time_ms: 1000 }
    }

    pub(crate) fn replica(&mut self) -> &mut ReplicaState<KvMachine> {
        self.machine.as_mut().unwrap()
    }

    /// Appends an entry with these commands and applies it.
    pub(crate) fn say(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let entry = entry(self.log.len() as u64, self.time_ms, commands);
        let reply = self.replica().apply(std::slice::from_ref(&entry)).unwrap().remove(0);
        self.log.push((entry, reply.clone()));
        reply.unwrap().into_shard()
    }

    pub(crate) fn restart(&mut self) {
        self.machine = None;
        self.store.restart();
        self.machine = Some(open(&self.store.state, self.replica));
    }

    /// Crashes, and replays the entries after the surviving state in one batch. Every reply must
    /// equal the first one. Returns the number of entries replayed.
    pub(crate) fn crash(&mut self) -> usize {
        let before = self.store.hash(self.replica);
        self.store.crash();
        let mut machine = open(&self.store.state, self.replica);
        let next = machine.head().applied.map_or(0, |applied| applied.index as usize + 1);
        let (entries, replies): (Vec<_>, Vec<_>) = self.log[next..].iter().cloned().unzip();
        assert_eq!(machine.apply(&entries).unwrap(), replies);
        self.machine = Some(machine);
        assert_eq!(self.store.hash(self.replica), before, "replaying the log gives the state back");
        entries.len()
    }

    /// Continues as another replica, installed from a snapshot of this one.
    pub(crate) fn move_to(&mut self, target: ReplicaId) {
        let (files, meta) = export(&self.store, self.machine.as_ref().unwrap(), target);
        let mut installed = open(&self.store.state, target);
        installed.install(&files, &meta).unwrap();
        let (before, after) = (self.store.hash(self.replica), self.store.hash(target));
        assert_eq!(before, after);
        (self.replica, self.machine) = (target, Some(installed));
    }
}
