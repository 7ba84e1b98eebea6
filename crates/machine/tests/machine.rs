//! Tests of the machine and its replica that need no disk.
#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

#[path = "support/state.rs"]
mod state_support;

use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_machine::keys::Space;
use quorate_machine::state::{Batch, MemoryState, ObservedState, Observer, State, StateError, View, Visit};
use quorate_machine::{Draft, Machine, ReplicaState, Reply};
use quorate_types::state::{Head, StoredMembership};
use quorate_types::{Command, Condition, Entry, LogId, Outcome, ReplicaId};
use state_support::{bootstrap, entry, log_id, memory, open, put};

const REPLICA: ReplicaId = ReplicaId(5);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A draft shows the state after its batch: every key and every scan.
    #[test]
    fn draft_shows_the_state_after_its_batch(
        base in vec((0..30u8, any::<u8>()), 0..20),
        changes in vec((0..30u8, any::<Option<u8>>()), 0..20),
        stop_after in 0..8usize,
    ) {
        let name = |number: u8| format!("{}{}", ["a", "b", "\u{ff}"][usize::from(number) % 3], number / 3).into_bytes();
        let state = MemoryState::new();
        let operations = base.iter().map(|(k, v)| (Space::Data, name(*k), Some(vec![*v]))).collect();
        state.write(REPLICA, Batch { operations }).unwrap();
        let collect = |scan: &dyn Fn(Visit<'_>), stop_after: usize| {
            let mut seen = Vec::new();
            scan(&mut |key, value| {
                seen.push((key.to_vec(), value.to_vec()));
                if seen.len() > stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            seen
        };
        let (mut drafted, mut batch) = (Vec::new(), None);
        state.view(&mut |view| {
            let mut draft = Draft::new(view, REPLICA, Head::default());
            for (k, v) in &changes {
                match v {
                    Some(v) => draft.put(Space::Data, name(*k), vec![*v]),
                    None => draft.delete(Space::Data, name(*k)),
                }
            }
            for prefix in ["", "a", "b", "\u{ff}", "a1"] {
                drafted.push(collect(&|visit| draft.scan(Space::Data, prefix.as_bytes(), visit).unwrap(), stop_after));
            }
            for number in 0..30 {
                let got = draft.get(Space::Data, &name(number))?;
                drafted.push(vec![(name(number), got.unwrap_or_default())]);
            }
            batch = Some(draft.into_batch(None));
            Ok(())
        }).unwrap();
        state.write(REPLICA, batch.unwrap()).unwrap();
        let mut written = Vec::new();
        state.view(&mut |view| {
            for prefix in ["", "a", "b", "\u{ff}", "a1"] {
                written.push(collect(&|visit| view.scan(REPLICA, Space::Data, prefix.as_bytes(), visit).unwrap(), stop_after));
            }
            for number in 0..30 {
                written.push(vec![(name(number), view.get(REPLICA, Space::Data, &name(number))?.unwrap_or_default())]);
            }
            Ok(())
        }).unwrap();
        prop_assert_eq!(drafted, written);
    }
}

/// Skipping an entry or applying one twice would make the replica diverge for good, so it panics.
#[test]
fn hole_in_the_log_is_not_applied() {
    let store = memory();
    let mut shard = open(&store.state, REPLICA);
    shard.apply(&[entry(0, 1, vec![bootstrap(1)])]).unwrap();
    for index in [0, 2] {
        let hole = [entry(index, 1, vec![Command::Tick])];
        assert!(std::panic::catch_unwind(AssertUnwindSafe(|| shard.apply(&hole))).is_err(), "index {index}");
    }
    assert_eq!(shard.head().applied, Some(log_id(0)));
}

/// Counts the reads of a state's views.
#[derive(Clone, Default)]
struct Reads(Arc<AtomicUsize>);

struct CountingView<'a>(&'a dyn View, &'a AtomicUsize);

impl View for CountingView<'_> {
    fn get_with(
        &self,
        replica: ReplicaId,
        space: Space,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<(), StateError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.get_with(replica, space, key, read)
    }

    fn scan(&self, replica: ReplicaId, space: Space, prefix: &[u8], visit: Visit<'_>) -> Result<(), StateError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.scan(replica, space, prefix, visit)
    }
}

impl Observer for Reads {
    fn view(
        &self,
        view: &dyn View,
        read: &mut dyn FnMut(&dyn View) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        read(&CountingView(view, &self.0))
    }
}

