//! Kills a node while it applies entries: its disk must hold the complete state after some entry.
#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

mod state_support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_machine::keys::Space;
use quorate_machine::state::{Batch, MemoryState, State};
use quorate_rocks::{RocksState, StateOptions};
use quorate_types::{Command, Condition, Entry, ReplicaId};
use state_support::{bootstrap, copy_database, entry, hash_of, open, put};

/// Environment variable for the killed process: its directory.
const DIR: &str = "QUORATE_TEST_STATE_DIR";
const REPLICAS: [ReplicaId; 3] = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];
const KILLS: usize = 12;

/// Opens a state with such small memtables that RocksDB flushes many times a second.
fn open_small(dir: &Path) -> Arc<dyn State> {
    let options = StateOptions::with_cache_bytes(1 << 20).memtable_bytes(64 << 10);
    Arc::new(RocksState::open(dir, options).unwrap())
}

/// The entry at an index is fixed, so that a state can be compared with a replay.
fn scripted(index: u64) -> Entry {
    if index == 0 {
        return entry(0, 1000, vec![bootstrap(1), Command::OpenSession { epoch: 1 }]);
    }
    let counter = index.to_string();
    let long = counter.repeat(1 + (index % 40) as usize);
    let first = index * 4;
    let lowest = first.saturating_sub(8 + index % 7).max(1);
    entry(
        index,
        1000 + index,
        vec![
            put(1, first, lowest, "counter", &counter, None),
            put(1, first + 1, lowest, &format!("key-{}", index % 97), &long, None),
            put(1, first + 2, lowest, &format!("key-{}", index % 31), &long, Some(Condition::Exists)),
        ],
    )
}

/// Not a test: the process that is killed. It applies entries to three replicas and reports its
/// flushes.
#[test]
#[ignore = "run by the test below"]
fn child_applies_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let state = open_small(Path::new(&dir));
    let mut replicas = REPLICAS.map(|id| open(&state, id));
    let start = Instant::now();
    // The parent kills it long before the end.
    for round in 0.. {
        for (replica, batch) in replicas.iter_mut().zip([1, 3, 7]) {
            let next = replica.head().applied.map_or(0, |applied| applied.index + 1);
            let entries: Vec<_> = (next..next + batch).map(scripted).collect();
            replica.apply(&entries).unwrap();
        }
        if round % 100 == 99 {
            let applied = replicas.each_ref().map(|replica| replica.head().applied.unwrap().index);
            state.flush().unwrap();
            println!("\nflushed {} {} {}", applied[0], applied[1], applied[2]);
        }
        assert!(start.elapsed() < Duration::from_secs(60), "this process was not killed in time");
    }
}

