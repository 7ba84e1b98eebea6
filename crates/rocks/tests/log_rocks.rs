//! Tests of the log on disk: group commit, cold reads, reclaimed space, and damage.

#![allow(clippy::unwrap_used, reason = "a test, helpers included, fails by panicking")]

mod disk_support;
mod log_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use disk_support::copy_database;
use log_support::*;
use quorate_machine::keys::{LogSpace, log_entry_key, log_key};
use quorate_machine::log::{Done, Log, LogError, QUEUE_BYTES_MAX};
use quorate_rocks::{LogOptions, RocksLog};
use quorate_types::codec::CodecError;
use quorate_types::{GroupId, ReplicaId};

/// A closed log with one replica and this many entries of a kilobyte, all in the write-ahead log.
fn closed_log(count: u64) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let log = RocksLog::open(directory.path(), LogOptions::default()).unwrap();
    log.create(A, GroupId(1)).unwrap();
    for index in 0..count {
        append(&log, A, vec![entry(id(1, index), 1_000)]);
    }
    directory
}

/// The largest file with this extension.
fn file(directory: &Path, extension: &str) -> PathBuf {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap());
    let files = files.filter(|file| file.path().extension().is_some_and(|found| found == extension));
    files.max_by_key(|file| file.metadata().unwrap().len()).expect("there is such a file").path()
}

/// A copy of the files that a crash at this moment would leave.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    fs::remove_dir(to.path()).unwrap();
    copy_database(from, to.path());
    to
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn refusal(path: &Path) -> LogError {
    RocksLog::open(path, small()).err().expect("this must not open")
}

/// Concurrent appends share syncs: many replicas with one append in flight each need far fewer
/// syncs than appends.
#[test]
fn concurrent_appends_share_syncs() {
    const REPLICAS: u64 = 32;
    const APPENDS: u64 = 100;
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    (1..=REPLICAS).for_each(|replica| log.create(ReplicaId(replica), GroupId(1)).unwrap());
    let before = log.syncs();
    std::thread::scope(|scope| {
        for replica in 1..=REPLICAS {
            let log = &log;
            scope.spawn(move || {
                (0..APPENDS).for_each(|index| append(log, ReplicaId(replica), vec![entry(id(1, index), 200)]));
            });
        }
    });
    let syncs = log.syncs() - before;
    assert!(syncs >= APPENDS, "{syncs} syncs cannot have answered {APPENDS} appends in a row");
    assert!(syncs < REPLICAS * APPENDS / 2, "{syncs} syncs for {} appends", REPLICAS * APPENDS);
    for replica in 1..=REPLICAS {
        assert_eq!(all(&log, ReplicaId(replica)).len() as u64, APPENDS);
    }
}

/// A commit mark alone is not written. A purge is synced although it has no callback, so that only
/// the very last write can be torn.
#[test]
fn every_write_is_synced() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.create(A, GroupId(1)).unwrap();
    let drain = || {
        while log.queued_bytes() > 0 {
            std::thread::yield_now();
        }
    };
    append(&log, A, entries(1, 0..10));
    drain();
    let before = log.syncs();
    log.save_committed(A, Some(id(1, 9)));
    assert_eq!((log.queued_bytes(), log.syncs()), (0, before));
    log.purge(A, id(1, 3));
    drain();
    assert_eq!(log.syncs(), before + 1);
}

/// Entries evicted from memory are read from disk, and reads across the border have no seam, while
/// other entries are appended, purged and truncated.
#[test]
fn evicted_entries_are_read_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    log.create(A, GroupId(1)).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for index in 0..3_000 {
                append(&log, A, vec![entry(id(1, index), 1_000)]);
                if index % 100 == 99 {
                    log.purge(A, id(1, index - 90));
                    // Rewrite the end with the same entries.
                    wait(|done| log.truncate_after(A, Some(id(1, index - 50)), done)).unwrap();
                    append(&log, A, (index - 49..=index).map(|i| entry(id(1, i), 1_000)).collect());
                }
            }
        });
        let mut reads = 0;
        while !writer.is_finished() || reads == 0 {
            let read = all(&log, A);
            for pair in read.windows(2) {
                assert_eq!(pair[0].id.index + 1, pair[1].id.index);
            }
            for found in &read {
                assert_eq!(*found, entry(found.id, 1_000));
            }
            reads += 1;
        }
    });
    assert_eq!(indexes(&log, A), (2_910..3_000).collect::<Vec<_>>());
}

