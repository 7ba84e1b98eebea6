//! Tests of snapshots of a replica's state: their content, the state that they replace, and
//! refusals. Run on `crate::new_store`.
#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

use std::path::PathBuf;

use quorate_machine::keys::Space;
use quorate_machine::state::{Batch, State, StateError};
use quorate_types::peer::SnapshotMeta;
use quorate_types::state::StoredMembership;
use quorate_types::{Command, Entry, Membership, NodeId, Payload, ReplicaId};

use crate::new_store;
use crate::state_support::{Shard, bootstrap, entry, export, key, log_id, open, put, read};

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

/// An installed snapshot replaces the target's whole state: keys in the snapshot, other keys and
/// deleted keys, whether in files, in the memtable or in both.
#[test]
fn snapshot_replaces_the_whole_state() {
    let store = new_store();
    let mut source = open(&store.state, SOURCE);
    source.apply(&history(&[("kept", "new"), ("deleted", "back"), ("m", "new")])).unwrap();

    let old =
        history(&[("kept", "old"), ("a", "old"), ("deleted", "old"), ("z", "old"), ("kept", "old2"), ("hot", "old")]);
    let mut target = open(&store.state, TARGET);
    target.apply(&old[..6]).unwrap();
    store.state.flush().unwrap();
    let gone = vec![(Space::Data, b"deleted".to_vec(), None), (Space::Data, b"\xff\xff".to_vec(), Some(vec![1]))];
    store.state.write(TARGET, Batch { operations: gone }).unwrap();
    target.apply(&old[6..]).unwrap();

    let (files, meta) = export(&store, &source, TARGET);
    assert_eq!(meta, SnapshotMeta { applied: Some(log_id(4)), membership: StoredMembership::default() });
    target.install(&files, &meta).unwrap();

    assert_eq!(store.hash(TARGET), store.hash(SOURCE));
    assert_eq!(target.head(), source.head());
    let expected = [Some("new".into()), Some("back".into()), Some("new".into()), None, None, None];
    assert_eq!(texts(&*store.state, TARGET, &["kept", "deleted", "m", "a", "z", "hot"]), expected);
    assert!(files.iter().all(|file| !file.exists()), "the files are consumed");

    // The target continues from there, and a restart preserves its state.
    let next = entry(5, 2000, vec![put(1, 4, 1, "a", "later", None), put(1, 1, 1, "kept", "retry", None)]);
    let replies = (source.apply(std::slice::from_ref(&next)).unwrap(), target.apply(&[next]).unwrap());
    assert_eq!(replies.0, replies.1);
    assert_eq!(store.hash(TARGET), store.hash(SOURCE));
}

/// A snapshot may replace an installed one, repeatedly, with and without a flush.
#[test]
fn snapshot_replaces_an_installed_snapshot() {
    let store = new_store();
    let mut source = open(&store.state, SOURCE);
    let mut target = open(&store.state, TARGET);
    source.apply(&history(&[])).unwrap();
    for round in 0..12u64 {
        let name = format!("key-{}", round % 5);
        let write = put(1, round + 1, round, &name, &format!("round {round}"), None);
        source.apply(&[entry(2 + round, 1000, vec![write])]).unwrap();
        let (files, meta) = export(&store, &source, TARGET);
        target.install(&files, &meta).unwrap();
        assert_eq!(store.hash(TARGET), store.hash(SOURCE), "round {round}");
        let stray = vec![(Space::Data, format!("stray-{round}").into_bytes(), Some(vec![0]))];
        store.state.write(TARGET, Batch { operations: stray }).unwrap();
        if round % 3 == 0 {
            store.state.flush().unwrap();
        }
    }
}

/// An installed snapshot survives an immediate crash without a flush.
#[test]
fn installed_snapshot_is_durable() {
    let mut store = new_store();
    let mut source = open(&store.state, SOURCE);
    source.apply(&history(&[("k", "v")])).unwrap();
    let mut target = open(&store.state, TARGET);
    target.apply(&history(&[("old", "x"), ("old2", "x")])).unwrap();
    let (files, meta) = export(&store, &source, TARGET);
    target.install(&files, &meta).unwrap();
    let installed = store.hash(TARGET);
    store.crash();
    assert_eq!(store.hash(TARGET), installed);
    assert_eq!(texts(&*store.state, TARGET, &["k", "old"]), [Some("v".into()), None]);
}

/// A pinned state does not change, neither its metadata nor its data, and can be exported for
/// several targets.
#[test]
fn pinned_state_does_not_change() {
    let store = new_store();
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
        assert_eq!(store.hash(target), before);
        assert_eq!(*replica.membership(), expected);
    }
    assert_eq!(store.state.replicas().unwrap(), [ReplicaId(0), SOURCE, TARGET, ReplicaId(u64::MAX)]);
}

