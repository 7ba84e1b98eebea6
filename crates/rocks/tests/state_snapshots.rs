//! Snapshots of a replica's state on disk: damaged files, and compactions after an installation.
#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

mod state_support;

use std::sync::Arc;

use quorate_machine::keys::Space;
use quorate_machine::state::{Batch, State, StateError};
use quorate_types::{Command, Entry, ReplicaId};
use state_support::{bootstrap, entry, export, hash_of, on_disk, open, open_rocks, put, value};

const SOURCE: ReplicaId = ReplicaId(1);
const TARGET: ReplicaId = ReplicaId(2);

/// Entries that put `keys` into a new shard.
fn history(keys: &[(&str, &str)]) -> Vec<Entry> {
    let mut commands = vec![bootstrap(1), Command::OpenSession { epoch: 1 }];
    commands.extend((1..).zip(keys).map(|(sequence, (name, text))| put(1, sequence, 1, name, text, None)));
    commands.into_iter().zip(0..).map(|(command, index)| entry(index, 1000, vec![command])).collect()
}

/// A bit that flips on disk after a file's arrival is detected before the installation replaces
/// anything. (It was once noticed only when records were read, and the node could not start.)
#[test]
fn rotten_snapshot_does_not_replace_a_good_state() {
    let store = on_disk();
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
        let error = store.state.verify(TARGET, &[rotten], &meta, &mut || {}).unwrap_err();
        assert!(
            matches!(&error, StateError::Snapshot { reason, .. } if reason.contains("checksum")),
            "byte {at}: {error}"
        );
        assert_eq!(store.hash(TARGET), before);
    }
    target.install(&files, &meta).unwrap();
    assert_eq!(store.hash(TARGET), store.hash(SOURCE));
}

/// After compactions and a restart the state is the same: no key covered by a tombstone comes back.
#[test]
fn replaced_keys_stay_gone_after_a_restart() {
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
