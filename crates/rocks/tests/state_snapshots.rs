//! Snapshots of a replica's state: what they hold, what they replace, what is refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod state_support;

use std::path::PathBuf;
use std::sync::Arc;

use quorate_machine::keys::Space;
use quorate_machine::state::{Batch, State, StateError};
use quorate_types::peer::SnapshotMeta;
use quorate_types::state::StoredMembership;
use quorate_types::{Command, Entry, Membership, NodeId, Payload, ReplicaId};
use state_support::{
    Shard, Store, TWINS, Twin, bootstrap, entry, export, hash_of, key, log_id, open, open_rocks, put, read, value,
};

const SOURCE: ReplicaId = ReplicaId(1);
const TARGET: ReplicaId = ReplicaId(2);

/// Entries that put `keys` into a new shard.
fn history(keys: &[(&str, &str)]) -> Vec<Entry> {
    let mut commands = vec![bootstrap(1), Command::OpenSession { epoch: 1 }];
    commands.extend((1..).zip(keys).map(|(sequence, (name, text))| put(1, sequence, 1, name, text, None)));
    commands.into_iter().zip(0..).map(|(command, index)| entry(index, 1000, vec![command])).collect()
}

fn texts(state: &dyn State, replica: ReplicaId, keys: &[&str]) -> Vec<Option<String>> {
    let keys: Vec<_> = keys.iter().map(|name| key(name)).collect();
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    read(state, replica, &keys).into_iter().map(|record| record.map(|record| text(record.value.as_bytes()))).collect()
}

/// Whatever the target held is gone: keys that the snapshot has too, keys that it lacks, keys that were deleted, whether they
/// are in files, in the memtable or in both.
#[test]
fn a_snapshot_replaces_everything_that_the_target_held() {
    for twin in TWINS {
        let store = Store::new(twin);
        let mut source = open(&store.state, SOURCE);
        source.apply(&history(&[("kept", "new"), ("deleted", "back"), ("m", "new")])).unwrap();

        let old = history(&[
            ("kept", "old"),
            ("a", "old"),
            ("deleted", "old"),
            ("z", "old"),
            ("kept", "old2"),
            ("hot", "old"),
        ]);
        let mut target = open(&store.state, TARGET);
        target.apply(&old[..6]).unwrap();
        store.state.flush().unwrap();
        let gone = vec![(Space::Data, b"deleted".to_vec(), None), (Space::Data, b"\xff\xff".to_vec(), Some(vec![1]))];
        store.state.write(TARGET, Batch { operations: gone }).unwrap();
        target.apply(&old[6..]).unwrap();

        let (files, meta) = export(&store, &source, TARGET);
        assert_eq!(meta, SnapshotMeta { applied: Some(log_id(4)), membership: StoredMembership::default() });
        target.install(&files, &meta).unwrap();

        assert_eq!(store.hash(TARGET), store.hash(SOURCE), "{twin:?}");
        assert_eq!(target.head(), source.head());
        let expected = [Some("new".into()), Some("back".into()), Some("new".into()), None, None, None];
        assert_eq!(texts(&*store.state, TARGET, &["kept", "deleted", "m", "a", "z", "hot"]), expected, "{twin:?}");
        assert!(files.iter().all(|file| !file.exists()), "the files are consumed");

        // It goes on from there, and a restart finds it so.
        let next = entry(5, 2000, vec![put(1, 4, 1, "a", "later", None), put(1, 1, 1, "kept", "retry", None)]);
        let replies = (source.apply(std::slice::from_ref(&next)).unwrap(), target.apply(&[next]).unwrap());
        assert_eq!(replies.0, replies.1);
        assert_eq!(store.hash(TARGET), store.hash(SOURCE), "{twin:?}");
    }
}