/// The space of purged and destroyed entries is reclaimed when writes stop.
#[test]
fn purged_space_is_reclaimed() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    for replica in [A, B] {
        log.create(replica, GroupId(1)).unwrap();
        append_megabytes(&log, replica, 10);
    }
    assert!(table_bytes(directory.path()) > 10 << 20, "{}", table_bytes(directory.path()));
    log.purge(A, id(1, 998));
    log.destroy(B).unwrap();
    wait_for_table_bytes(directory.path(), 4 << 20);
    assert_eq!(indexes(&log, A), [999]);
}

/// Space is reclaimed only up to the durable purge mark. (It was once reclaimed up to a purge that
/// was still queued; a crash then left a log without its first entries, and the node did not
/// start.)
#[test]
fn space_is_reclaimed_only_up_to_the_durable_purge_mark() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    [A, B].into_iter().for_each(|replica| log.create(replica, GroupId(1)).unwrap());
    append_megabytes(&log, A, 40);
    // Block the writer, so that the following operations are queued in three parts: a part ends
    // before a large append.
    let (first, go_on) = held_up();
    let (second, finish) = held_up();
    log.save_vote(B, vote(1, false), first);
    go_on.recv().unwrap();
    log.purge(A, id(1, 1_999));
    log.append(B, vec![entry(id(1, 0), 9 << 20)], second);
    log.purge(A, id(1, 3_998));
    drop(go_on);
    wait_for_table_bytes(directory.path(), 32 << 20);
    let crashed = copy(directory.path());
    drop(finish);
    assert_eq!(indexes(&open(crashed.path()), A), (2_000..4_000).collect::<Vec<_>>());
}

/// A `Done` that blocks the writer, after reporting so, until the receiver is dropped.
fn held_up() -> (Done, mpsc::Receiver<()>) {
    let (sender, receiver) = mpsc::sync_channel(0);
    (Box::new(move |_| while sender.send(()).is_ok() {}), receiver)
}

/// Appends a hundred entries of term 1 per megabyte.
fn append_megabytes(log: &RocksLog, replica: ReplicaId, megabytes: u64) {
    for index in 0..10 * megabytes {
        append(log, replica, (0..10).map(|i| entry(id(1, index * 10 + i), 10_000)).collect());
    }
}

fn table_bytes(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).unwrap().flatten();
    let tables = files.filter(|file| file.path().extension().is_some_and(|e| e == "sst"));
    tables.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
}

