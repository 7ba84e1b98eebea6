//! Tests of the machine and its replica with random commands, groupings and crashes, and of cases
//! that the stories cannot express. Run on `crate::new_store`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_machine::keys::Space;
use quorate_machine::state::{Batch, MemoryState, Pinned, State, StateError, View, Visit};
use quorate_machine::{Draft, KvMachine, Machine, Replica, Reply, kv};
use quorate_types::codec::{self, Kind};
use quorate_types::peer::SnapshotMeta;
use quorate_types::state::{Head, StoredMembership};
use quorate_types::{
    Command, Condition, Entry, LogId, Membership, Mutation, Outcome, Payload, Record, ReplicaId, SessionId,
    SessionStamp, Write,
};

use crate::new_store;
use crate::state_support::{bootstrap, entry, export, key, log_id, memory, open, put, read, value};

const REPLICA: ReplicaId = ReplicaId(5);

fn condition() -> impl Strategy<Value = Option<Condition>> {
    prop_oneof![
        4 => Just(None),
        1 => Just(Some(Condition::Absent)),
        1 => Just(Some(Condition::Exists)),
        1 => (0..20u64).prop_map(|version| Some(Condition::Version(version))),
        1 => (0..3u8).prop_map(|text| Some(Condition::Value(value(&text.to_string())))),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let mutation =
        prop_oneof![3 => (0..3u8).prop_map(|t| Mutation::Put(value(&t.to_string()))), 1 => Just(Mutation::Delete)];
    let write = (1..5u64, 1..14u64, 1..6u64, prop_oneof![9 => Just(1), 1 => Just(2)], 0..4u8, mutation, condition())
        .prop_map(|(session, sequence, lowest, epoch, name, mutation, condition)| Command::Write {
            epoch,
            stamp: SessionStamp { session: SessionId(session), sequence, lowest },
            write: Write { key: key(&name.to_string()), mutation, condition },
        });
    prop_oneof![1 => Just(Command::OpenSession { epoch: 1 }), 1 => Just(Command::Tick), 20 => write]
}

/// A future entry: its commands and the time since the previous entry; none is a blank entry.
fn any_entry() -> impl Strategy<Value = Option<(u64, Vec<Command>)>> {
    let step = prop_oneof![20 => 0..1000u64, 1 => Just(700_000)];
    prop_oneof![1 => Just(None), 9 => (step, vec(any_command(), 1..6)).prop_map(Some)]
}

/// The log of a bootstrapped shard, with a membership change.
fn log(entries: Vec<Option<(u64, Vec<Command>)>>) -> Vec<Entry> {
    let mut time_ms = 1000;
    let mut log = vec![entry(0, time_ms, vec![bootstrap(1), Command::OpenSession { epoch: 1 }])];
    let members = Membership { voters: vec![[REPLICA].into()], ..Membership::default() };
    log.push(Entry { id: log_id(1), payload: Payload::Membership(members) });
    for (index, said) in (2..).zip(entries) {
        log.push(match said {
            None => Entry { id: log_id(index), payload: Payload::Blank },
            Some((step, commands)) => {
                time_ms += step;
                entry(index, time_ms, commands)
            }
        });
    }
    log
}

/// An event between two batches.
#[derive(Clone, Copy, Debug)]
enum Event {
    Nothing,
    Flush,
    Crash,
    Reopen,
}

fn events() -> impl Strategy<Value = Vec<(usize, Event)>> {
    let event = prop_oneof![
        6 => Just(Event::Nothing),
        2 => Just(Event::Flush),
        1 => Just(Event::Crash),
        2 => Just(Event::Reopen),
    ];
    vec((1..9usize, event), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Replies and state depend on the log alone: not on the grouping into batches, nor the store,
    /// nor restarts and crashes (followed by a replay), nor a snapshot.
    #[test]
    fn replies_and_state_depend_on_the_log_alone(entries in vec(any_entry(), 1..60), events in events()) {
        let log = log(entries);
        let plain = memory();
        let mut replica = open(&plain.state, REPLICA);
        let expected: Vec<_> = log.iter().flat_map(|entry| replica.apply(std::slice::from_ref(entry)).unwrap()).collect();

        let mut store = new_store();
        let mut replica = Some(open(&store.state, REPLICA));
        let mut events = events.iter().cycle();
        loop {
            let machine = replica.as_mut().unwrap();
            let next = machine.head().applied.map_or(0, |applied| applied.index as usize + 1);
            if next == log.len() {
                break;
            }
            let (batch, event) = events.next().unwrap();
            let until = log.len().min(next + batch);
            prop_assert_eq!(&machine.apply(&log[next..until]).unwrap(), &expected[next..until]);
            match event {
                Event::Nothing => continue,
                Event::Flush => store.state.flush().unwrap(),
                // Flush first, so that the log makes progress; later entries are lost in the crash.
                Event::Crash => {
                    store.state.flush().unwrap();
                    let machine = replica.as_mut().unwrap();
                    machine.apply(&log[until..log.len().min(until + 3)]).unwrap();
                    store.crash();
                    prop_assert_eq!(open(&store.state, REPLICA).head().applied, Some(log[until - 1].id));
                }
                Event::Reopen => {}
            }
            drop(replica.take());
            replica = Some(open(&store.state, REPLICA));
        }
        let replica = replica.unwrap();
        prop_assert_eq!(store.hash(REPLICA), plain.hash(REPLICA));
        prop_assert_eq!(replica.membership().at, Some(log_id(1)));

        let (files, meta) = export(&store, &replica, ReplicaId(9));
        open(&store.state, ReplicaId(9)).install(&files, &meta).unwrap();
        prop_assert_eq!(store.hash(ReplicaId(9)), plain.hash(REPLICA));
    }

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

/// A record that has expired by the shard's clock is absent for reads and conditions, until a put
/// replaces it.
#[test]
fn expired_record_is_absent() {
    let store = new_store();
    let mut shard = open(&store.state, REPLICA);
    shard.apply(&[entry(0, 1000, vec![bootstrap(1), Command::OpenSession { epoch: 1 }])]).unwrap();
    let record = Record { version: 1, value: value("x"), expires_at_ms: Some(2000) };
    let operations = vec![(Space::Data, b"k".to_vec(), Some(codec::encode(Kind::Record, &record)))];
    store.state.write(REPLICA, Batch { operations }).unwrap();

    let absent = |sequence| put(1, sequence, 1, "k", "new", Some(Condition::Absent));
    let refused = Outcome::Refused { version: 1, current: Some(record.clone()) };
    assert_eq!(shard.apply(&[entry(1, 1999, vec![absent(1)])]).unwrap(), [Some(Reply::Shard(vec![refused]))]);
    assert_eq!(read(&*store.state, REPLICA, &[key("k")]), [Some(record)]);

    shard.apply(&[entry(2, 2000, vec![Command::Tick])]).unwrap();
    assert_eq!(read(&*store.state, REPLICA, &[key("k")]), [None]);
    let outcomes = shard.apply(&[entry(3, 0, vec![absent(1), absent(2)])]).unwrap();
    let forgotten = Outcome::Refused { version: 1, current: None };
    assert_eq!(outcomes, [Some(Reply::Shard(vec![forgotten, Outcome::Written { version: 1, replaced: 0 }]))]);
}

/// A read returns the head of the state that it read, and the records in key order.
#[test]
fn read_returns_head_and_records() {
    let store = new_store();
    let mut shard = open(&store.state, REPLICA);
    let mut seen = None;
    let mut look = |keys: &[&str]| {
        let keys: Vec<_> = keys.iter().map(|name| key(name)).collect();
        store
            .state
            .view(&mut |view| {
                seen = Some(kv::read(view, REPLICA, &keys, usize::MAX)?);
                Ok(())
            })
            .unwrap();
        seen.take().unwrap()
    };
    assert_eq!(look(&["a"]), (Head::default(), vec![None]), "a replica without state");
    let writes = vec![put(1, 1, 1, "a", "1", None), put(1, 2, 1, "b", "2", None)];
    shard.apply(&[entry(0, 7, vec![bootstrap(1), Command::OpenSession { epoch: 1 }]), entry(1, 7, writes)]).unwrap();
    let record = |version, text| Some(Record { version, value: value(text), expires_at_ms: None });
    let expected = vec![record(2, "2"), None, record(1, "1"), record(2, "2")];
    assert_eq!(look(&["b", "absent", "a", "b"]), (shard.head(), expected));
}

#[test]
fn read_is_bounded_in_bytes_but_never_empty() {
    let store = new_store();
    let mut shard = open(&store.state, REPLICA);
    let writes = vec![put(1, 1, 1, "a", "12345", None), put(1, 2, 1, "b", "12345", None)];
    shard.apply(&[entry(0, 7, vec![bootstrap(1), Command::OpenSession { epoch: 1 }]), entry(1, 7, writes)]).unwrap();
    let keys = ["a", "absent", "b", "a"].map(key);
    for (bytes_max, expected) in [(0, 1), (1, 1), (5, 1), (6, 3), (10, 3), (11, 4)] {
        let mut read = 0;
        let mut look = |view: &dyn View| {
            read = kv::read(view, REPLICA, &keys, bytes_max)?.1.len();
            Ok(())
        };
        store.state.view(&mut look).unwrap();
        assert_eq!(read, expected, "at most {bytes_max} bytes");
    }
}

/// A concurrent reader never sees an applied index without its data, or data without its index.
#[test]
fn head_and_records_come_from_one_point_in_time() {
    const ENTRIES: u64 = 3000;
    let store = new_store();
    let mut shard = open(&store.state, REPLICA);
    shard.apply(&[entry(0, 1, vec![bootstrap(1), Command::OpenSession { epoch: 1 }])]).unwrap();
    let state = store.state.clone();
    let reader = std::thread::spawn(move || {
        let keys = [key("first"), key("last")];
        let mut applied = 0;
        while applied < ENTRIES {
            state
                .view(&mut |view| {
                    let (head, records) = kv::read(view, REPLICA, &keys, usize::MAX)?;
                    applied = head.applied.unwrap().index;
                    let expected = (applied > 0).then(|| value(&applied.to_string()));
                    let values = records.into_iter().map(|record| record.map(|record| record.value));
                    assert!(values.into_iter().all(|value| value == expected), "at {applied}");
                    Ok(())
                })
                .unwrap();
        }
    });
    for index in 1..=ENTRIES {
        let write = |sequence, name| put(1, sequence, sequence, name, &index.to_string(), None);
        shard.apply(&[entry(index, 1, vec![write(2 * index, "first"), write(2 * index + 1, "last")])]).unwrap();
    }
    reader.join().unwrap();
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

/// An entry that is not a proposal is corruption, and no part of its batch is written.
#[test]
fn corrupt_entry_changes_nothing() {
    let store = new_store();
    let mut shard = open(&store.state, REPLICA);
    shard.apply(&[entry(0, 1, vec![bootstrap(1)])]).unwrap();
    let before = store.hash(REPLICA);
    let corrupt = Entry::normal(log_id(2), Bytes::from_static(b"not a proposal"));
    let error = shard.apply(&[entry(1, 1, vec![Command::Tick]), corrupt]).unwrap_err();
    assert!(matches!(error, StateError::Corrupt { replica: REPLICA, .. }), "{error}");
    assert_eq!(store.hash(REPLICA), before);
}

/// A corrupt session record is detected when the machine is opened, a corrupt user record when it
/// is read.
#[test]
fn corrupt_records_are_not_served() {
    let store = new_store();
    let spoil = |space, key: &[u8]| {
        let operations = vec![(space, key.to_vec(), Some(b"rot".to_vec()))];
        store.state.write(REPLICA, Batch { operations }).unwrap();
    };
    spoil(Space::Data, b"k");
    let mut error = None;
    store
        .state
        .view(&mut |view| {
            error = kv::read(view, REPLICA, &[key("k")], usize::MAX).err();
            Ok(())
        })
        .unwrap();
    assert!(matches!(error, Some(StateError::Corrupt { .. })));
    for key in [b"S-not-a-session-key".as_slice(), &quorate_machine::keys::session_key(SessionId(1), 1)] {
        spoil(Space::Table, key);
        let opened = Replica::open(store.state.clone(), REPLICA, KvMachine::open);
        assert!(matches!(opened.err(), Some(StateError::Corrupt { .. })));
        let operations = vec![(Space::Table, key.to_vec(), None)];
        store.state.write(REPLICA, Batch { operations }).unwrap();
    }
    spoil(Space::Meta, b"h");
    assert!(Replica::open(store.state.clone(), REPLICA, KvMachine::open).is_err());
}

/// A state that counts the reads of its views.
struct Counting {
    state: MemoryState,
    reads: AtomicUsize,
}

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

impl State for Counting {
    fn view(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), StateError>) -> Result<(), StateError> {
        self.state.view(&mut |view| read(&CountingView(view, &self.reads)))
    }
    fn write(&self, replica: ReplicaId, batch: Batch) -> Result<(), StateError> {
        self.state.write(replica, batch)
    }
    fn flush(&self) -> Result<(), StateError> {
        self.state.flush()
    }
    fn pin(&self, replica: ReplicaId) -> Result<Box<dyn Pinned>, StateError> {
        self.state.pin(replica)
    }
    fn install(&self, replica: ReplicaId, files: &[std::path::PathBuf], meta: &SnapshotMeta) -> Result<(), StateError> {
        self.state.install(replica, files, meta)
    }
    fn destroy(&self, replica: ReplicaId) -> Result<(), StateError> {
        self.state.destroy(replica)
    }
    fn approximate_bytes(&self, replica: ReplicaId) -> u64 {
        self.state.approximate_bytes(replica)
    }
    fn replicas(&self) -> Result<Vec<ReplicaId>, StateError> {
        self.state.replicas()
    }
}

/// An unconditional put and its retry read nothing from the store; a condition reads once.
#[test]
fn unconditional_put_reads_nothing() {
    let counting = Arc::new(Counting { state: MemoryState::new(), reads: AtomicUsize::new(0) });
    let state: Arc<dyn State> = counting.clone();
    let mut shard = open(&state, REPLICA);
    shard.apply(&[entry(0, 1, vec![bootstrap(1), Command::OpenSession { epoch: 1 }])]).unwrap();
    let mut reads = |index, condition| {
        let before = counting.reads.load(Ordering::Relaxed);
        let write = put(1, index, 1, "k", "v", condition);
        shard.apply(&[entry(index, 1, vec![write.clone(), write])]).unwrap();
        counting.reads.load(Ordering::Relaxed) - before
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
struct Told {
    state: Arc<MemoryState>,
    seen: Arc<AtomicUsize>,
}

impl Machine for Told {
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
    let mut replica = Replica::open(state.clone(), REPLICA, move |_, _| {
        in_opened.fetch_add(1, Ordering::Relaxed);
        Ok(Told { state: in_state.clone(), seen: in_seen.clone() })
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

/// The reported size of a replica with half a megabyte of flushed data is about that, and other
/// replicas' is not.
#[test]
fn size_of_a_replica_covers_its_flushed_data() {
    let store = new_store();
    let (large, other) = (ReplicaId(7), ReplicaId(8));
    let mut random = 1_u64;
    let mut operations = Vec::new();
    for key in 0..512_u64 {
        // Bytes that do not compress.
        let value = (0..1_024).map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 56) as u8
        });
        operations.push((Space::Data, key.to_be_bytes().to_vec(), Some(value.collect())));
    }
    store.state.write(large, Batch { operations }).unwrap();
    store.state.flush().unwrap();
    let bytes = store.state.approximate_bytes(large);
    assert!((256 << 10..1 << 20).contains(&bytes), "{bytes} bytes");
    assert!(store.state.approximate_bytes(other) < 64 << 10);
}