/// Also over a state that was installed itself, again and again, with a flush and without.
#[test]
fn one_snapshot_after_the_other() {
    for twin in TWINS {
        let store = Store::new(twin);
        let mut source = open(&store.state, SOURCE);
        let mut target = open(&store.state, TARGET);
        source.apply(&history(&[])).unwrap();
        for round in 0..12u64 {
            let name = format!("key-{}", round % 5);
            let write = put(1, round + 1, round, &name, &format!("round {round}"), None);
            source.apply(&[entry(2 + round, 1000, vec![write])]).unwrap();
            let (files, meta) = export(&store, &source, TARGET);
            target.install(&files, &meta).unwrap();
            assert_eq!(store.hash(TARGET), store.hash(SOURCE), "{twin:?}, round {round}");
            let stray = vec![(Space::Data, format!("stray-{round}").into_bytes(), Some(vec![0]))];
            store.state.write(TARGET, Batch { operations: stray }).unwrap();
            if round % 3 == 0 {
                store.state.flush().unwrap();
            }
        }
    }
}

/// A crash right after an install finds the installed state, without a flush.
#[test]
fn an_installed_snapshot_is_durable() {
    for twin in TWINS {
        let mut store = Store::new(twin);
        let mut source = open(&store.state, SOURCE);
        source.apply(&history(&[("k", "v")])).unwrap();
        let mut target = open(&store.state, TARGET);
        target.apply(&history(&[("old", "x"), ("old2", "x")])).unwrap();
        let (files, meta) = export(&store, &source, TARGET);
        target.install(&files, &meta).unwrap();
        let installed = store.hash(TARGET);
        store.crash();
        assert_eq!(store.hash(TARGET), installed, "{twin:?}");
        assert_eq!(texts(&*store.state, TARGET, &["k", "old"]), [Some("v".into()), None]);
    }
}

/// What is pinned stays as it was, metadata and data together, and can be written for several targets.
#[test]
fn a_pinned_state_does_not_move() {
    for twin in TWINS {
        let store = Store::new(twin);
        let mut source = open(&store.state, SOURCE);
        let mut entries = history(&[("k", "pinned")]);
        let members = Membership { voters: vec![[SOURCE].into()], nodes: [(SOURCE, NodeId(1))].into() };
        entries.push(Entry { id: log_id(3), payload: Payload::Membership(members.clone()) });
        source.apply(&entries).unwrap();
        let pinned = source.pin().unwrap();
        let before = store.hash(SOURCE);

        source.apply(&[entry(4, 1, vec![put(1, 2, 1, "k", "later", None), put(1, 3, 1, "l", "later", None)])]).unwrap();
        store.state.flush().unwrap();
        source.apply(&[Entry { id: log_id(5), payload: Payload::Membership(Membership::default()) }]).unwrap();

        let expected = StoredMembership { at: Some(log_id(3)), members };
        assert_eq!(*pinned.meta(), SnapshotMeta { applied: Some(log_id(3)), membership: expected.clone() });
        for target in [TARGET, ReplicaId(u64::MAX), ReplicaId(0)] {
            let files = pinned.write_files(&store.staging(), target).unwrap();
            let mut replica = open(&store.state, target);
            replica.install(&files, pinned.meta()).unwrap();
            assert_eq!(store.hash(target), before, "{twin:?}");
            assert_eq!(*replica.membership(), expected);
        }
        assert_eq!(store.state.replicas().unwrap(), [ReplicaId(0), SOURCE, TARGET, ReplicaId(u64::MAX)]);
    }
}

/// A view that is open while a snapshot is installed keeps seeing what it saw.
#[test]
fn an_open_view_does_not_see_an_install() {
    for twin in TWINS {
        let store = Store::new(twin);
        let mut source = open(&store.state, SOURCE);
        source.apply(&history(&[("k", "new")])).unwrap();
        let mut target = open(&store.state, TARGET);
        target.apply(&history(&[("k", "old"), ("old", "x")])).unwrap();
        let (files, meta) = export(&store, &source, TARGET);
        let mut seen = Vec::new();
        let state = store.state.clone();
        state
            .view(&mut |view| {
                seen.push(view.get(TARGET, Space::Data, b"k")?);
                target.install(&files, &meta)?;
                seen.push(view.get(TARGET, Space::Data, b"k")?);
                assert!(view.get(TARGET, Space::Data, b"old")?.is_some());
                Ok(())
            })
            .unwrap();
        assert!(seen[0].is_some());
        assert_eq!(seen[0], seen[1], "{twin:?}");
        assert_eq!(texts(&*store.state, TARGET, &["k", "old"]), [Some("new".into()), None]);
    }
}