fn wait_for_table_bytes(directory: &Path, at_most: u64) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while table_bytes(directory) > at_most {
        assert!(Instant::now() < give_up, "still {} bytes", table_bytes(directory));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A flipped bit anywhere before the last block of the write-ahead log is detected at open.
#[test]
fn flipped_bit_in_the_write_ahead_log_is_refused() {
    let original = closed_log(200);
    let length = fs::metadata(file(original.path(), "log")).unwrap().len() as usize;
    for at in (100..length - (40 << 10)).step_by(10_007) {
        let damaged = copy(original.path());
        flip(&file(damaged.path(), "log"), at);
        let refused = refusal(damaged.path());
        assert!(matches!(&refused, LogError::Io(why) if why.contains("Corruption")), "byte {at}: {refused}");
    }
}

/// A flipped bit in a table file is detected at open, although RocksDB itself opens the file.
#[test]
fn flipped_bit_in_a_table_is_refused() {
    let original = closed_log(200);
    // Opening moves the write-ahead log into a table.
    drop(open(original.path()));
    let length = fs::metadata(file(original.path(), "sst")).unwrap().len() as usize;
    for at in (100..length / 10 * 9).step_by(20_011) {
        let damaged = copy(original.path());
        flip(&file(damaged.path(), "sst"), at);
        let refused = refusal(damaged.path());
        assert!(matches!(&refused, LogError::Io(why) if why.contains("orruption")), "byte {at}: {refused}");
    }
}

/// A last write that is incomplete on disk is dropped, and nothing else.
#[test]
fn incomplete_last_write_is_dropped() {
    let original = closed_log(50);
    let length = fs::metadata(file(original.path(), "log")).unwrap().len();
    for cut in [1, 7, 300, 1_000] {
        let torn = copy(original.path());
        fs::OpenOptions::new().write(true).open(file(torn.path(), "log")).unwrap().set_len(length - cut).unwrap();
        let log = open(torn.path());
        assert_eq!(indexes(&log, A), (0..49).collect::<Vec<_>>(), "cut by {cut}");
        append(&log, A, vec![entry(id(2, 49), 10)]);
        drop(log);
        assert_eq!(all(&open(torn.path()), A).last().unwrap().id, id(2, 49));
    }
}

/// Overwrites a sector of a file with zeros, as if it was never written.
fn unwrite(path: &Path, sector: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[sector * 512..(sector + 1) * 512].fill(0);
    fs::write(path, bytes).unwrap();
}

/// A last write with unwritten sectors is dropped, and nothing else. (After power cuts, a node once
/// failed to start with "checksum mismatch".)
#[test]
fn last_write_with_unwritten_sectors_is_dropped() {
    for last_bytes in [2_000, 90_000] {
        let whole = tempfile::tempdir().unwrap();
        let log = RocksLog::open(whole.path(), LogOptions::default()).unwrap();
        log.create(A, GroupId(1)).unwrap();
        for index in 0..50 {
            append(&log, A, vec![entry(id(1, index), 1_000)]);
        }
        let length = || fs::metadata(file(whole.path(), "log")).unwrap().len() as usize;
        let before = length();
        append(&log, A, vec![entry(id(1, 50), last_bytes)]);
        let last = before.div_ceil(512)..length() / 512;
        drop(log);
        for sector in last.clone().step_by(last.len() / 5 + 1) {
            let torn = copy(whole.path());
            unwrite(&file(torn.path(), "log"), sector);
            // RocksDB may have created the next file and crashed.
            fs::write(torn.path().join("999999.log"), "").unwrap();
            let log = open(torn.path());
            assert_eq!(
                indexes(&log, A),
                (0..50).collect::<Vec<_>>(),
                "{last_bytes} bytes, sector {sector} of {last:?}"
            );
            append(&log, A, vec![entry(id(2, 50), 10)]);
            drop(log);
            assert_eq!(all(&open(torn.path()), A).last().unwrap().id, id(2, 50));
        }
    }
}

/// A hole of a few bytes is detected at the start of a page. (After a failed sync, a node once
/// failed to start because its last write ended twelve bytes into an unwritten page.)
#[test]
fn last_write_ending_in_an_unwritten_page_is_dropped() {
    for into_the_page in [1, 12, 15, 300] {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path());
        log.create(A, GroupId(1)).unwrap();
        let length = || fs::metadata(file(directory.path(), "log")).unwrap().len() as usize;
        let empty = length();
        append(&log, A, vec![entry(id(1, 0), 1_000)]);
        let overhead = length() - empty - 1_000;
        let size = 2 * 4096 + into_the_page - length() - overhead;
        append(&log, A, vec![entry(id(1, 1), size)]);
        assert_eq!(length(), 2 * 4096 + into_the_page);
        drop(log);
        let path = file(directory.path(), "log");
        let mut bytes = fs::read(&path).unwrap();
        bytes[2 * 4096..].fill(0);
        fs::write(&path, bytes).unwrap();
        assert_eq!(indexes(&open(directory.path()), A), [0], "{into_the_page} bytes");
    }
}

