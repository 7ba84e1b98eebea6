//! Tests of the machine and its replica with random commands, groupings and crashes, and of cases
//! that the stories cannot express. Run on `crate::new_store`.
#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_machine::keys::Space;
use quorate_machine::state::{Batch, StateError, View};
use quorate_machine::{KvMachine, ReplicaState, Reply, kv};
use quorate_types::codec::{self, Kind};
use quorate_types::state::Head;
use quorate_types::{
    Command, Condition, Entry, Membership, Mutation, Outcome, Payload, Record, ReplicaId, SessionId, SessionStamp,
    Write,
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
        let opened = ReplicaState::open(store.state.clone(), REPLICA, KvMachine::open);
        assert!(matches!(opened.err(), Some(StateError::Corrupt { .. })));
        let operations = vec![(Space::Table, key.to_vec(), None)];
        store.state.write(REPLICA, Batch { operations }).unwrap();
    }
    spoil(Space::Meta, b"h");
    assert!(ReplicaState::open(store.state.clone(), REPLICA, KvMachine::open).is_err());
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