/// The snapshot of a replica without any state empties its target.
#[test]
fn an_empty_snapshot_empties_the_target() {
    for twin in TWINS {
        let store = Store::new(twin);
        let source = open(&store.state, SOURCE);
        let mut target = open(&store.state, TARGET);
        target.apply(&history(&[("k", "v")])).unwrap();
        let (files, meta) = export(&store, &source, TARGET);
        assert_eq!(meta, SnapshotMeta::default());
        target.install(&files, &meta).unwrap();
        assert_eq!(store.hash(TARGET), store.hash(SOURCE), "{twin:?}");
        assert_eq!(store.state.replicas().unwrap(), []);
        target.apply(&history(&[("k", "again")])).unwrap();
    }
}

/// Destroying a replica leaves its neighbours alone, and a snapshot can fill its id again.
#[test]
fn destroying_one_replica_leaves_the_others() {
    for twin in TWINS {
        let store = Store::new(twin);
        let [low, middle, high] = [1, 2, 3].map(|id| {
            let mut replica = open(&store.state, ReplicaId(id));
            replica.apply(&history(&[("k", "v"), ("\u{10ffff}", "v")])).unwrap();
            replica
        });
        let before = store.hash(ReplicaId(3));
        store.state.destroy(ReplicaId(2)).unwrap();
        drop(middle);
        assert_eq!(store.state.replicas().unwrap(), [ReplicaId(1), ReplicaId(3)], "{twin:?}");
        assert_eq!((store.hash(ReplicaId(1)), store.hash(ReplicaId(3))), (before, before));
        assert_eq!(open(&store.state, ReplicaId(2)).head(), Default::default());
        store.state.flush().unwrap();
        assert_eq!(store.state.replicas().unwrap(), [ReplicaId(1), ReplicaId(3)], "{twin:?}");
        drop((low, high));
    }
}

/// Files that are not what they should be are refused, and the target is as before.
#[test]
fn wrong_files_are_refused() {
    for twin in TWINS {
        let store = Store::new(twin);
        let mut source = open(&store.state, SOURCE);
        source.apply(&history(&[("k", "v")])).unwrap();
        let mut target = open(&store.state, TARGET);
        target.apply(&history(&[("mine", "v")])).unwrap();
        let before = store.hash(TARGET);
        let mut refuse = |files: &[PathBuf], meta: &SnapshotMeta, reason: &str| {
            let error = target.install(files, meta).unwrap_err();
            assert!(matches!(&error, StateError::Snapshot { .. }), "{twin:?}: {error}");
            assert!(error.to_string().contains(reason), "{twin:?}: {error}");
            assert_eq!(store.hash(TARGET), before);
        };

        let (files, meta) = export(&store, &source, ReplicaId(3));
        refuse(&files, &meta, "keys that are not replica 2's");
        let (files, meta) = export(&store, &source, TARGET);
        let other = SnapshotMeta { applied: Some(log_id(77)), ..meta.clone() };
        refuse(&files, &other, "another head");
        let membership = StoredMembership { at: Some(log_id(1)), ..StoredMembership::default() };
        refuse(&files, &SnapshotMeta { membership, ..meta.clone() }, "another head");
        refuse(&[], &meta, "one file");
        refuse(&[files[0].with_extension("absent")], &meta, "No such file");
        let mut bytes = std::fs::read(&files[0]).unwrap();
        let middle = bytes.len() / 2;
        bytes.truncate(middle);
        let cut = files[0].with_extension("cut");
        std::fs::write(&cut, bytes).unwrap();
        refuse(&[cut], &meta, "");

        target.install(&files, &meta).unwrap();
        assert_eq!(store.hash(TARGET), store.hash(SOURCE), "refusals spoil nothing");
    }
}