/// Unwritten sectors in a write that others followed are damage: it was acknowledged. (As with
/// flipped bits, RocksDB itself takes a header of zeros in the last block for the end.)
#[test]
fn unwritten_sectors_before_the_last_write_are_refused() {
    let original = closed_log(200);
    let sectors = fs::metadata(file(original.path(), "log")).unwrap().len() as usize / 512;
    for sector in (1..sectors - 80).step_by(17) {
        let damaged = copy(original.path());
        unwrite(&file(damaged.path(), "log"), sector);
        let refused = refusal(damaged.path());
        assert!(matches!(&refused, LogError::Io(why) if why.contains("Corruption")), "sector {sector}: {refused}");
    }
}

/// A rotten write before a torn last write is refused: the holes are not its own.
#[test]
fn rot_before_a_torn_write_is_refused() {
    let whole = tempfile::tempdir().unwrap();
    let log = open(whole.path());
    log.create(A, GroupId(1)).unwrap();
    let length = || fs::metadata(file(whole.path(), "log")).unwrap().len() as usize;
    append(&log, A, vec![entry(id(1, 0), 700)]);
    let acknowledged = length();
    append(&log, A, vec![entry(id(1, 1), 4_000)]);
    drop(log);
    unwrite(&file(whole.path(), "log"), acknowledged / 512 + 2);
    flip(&file(whole.path(), "log"), acknowledged - 100);
    let refused = refusal(whole.path());
    assert!(matches!(&refused, LogError::Io(why) if why.contains("Corruption")), "{refused}");
}

/// Modifies the database directly, without the log.
fn tamper(directory: &Path, change: impl FnOnce(&rocksdb::DB)) {
    change(&rocksdb::DB::open_default(directory).unwrap());
}

#[test]
fn missing_entry_is_refused() {
    let directory = closed_log(20);
    tamper(directory.path(), |db| db.delete(log_entry_key(A, 7)).unwrap());
    assert!(matches!(refusal(directory.path()), LogError::Hole { replica: A, index: 7 }));
}

/// The entry after the purge mark must exist.
#[test]
fn missing_first_entry_is_refused() {
    let directory = closed_log(20);
    let log = open(directory.path());
    log.purge(A, id(1, 4));
    drop(log);
    tamper(directory.path(), |db| db.delete(log_entry_key(A, 5)).unwrap());
    assert!(matches!(refusal(directory.path()), LogError::Hole { replica: A, index: 5 }));
}

#[test]
fn entry_with_a_wrong_checksum_is_refused() {
    let directory = closed_log(20);
    tamper(directory.path(), |db| {
        let mut value = db.get(log_entry_key(A, 7)).unwrap().unwrap();
        value[500] ^= 1;
        db.put(log_entry_key(A, 7), value).unwrap();
    });
    let refused = refusal(directory.path());
    let wrong = matches!(refused, LogError::Corrupt { replica: A, index: 7, source: CodecError::Checksum { .. } });
    assert!(wrong, "{refused}");
}

#[test]
fn entry_under_a_wrong_key_is_refused() {
    let directory = closed_log(20);
    tamper(directory.path(), |db| {
        let value = db.get(log_entry_key(A, 7)).unwrap().unwrap();
        db.put(log_entry_key(A, 8), value).unwrap();
    });
    assert!(matches!(refusal(directory.path()), LogError::Corrupt { replica: A, index: 8, .. }));
}

#[test]
fn damaged_vote_is_refused() {
    let directory = closed_log(1);
    tamper(directory.path(), |db| db.put(log_key(LogSpace::Vote, A), b"not a vote").unwrap());
    assert!(matches!(refusal(directory.path()), LogError::Corrupt { replica: A, .. }));
}

#[test]
fn unknown_key_is_refused() {
    let directory = closed_log(1);
    tamper(directory.path(), |db| db.put(b"Lshort", b"").unwrap());
    assert!(matches!(refusal(directory.path()), LogError::Io(_)));
}