/// An unconditional put and its retry read nothing from the store; a condition reads once.
#[test]
fn unconditional_put_reads_nothing() {
    let counted = Reads::default();
    let state: Arc<dyn State> = Arc::new(ObservedState::new(Arc::new(MemoryState::new()), counted.clone()));
    let mut shard = open(&state, REPLICA);
    shard.apply(&[entry(0, 1, vec![bootstrap(1), Command::OpenSession { epoch: 1 }])]).unwrap();
    let mut reads = |index, condition| {
        let before = counted.0.load(Ordering::Relaxed);
        let write = put(1, index, 1, "k", "v", condition);
        shard.apply(&[entry(index, 1, vec![write.clone(), write])]).unwrap();
        counted.0.load(Ordering::Relaxed) - before
    };
    assert_eq!(reads(1, None), 0);
    assert_eq!(reads(2, Some(Condition::Exists)), 1);
}

/// The session table stays small in the state: one record per entry and session, and none for
/// released outcomes.
#[test]
fn session_table_stays_small() {
    let store = memory();
    let mut shard = open(&store.state, REPLICA);
    shard.apply(&[entry(0, 1, vec![bootstrap(1), Command::OpenSession { epoch: 1 }])]).unwrap();
    let records = || {
        let mut records = 0;
        store
            .state
            .view(&mut |view| {
                view.scan(REPLICA, Space::Table, b"", &mut |_, _| {
                    records += 1;
                    ControlFlow::Continue(())
                })
            })
            .unwrap();
        records
    };
    for index in 1..200u64 {
        // Sixteen writes per entry; the client releases all outcomes but the last 32.
        let first = index * 16;
        let lowest = first.saturating_sub(32).max(1);
        let writes = (first..first + 16).map(|sequence| put(1, sequence, lowest, "k", "v", None)).collect();
        let reply = shard.apply(&[entry(index, 1, writes)]).unwrap().remove(0).unwrap();
        assert!(reply.into_shard().iter().all(|outcome| matches!(outcome, Outcome::Written { .. })));
        assert!(records() <= 4, "{} records after entry {index}", records());
    }
    // Each retry leaves a record of the last use and frees earlier ones.
    for index in 200..210u64 {
        shard.apply(&[entry(index, 1, vec![put(1, 3199, 3199, "k", "v", None)])]).unwrap();
        assert!(records() <= 2, "{} records after retry {index}", records());
    }
}

/// A machine that records the calls of `written`.
struct Publishing {
    state: Arc<MemoryState>,
    seen: Arc<AtomicUsize>,
}

impl Machine for Publishing {
    fn apply(&mut self, at: LogId, proposal: &Bytes, draft: &mut Draft<'_>) -> Result<Reply, StateError> {
        draft.put(Space::Table, at.index.to_be_bytes().to_vec(), proposal.to_vec());
        Ok(Reply::Shard(vec![]))
    }

    fn written(&mut self) {
        let mut records = 0;
        let count = &mut |_: &[u8], _: &[u8]| {
            records += 1;
            ControlFlow::Continue(())
        };
        self.state.view(&mut |view| view.scan(REPLICA, Space::Table, b"", count)).unwrap();
        self.seen.store(records, Ordering::Relaxed);
    }
}

/// `written` is called after the changes are visible, and an installed snapshot opens a new machine
/// with the same closure.
#[test]
fn machine_publishes_after_changes_are_visible() {
    let state = Arc::new(MemoryState::new());
    let seen = Arc::new(AtomicUsize::new(0));
    let opened = Arc::new(AtomicUsize::new(0));
    let (in_state, in_seen, in_opened) = (state.clone(), seen.clone(), opened.clone());
    let mut replica = ReplicaState::open(state.clone(), REPLICA, move |_, _| {
        in_opened.fetch_add(1, Ordering::Relaxed);
        Ok(Publishing { state: in_state.clone(), seen: in_seen.clone() })
    })
    .unwrap();
    let normal = |index| Entry::normal(log_id(index), Bytes::from_static(b"x"));
    assert_eq!(
        replica.apply(&[normal(0), normal(1)]).unwrap(),
        [Some(Reply::Shard(vec![])), Some(Reply::Shard(vec![]))]
    );
    assert_eq!(seen.load(Ordering::Relaxed), 2);
    let pinned = replica.pin().unwrap();
    let staging = tempfile::tempdir().unwrap();
    let files = pinned.write_files(staging.path(), REPLICA).unwrap();
    replica.apply(&[normal(2)]).unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 3);
    replica.install(&files, pinned.meta()).unwrap();
    assert_eq!((seen.load(Ordering::Relaxed), opened.load(Ordering::Relaxed)), (2, 2));
    assert_eq!(replica.membership(), &StoredMembership::default());
}