/// A bit that flipped on the disk between the arrival of a file and its installation is found before anything is replaced: the node
/// noticed it only when it read the records, and could not start any more.
#[test]
fn a_snapshot_that_rotted_before_it_was_installed_replaced_a_good_state() {
    let store = Store::new(Twin::Rocks);
    let mut source = open(&store.state, SOURCE);
    let records: Vec<(String, String)> = (0..300).map(|i| (format!("k{i:03}"), format!("{i}").repeat(500))).collect();
    source.apply(&history(&records.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>())).unwrap();
    let mut target = open(&store.state, TARGET);
    target.apply(&history(&[("mine", "v")])).unwrap();
    let before = store.hash(TARGET);
    let (files, meta) = export(&store, &source, TARGET);
    let whole = std::fs::read(&files[0]).unwrap();
    for tenth in 1..6 {
        let mut bytes = whole.clone();
        let at = bytes.len() / 10 * tenth;
        bytes[at] ^= 1;
        let rotten = files[0].with_extension(format!("rotten{tenth}"));
        std::fs::write(&rotten, bytes).unwrap();
        let error = target.install(&[rotten], &meta).unwrap_err();
        assert!(
            matches!(&error, StateError::Snapshot { reason, .. } if reason.contains("checksum")),
            "byte {at}: {error}"
        );
        assert_eq!(store.hash(TARGET), before);
    }
    target.install(&files, &meta).unwrap();
    assert_eq!(store.hash(TARGET), store.hash(SOURCE));
}

/// A database whose compactions are behind it gives the same answers: nothing that a tombstone covered comes back.
#[test]
fn what_was_replaced_does_not_come_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let before;
    {
        let state: Arc<dyn State> = Arc::new(open_rocks(dir.path()));
        let mut source = open(&state, SOURCE);
        source.apply(&history(&[("k", "v")])).unwrap();
        let mut target = open(&state, TARGET);
        target.apply(&history(&[("old", "v")])).unwrap();
        for round in 0..8 {
            let pinned = source.pin().unwrap();
            let staging = tempfile::tempdir().unwrap();
            target.install(&pinned.write_files(staging.path(), TARGET).unwrap(), pinned.meta()).unwrap();
            let stray = (Space::Data, format!("stray-{round}").into_bytes(), Some(value("x").as_bytes().to_vec()));
            state.write(TARGET, Batch { operations: vec![stray] }).unwrap();
            state.flush().unwrap();
        }
        let pinned = source.pin().unwrap();
        let staging = tempfile::tempdir().unwrap();
        target.install(&pinned.write_files(staging.path(), TARGET).unwrap(), pinned.meta()).unwrap();
        before = hash_of(&*state, SOURCE);
        assert_eq!(hash_of(&*state, TARGET), before);
    }
    let state = open_rocks(dir.path());
    assert_eq!(hash_of(&state, TARGET), before);
    assert_eq!(hash_of(&state, SOURCE), before);
}

/// A shard that moves from replica to replica by snapshots keeps its exactly-once promise to every session.
#[test]
fn sessions_move_with_the_snapshot() {
    for twin in TWINS {
        let mut shard = Shard::new(twin);
        shard.say(vec![bootstrap(1)]);
        shard.say(vec![Command::OpenSession { epoch: 1 }; 3]);
        let write = |session| put(session, 1, 1, &format!("k{session}"), "once", None);
        let first = shard.say(vec![write(1), write(2), write(3)]);
        for target in 2..5 {
            shard.move_to(ReplicaId(target));
            assert_eq!(shard.say(vec![write(1), write(2), write(3)]), first, "{twin:?}");
        }
        assert_eq!(shard.replica().head().revision, 3);
    }
}