/// A view opened before an installation keeps its state.
#[test]
fn open_view_does_not_see_an_installation() {
    let store = new_store();
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
    assert_eq!(seen[0], seen[1]);
    assert_eq!(texts(&*store.state, TARGET, &["k", "old"]), [Some("new".into()), None]);
}

/// The snapshot of a replica without state empties its target.
#[test]
fn empty_snapshot_empties_the_target() {
    let store = new_store();
    let source = open(&store.state, SOURCE);
    let mut target = open(&store.state, TARGET);
    target.apply(&history(&[("k", "v")])).unwrap();
    let (files, meta) = export(&store, &source, TARGET);
    assert_eq!(meta, SnapshotMeta::default());
    target.install(&files, &meta).unwrap();
    assert_eq!(store.hash(TARGET), store.hash(SOURCE));
    assert_eq!(store.state.replicas().unwrap(), []);
    target.apply(&history(&[("k", "again")])).unwrap();
}

/// Destroying a replica leaves the others unchanged, and a snapshot can fill its id again.
#[test]
fn destroying_a_replica_leaves_the_others() {
    let store = new_store();
    let [low, middle, high] = [1, 2, 3].map(|id| {
        let mut replica = open(&store.state, ReplicaId(id));
        replica.apply(&history(&[("k", "v"), ("\u{10ffff}", "v")])).unwrap();
        replica
    });
    let before = store.hash(ReplicaId(3));
    store.state.destroy(ReplicaId(2)).unwrap();
    drop(middle);
    assert_eq!(store.state.replicas().unwrap(), [ReplicaId(1), ReplicaId(3)]);
    assert_eq!((store.hash(ReplicaId(1)), store.hash(ReplicaId(3))), (before, before));
    assert_eq!(open(&store.state, ReplicaId(2)).head(), Default::default());
    store.state.flush().unwrap();
    assert_eq!(store.state.replicas().unwrap(), [ReplicaId(1), ReplicaId(3)]);
    drop((low, high));
}

/// Corrupt or unexpected files are refused, and the target is unchanged.
#[test]
fn unexpected_files_are_refused() {
    let store = new_store();
    let mut source = open(&store.state, SOURCE);
    source.apply(&history(&[("k", "v")])).unwrap();
    let mut target = open(&store.state, TARGET);
    target.apply(&history(&[("mine", "v")])).unwrap();
    let before = store.hash(TARGET);
    let refuse = |files: &[PathBuf], meta: &SnapshotMeta, reason: &str| {
        let error = store.state.verify(TARGET, files, meta, &mut || {}).unwrap_err();
        assert!(matches!(&error, StateError::Snapshot { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(store.hash(TARGET), before);
    };

    let (files, meta) = export(&store, &source, ReplicaId(3));
    refuse(&files, &meta, "keys that are not replica 2's");
    let (files, meta) = export(&store, &source, TARGET);
    let other = SnapshotMeta { applied: Some(log_id(77)), ..meta.clone() };
    refuse(&files, &other, "differ from the announced");
    let membership = StoredMembership { at: Some(log_id(1)), ..StoredMembership::default() };
    refuse(&files, &SnapshotMeta { membership, ..meta.clone() }, "differ from the announced");
    refuse(&[], &meta, "one file");
    let absent = store.state.verify(TARGET, &[files[0].with_extension("absent")], &meta, &mut || {}).unwrap_err();
    assert!(matches!(&absent, StateError::Io(_)) && absent.to_string().contains("No such file"), "{absent}");
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes.truncate(middle);
    let cut = files[0].with_extension("cut");
    std::fs::write(&cut, bytes).unwrap();
    refuse(&[cut], &meta, "");

    store.state.verify(TARGET, &files, &meta, &mut || {}).unwrap();
    assert_eq!(store.hash(TARGET), before, "a verification changes nothing");
    target.install(&files, &meta).unwrap();
    assert_eq!(store.hash(TARGET), store.hash(SOURCE), "refusals change nothing");
}

/// A shard that moves between replicas by snapshots keeps the outcomes of every session.
#[test]
fn sessions_move_with_the_snapshot() {
    let mut shard = Shard::new(new_store());
    shard.say(vec![bootstrap(1)]);
    shard.say(vec![Command::OpenSession { epoch: 1 }; 3]);
    let write = |session| put(session, 1, 1, &format!("k{session}"), "once", None);
    let first = shard.say(vec![write(1), write(2), write(3)]);
    for target in 2..5 {
        shard.move_to(ReplicaId(target));
        assert_eq!(shard.say(vec![write(1), write(2), write(3)]), first);
    }
    assert_eq!(shard.replica().head().revision, 3);
}