/// After each kill, every replica's head and data equal a replay up to one entry. Flushed entries
/// are not lost, and the next process continues from there.
#[test]
fn killed_node_has_a_prefix_of_its_entries() {
    let dir = tempfile::tempdir().unwrap();
    let replay: Arc<dyn State> = Arc::new(MemoryState::new());
    let mut replayed = REPLICAS.map(|id| open(&replay, id));
    let mut lost_some = false;
    for kill in 0..KILLS {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_applies_until_it_is_killed", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut flushed = [0; 3];
        let mut note = |line: String| {
            if let Some(indexes) = line.strip_prefix("flushed ") {
                let indexes: Vec<u64> = indexes.split(' ').map(|index| index.parse().unwrap()).collect();
                flushed.copy_from_slice(&indexes);
                return true;
            }
            false
        };
        // Some time after its second flush, different each time.
        let mut flushes = 0;
        while flushes < 2 {
            flushes += u32::from(note(lines.next().expect("the child is alive").unwrap()));
        }
        std::thread::sleep(Duration::from_millis(7 * kill as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            note(line);
        }

        let state = open_small(dir.path());
        for ((id, replayed), flushed) in REPLICAS.into_iter().zip(&mut replayed).zip(flushed) {
            let applied = open(&state, id).head().applied.expect("some of it was flushed").index;
            assert!(applied >= flushed, "replica {id} lost flushed entries: {applied} < {flushed}");
            lost_some |= applied > flushed;
            let next = replayed.head().applied.map_or(0, |applied| applied.index + 1);
            for index in next..=applied {
                replayed.apply(&[scripted(index)]).unwrap();
            }
            assert_eq!(
                replayed.head().applied.map(|applied| applied.index),
                Some(applied),
                "no kill takes back an older one"
            );
            assert_eq!(
                hash_of(&*state, id),
                hash_of(&*replay, id),
                "replica {id} after kill {kill}, at entry {applied}"
            );
        }
    }
    assert!(lost_some, "RocksDB flushed between our flushes, so that the kills met it at arbitrary entries");
}

/// The manifest of a database, which lists its files.
fn manifest(dir: &Path) -> std::path::PathBuf {
    dir.join(std::fs::read_to_string(dir.join("CURRENT")).unwrap().trim_end())
}

/// A manifest whose last record ends in an unwritten page is repaired: the state is that of the
/// flush before, and the last flush was never reported. (After a failed sync, a node once failed to
/// start with "checksum mismatch" in its manifest.)
#[test]
fn manifest_ending_in_an_unwritten_page_is_repaired() {
    const PAGE: usize = 4096;
    let number = |state: &dyn State| {
        let mut found = None;
        state
            .view(&mut |view| {
                found = view.get(REPLICAS[0], Space::Data, b"number")?;
                Ok(())
            })
            .unwrap();
        u64::from_le_bytes(found.unwrap().try_into().unwrap())
    };
    let original = tempfile::tempdir().unwrap();
    let state = open_small(original.path());
    let (mut torn, mut lost) = (0, 0);
    for flush in 0_u64.. {
        let copies = tempfile::tempdir().unwrap();
        let (earlier, copy) = (copies.path().join("earlier"), copies.path().join("copy"));
        copy_database(original.path(), &earlier);
        let before = std::fs::metadata(manifest(&earlier)).unwrap().len() as usize;
        let operations = vec![(Space::Data, b"number".to_vec(), Some(flush.to_le_bytes().to_vec()))];
        state.write(REPLICAS[0], Batch { operations }).unwrap();
        state.flush().unwrap();
        let boundary = before.next_multiple_of(PAGE);
        copy_database(original.path(), &copy);
        let mut bytes = std::fs::read(manifest(&copy)).unwrap();
        let tables = |dir: &Path| {
            let names = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
            names.filter(|name| name.extension().is_some_and(|extension| extension == "sst")).count()
        };
        // Files are deleted only after a manifest without them is synced, so skip copies in which a
        // fast compaction changed the files.
        if bytes.len() <= boundary || flush == 0 || tables(&copy) != tables(&earlier) + 1 {
            continue;
        }
        bytes[boundary..].fill(0);
        std::fs::write(manifest(&copy), bytes).unwrap();
        for _ in 0..2 {
            let found = number(&*open_small(&copy));
            // A flush may end before the page, with a smaller record after it.
            assert!((flush - 1..=flush).contains(&found), "at flush {flush}: {found}");
            lost += usize::from(found < flush);
        }
        torn += 1;
        if torn == 3 {
            break;
        }
    }
    assert!(lost > 0, "no flush was torn");
}

/// Rot in a manifest is not an unwritten page, and a database that may miss files is not opened.
#[test]
fn rotten_manifest_is_refused() {
    let original = tempfile::tempdir().unwrap();
    {
        let state = open_small(original.path());
        for flush in 0_u8..40 {
            let operations = vec![(Space::Data, b"number".to_vec(), Some(vec![flush]))];
            state.write(REPLICAS[0], Batch { operations }).unwrap();
            state.flush().unwrap();
        }
    }
    let length = std::fs::metadata(manifest(original.path())).unwrap().len() as usize;
    for at in (20..length - 20).step_by(97) {
        let copies = tempfile::tempdir().unwrap();
        let copy = copies.path().join("copy");
        copy_database(original.path(), &copy);
        let mut bytes = std::fs::read(manifest(&copy)).unwrap();
        bytes[at] ^= 0x10;
        std::fs::write(manifest(&copy), bytes).unwrap();
        let opened = RocksState::open(&copy, StateOptions::with_cache_bytes(1 << 20));
        assert!(opened.is_err(), "byte {at} of {length}");
    }
}