/// Keys of destroyed and of unknown replicas are deleted at open.
#[test]
fn keys_without_a_replica_are_deleted() {
    let directory = closed_log(5);
    tamper(directory.path(), |db| {
        let value = db.get(log_entry_key(A, 3)).unwrap().unwrap();
        for replica in [B, ReplicaId(77)] {
            db.put(log_entry_key(replica, 3), &value).unwrap();
        }
        db.put(log_key(LogSpace::Vote, ReplicaId(78)), b"").unwrap();
        db.put(log_key(LogSpace::Doubtful, ReplicaId(79)), b"").unwrap();
        db.put(log_key(LogSpace::Doubtful, A), b"").unwrap();
        db.put(log_key(LogSpace::Tombstone, A), b"").unwrap();
    });
    let log = open(directory.path());
    assert!(log.replicas().is_empty());
    assert!(matches!(log.create(A, GroupId(1)), Err(LogError::NoReplica(A))));
    log.create(B, GroupId(1)).unwrap();
    assert!(all(&log, B).is_empty());
    drop(log);
    tamper(directory.path(), |db| {
        let keys: Vec<_> = db.iterator(rocksdb::IteratorMode::Start).map(|item| item.unwrap().0).collect();
        let expected = [log_key(LogSpace::Replica, B), log_key(LogSpace::Tombstone, A)];
        assert_eq!(keys, expected.map(|key| Box::from(&key[..])));
    });
}

/// A commit mark beyond the last entry is lowered to it, and shows that entries were lost.
#[test]
fn commit_mark_is_never_ahead_of_the_log() {
    let directory = closed_log(5);
    tamper(directory.path(), |db| {
        let mark = quorate_types::codec::encode(quorate_types::codec::Kind::LogId, &id(9, 9));
        db.put(log_key(LogSpace::Committed, A), mark).unwrap();
    });
    let found = open(directory.path()).state(A).unwrap();
    assert_eq!((found.committed, found.doubtful), (Some(id(1, 4)), true));
}

#[test]
fn log_open_elsewhere_is_refused() {
    let directory = closed_log(1);
    let _log = open(directory.path());
    let refused = refusal(directory.path());
    assert!(matches!(&refused, LogError::Io(why) if why.contains("lock")), "{refused}");
}

/// After a failed write the hook is called once, and no later write is acknowledged.
#[test]
fn failed_write_ends_acknowledgements() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let hook = reasons.clone();
    let options = LogOptions { on_fatal: Arc::new(move |reason| hook.lock().unwrap().push(reason)), ..small() };
    let log = RocksLog::open(&path, options).unwrap();
    log.create(A, GroupId(1)).unwrap();
    // Open files still work; the next file that RocksDB needs cannot be created.
    fs::remove_dir_all(&path).unwrap();
    let failed =
        (0..10_000).find(|index| wait(|done| log.append(A, vec![entry(id(1, *index), 10_000)], done)).is_err());
    let failed = failed.expect("a memtable is full long before");
    let later = wait(|done| log.append(A, vec![entry(id(1, failed + 1), 1)], done));
    assert!(matches!(later, Err(LogError::Io(_))), "{later:?}");
    assert!(wait(|done| log.save_vote(A, vote(1, false), done)).is_err());
    assert!(log.create(B, GroupId(1)).is_err());
    assert_eq!(reasons.lock().unwrap().len(), 1);
}

/// The queue is bounded: a caller that appends faster than the disk writes is blocked, and nothing
/// is lost.
#[test]
fn full_queue_blocks_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let log = RocksLog::open(directory.path(), LogOptions::default()).unwrap();
    log.create(A, GroupId(1)).unwrap();
    let big = entry(id(1, 0), 8 << 20);
    let mut most = 0;
    let mut last = None;
    for index in 0..20 {
        let mut next = big.clone();
        next.id.index = index;
        let (done, durable) = done();
        log.append(A, vec![next], done);
        most = most.max(log.queued_bytes());
        last = Some(durable);
    }
    last.unwrap().recv().unwrap().unwrap();
    assert!(most <= QUEUE_BYTES_MAX, "{most}");
    assert_eq!(log.state(A).unwrap().last, Some(id(1, 19)));
    assert_eq!(log.entries(A, 0..20, usize::MAX).unwrap().len(), 20);
}
