//! Tests of the guarantees of the `Log` trait. Each binary that includes this module runs them on
//! its own log (`crate::new_log`).

use quorate_machine::log::{Log, LogError, LogState, MemoryLog};
use quorate_types::{Entry, GroupId, LogId, Membership, NodeId, Payload, ReplicaId};

use crate::log_support::*;

/// A log that can be closed and opened again.
pub(crate) trait Twin {
    fn log(&self) -> &dyn Log;
    fn reopen(&mut self);
}

/// Entries of every kind are readable immediately, in any range, and after a restart.
#[test]
fn appended_entries_are_read_back() {
    let twin = &mut crate::new_log();
    twin.log().create(A, GroupId(7)).unwrap();
    assert_eq!(twin.log().state(A).unwrap(), LogState::default());
    assert!(all(twin.log(), A).is_empty());
    let members = Membership { voters: vec![[A, B].into()], nodes: [(A, NodeId(1)), (B, NodeId(2))].into() };
    let written = vec![
        Entry { id: id(1, 0), payload: Payload::Membership(members) },
        Entry { id: id(1, 1), payload: Payload::Blank },
        entry(id(2, 2), 5_000),
        entry(id(2, 3), 0),
    ];
    append(twin.log(), A, written[..2].to_vec());
    append(twin.log(), A, vec![]);
    append(twin.log(), A, written[2..].to_vec());
    for _ in 0..2 {
        assert_eq!(all(twin.log(), A), written);
        assert_eq!(twin.log().entries(A, 1..3, usize::MAX).unwrap(), written[1..3]);
        assert!(twin.log().entries(A, 4..9, usize::MAX).unwrap().is_empty());
        assert!(twin.log().entries(A, 2..2, usize::MAX).unwrap().is_empty());
        assert_eq!(twin.log().state(A).unwrap().last, Some(id(2, 3)));
        assert_eq!(twin.log().replicas(), [(A, GroupId(7))]);
        twin.reopen();
    }
}

/// A read stops at its limit in bytes, but returns one entry even if that is larger.
#[test]
fn read_is_bounded_in_bytes_but_never_empty() {
    let twin = &mut crate::new_log();
    twin.log().create(A, GroupId(1)).unwrap();
    append(twin.log(), A, (0..400).map(|index| entry(id(1, index), 936)).collect());
    let read = |start: u64, bytes_max| {
        let entries = twin.log().entries(A, start..u64::MAX, bytes_max).unwrap();
        (start..).zip(&entries).for_each(|(index, entry)| assert_eq!(entry.id.index, index));
        entries.len()
    };
    // On disk only, across the border to the tail, and in the tail only.
    for start in [0, 380, 395] {
        assert_eq!(read(start, 5_000), 5);
        assert_eq!(read(start, 4_999), 4);
        assert_eq!(read(start, 0), 1);
    }
    assert_eq!(read(0, usize::MAX), 400);
    assert_eq!(read(300, 90_000), 90);
}

/// Truncated entries disappear immediately and for good, and new ones take their place.
#[test]
fn truncated_entries_are_replaced() {
    let twin = &mut crate::new_log();
    twin.log().create(A, GroupId(1)).unwrap();
    append(twin.log(), A, entries(1, 0..10));
    let (done, durable) = done();
    twin.log().truncate_after(A, Some(id(1, 5)), done);
    assert_eq!(indexes(twin.log(), A), [0, 1, 2, 3, 4, 5]);
    assert_eq!(twin.log().state(A).unwrap().last, Some(id(1, 5)));
    let (done, appended) = crate::log_support::done();
    twin.log().append(A, entries(2, 6..8), done);
    durable.recv().unwrap().unwrap();
    appended.recv().unwrap().unwrap();
    let expected = [entries(1, 0..6), entries(2, 6..8)].concat();
    assert_eq!(all(twin.log(), A), expected);
    twin.reopen();
    assert_eq!(all(twin.log(), A), expected);
    wait(|done| twin.log().truncate_after(A, Some(id(2, 7)), done)).unwrap();
    assert_eq!(all(twin.log(), A), expected);
}

#[test]
fn full_truncation_stops_at_the_purge_mark() {
    let twin = &mut crate::new_log();
    twin.log().create(A, GroupId(1)).unwrap();
    append(twin.log(), A, entries(1, 0..10));
    twin.log().purge(A, id(1, 3));
    wait(|done| twin.log().truncate_after(A, None, done)).unwrap();
    twin.reopen();
    let state = twin.log().state(A).unwrap();
    assert_eq!((state.purged, state.last), (Some(id(1, 3)), Some(id(1, 3))));
    append(twin.log(), A, entries(2, 4..6));
    assert_eq!(indexes(twin.log(), A), [4, 5]);
}

/// A read of a range that starts with purged entries returns the remaining ones.
#[test]
fn purge_keeps_later_entries() {
    let twin = &mut crate::new_log();
    twin.log().create(A, GroupId(1)).unwrap();
    append(twin.log(), A, entries(1, 0..300));
    twin.log().purge(A, id(1, 249));
    twin.log().purge(A, id(1, 100));
    for _ in 0..2 {
        let state = twin.log().state(A).unwrap();
        assert_eq!((state.purged, state.last), (Some(id(1, 249)), Some(id(1, 299))));
        assert_eq!(indexes(twin.log(), A), (250..300).collect::<Vec<_>>());
        assert_eq!(twin.log().entries(A, 200..252, usize::MAX).unwrap(), entries(1, 250..252));
        assert!(twin.log().entries(A, 0..250, usize::MAX).unwrap().is_empty());
        twin.reopen();
    }
}

/// After a snapshot is installed, the log continues behind it.
#[test]
fn purge_beyond_the_end_empties_the_log() {
    let twin = &mut crate::new_log();
    twin.log().create(A, GroupId(1)).unwrap();
    append(twin.log(), A, entries(1, 0..3));
    twin.log().purge(A, id(4, 1_000));
    for _ in 0..2 {
        let state = twin.log().state(A).unwrap();
        assert_eq!((state.purged, state.last), (Some(id(4, 1_000)), Some(id(4, 1_000))));
        assert!(all(twin.log(), A).is_empty());
        twin.reopen();
    }
    append(twin.log(), A, entries(4, 1_001..1_003));
    assert_eq!(indexes(twin.log(), A), [1_001, 1_002]);
}

/// The last vote counts, and is known as won immediately. A commit mark is on disk after the next
/// write or an orderly close.
#[test]
fn votes_and_commit_marks_survive() {
    let twin = &mut crate::new_log();
    twin.log().create(A, GroupId(1)).unwrap();
    wait(|done| twin.log().save_vote(A, vote(1, false), done)).unwrap();
    wait(|done| twin.log().save_vote(A, vote(3, false), done)).unwrap();
    twin.log().vote_won(A);
    assert_eq!(twin.log().state(A).unwrap().vote, Some(vote(3, true)));
    append(twin.log(), A, entries(3, 0..9));
    twin.log().save_committed(A, Some(id(3, 4)));
    wait(|done| twin.log().save_vote(A, vote(4, false), done)).unwrap();
    twin.log().save_committed(A, Some(id(3, 6)));
    for _ in 0..2 {
        let state = twin.log().state(A).unwrap();
        assert_eq!((state.vote, state.committed), (Some(vote(4, false)), Some(id(3, 6))));
        twin.reopen();
    }
    twin.log().save_committed(A, None);
    twin.log().vote_won(A);
    twin.reopen();
    let state = twin.log().state(A).unwrap();
    assert_eq!((state.vote, state.committed), (Some(vote(4, true)), None));
}

#[test]
fn replicas_are_isolated() {
    let twin = &mut crate::new_log();
    for replica in [ReplicaId(u64::MAX), A, B, ReplicaId(256)] {
        twin.log().create(replica, GroupId(replica.0 as u32)).unwrap();
        append(twin.log(), replica, entries(1, 0..5));
    }
    wait(|done| twin.log().save_vote(B, vote(9, true), done)).unwrap();
    wait(|done| twin.log().truncate_after(B, None, done)).unwrap();
    twin.log().purge(ReplicaId(256), id(1, 4));
    twin.log().destroy(ReplicaId(u64::MAX)).unwrap();
    twin.reopen();
    assert_eq!(twin.log().replicas(), [(A, GroupId(1)), (B, GroupId(2)), (ReplicaId(256), GroupId(256))]);
    let state = twin.log().state(A).unwrap();
    assert_eq!(state, LogState { last: Some(id(1, 4)), ..LogState::default() });
    assert_eq!(indexes(twin.log(), A), [0, 1, 2, 3, 4]);
    assert!(all(twin.log(), B).is_empty());
    assert!(all(twin.log(), ReplicaId(256)).is_empty());
}

/// A doubtful replica stays so after a restart, with its entries and marks; other replicas are
/// trusted.
#[test]
fn doubtful_mark_survives_a_restart() {
    let twin = &mut crate::new_log();
    for replica in [A, B] {
        twin.log().create(replica, GroupId(1)).unwrap();
        append(twin.log(), replica, entries(1, 0..5));
        assert!(!twin.log().state(replica).unwrap().doubtful);
    }
    wait(|done| twin.log().save_vote(A, vote(1, false), done)).unwrap();
    twin.log().mark_doubtful(A).unwrap();
    twin.log().mark_doubtful(A).unwrap();
    let marked =
        LogState { vote: Some(vote(1, false)), committed: None, purged: None, last: Some(id(1, 4)), doubtful: true };
    for _ in 0..3 {
        assert_eq!(twin.log().state(A).unwrap(), marked);
        assert_eq!(indexes(twin.log(), A), [0, 1, 2, 3, 4]);
        assert!(!twin.log().state(B).unwrap().doubtful);
        twin.reopen();
    }
    twin.log().destroy(A).unwrap();
    assert!(matches!(twin.log().mark_doubtful(A), Err(LogError::NoReplica(A))));
}

#[test]
fn destroyed_replica_never_comes_back() {
    let twin = &mut crate::new_log();
    twin.log().create(A, GroupId(1)).unwrap();
    append(twin.log(), A, entries(1, 0..5));
    twin.log().destroy(A).unwrap();
    twin.log().destroy(A).unwrap();
    twin.log().destroy(B).unwrap();
    for _ in 0..2 {
        assert!(twin.log().replicas().is_empty());
        assert!(matches!(twin.log().create(A, GroupId(1)), Err(LogError::NoReplica(A))));
        assert!(matches!(twin.log().create(B, GroupId(1)), Err(LogError::NoReplica(B))));
        assert!(matches!(twin.log().state(A), Err(LogError::NoReplica(A))));
        assert!(matches!(twin.log().entries(A, 0..9, 1), Err(LogError::NoReplica(A))));
        twin.reopen();
    }
}

/// Creating a replica again changes nothing; another group is refused.
#[test]
fn replica_belongs_to_one_group() {
    let twin = &mut crate::new_log();
    twin.log().create(A, GroupId(1)).unwrap();
    append(twin.log(), A, entries(1, 0..5));
    for _ in 0..2 {
        twin.log().create(A, GroupId(1)).unwrap();
        let refused = twin.log().create(A, GroupId(2));
        assert!(matches!(refused, Err(LogError::OtherGroup { replica: A, group: GroupId(1) })));
        assert_eq!(twin.log().replicas(), [(A, GroupId(1))]);
        assert_eq!(indexes(twin.log(), A), [0, 1, 2, 3, 4]);
        twin.reopen();
    }
}

#[test]
fn calls_for_an_unknown_replica_are_refused() {
    let twin = &mut crate::new_log();
    let refused = |result| assert!(matches!(result, Err(LogError::NoReplica(B))), "{result:?}");
    twin.log().create(A, GroupId(1)).unwrap();
    refused(wait(|done| twin.log().append(B, entries(1, 0..1), done)));
    refused(wait(|done| twin.log().save_vote(B, vote(1, false), done)));
    refused(wait(|done| twin.log().truncate_after(B, None, done)));
    twin.log().purge(B, id(1, 1));
    twin.log().vote_won(B);
    twin.log().save_committed(B, Some(id(1, 1)));
    assert_eq!(twin.log().retained_bytes(B), 0);
    twin.reopen();
    assert_eq!(twin.log().replicas(), [(A, GroupId(1))]);
}

#[test]
fn closed_log_refuses_calls() {
    let twin = &mut crate::new_log();
    twin.log().create(A, GroupId(1)).unwrap();
    append(twin.log(), A, entries(1, 0..1));
    twin.log().close();
    twin.log().close();
    let refused = |result| assert!(matches!(result, Err(LogError::Closed)), "{result:?}");
    refused(wait(|done| twin.log().append(A, entries(1, 1..2), done)));
    refused(wait(|done| twin.log().save_vote(A, vote(1, false), done)));
    refused(twin.log().create(B, GroupId(1)));
    refused(twin.log().destroy(A));
    refused(twin.log().entries(A, 0..1, 1).map(drop));
    twin.reopen();
    assert_eq!(indexes(twin.log(), A), [0]);
}

#[test]
fn retained_bytes_follow_appends_and_cuts() {
    let twin = &mut crate::new_log();
    twin.log().create(A, GroupId(1)).unwrap();
    append(twin.log(), A, (0..100).map(|index| entry(id(1, index), 936)).collect());
    assert_eq!(twin.log().retained_bytes(A), 100_000);
    twin.log().purge(A, id(1, 39));
    assert_eq!(twin.log().retained_bytes(A), 60_000);
    wait(|done| twin.log().truncate_after(A, Some(id(1, 89)), done)).unwrap();
    for _ in 0..2 {
        assert_eq!(twin.log().retained_bytes(A), 50_000);
        twin.reopen();
    }
    twin.log().purge(A, id(1, 200));
    assert_eq!(twin.log().retained_bytes(A), 0);
}

/// A long random history of all operations gives the same log as a reference in memory, before and
/// after restarts.
#[test]
fn random_history_matches_the_log_in_memory() {
    let twin = &mut crate::new_log();
    let model = MemoryLog::new(true);
    let mut seed = 42_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for log in [twin.log(), &model] {
        log.create(A, GroupId(1)).unwrap();
        log.create(B, GroupId(2)).unwrap();
    }
    for step in 1..=1_500_u64 {
        let replica = [A, B][random(2) as usize];
        let state = model.state(replica).unwrap();
        let first = state.purged.map_or(0, |purged| purged.index + 1);
        let next = state.last.map_or(first, |last| last.index + 1);
        let anywhere = |index: u64| -> Option<LogId> {
            model.entries(replica, index..index + 1, 1).unwrap().first().map(|entry| entry.id)
        };
        match random(20) {
            0..12 => {
                let count = 1 + random(4);
                let new: Vec<_> = (next..next + count).map(|i| entry(id(step, i), random(3_000) as usize)).collect();
                model.append(replica, new.clone(), Box::new(drop));
                twin.log().append(replica, new, Box::new(|result| result.unwrap()));
            }
            12..14 => {
                let after = anywhere(next.saturating_sub(1 + random(5)));
                if after.is_some() {
                    model.truncate_after(replica, after, Box::new(drop));
                    twin.log().truncate_after(replica, after, Box::new(|result| result.unwrap()));
                }
            }
            14..16 => {
                let upto = if random(20) == 0 { Some(id(step, next + random(9))) } else { anywhere(first + random(9)) };
                if let Some(upto) = upto {
                    model.purge(replica, upto);
                    twin.log().purge(replica, upto);
                }
            }
            16 => {
                model.save_vote(replica, vote(step, false), Box::new(drop));
                twin.log().save_vote(replica, vote(step, false), Box::new(|result| result.unwrap()));
            }
            17 => {
                model.save_committed(replica, state.last);
                twin.log().save_committed(replica, state.last);
            }
            18 => {
                model.vote_won(replica);
                twin.log().vote_won(replica);
            }
            _ => {
                let (start, length, bytes_max) = (first.saturating_sub(2) + random(200), random(50), random(9_000));
                let read = |log: &dyn Log| log.entries(replica, start..start + length, bytes_max as usize).unwrap();
                assert_eq!(read(twin.log()), read(&model), "step {step}");
            }
        }
        if step % 300 == 0 {
            // Move the commit mark: one of truncated entries would not survive a restart. Raft
            // makes none.
            for replica in [A, B] {
                let last = model.state(replica).unwrap().last;
                model.save_committed(replica, last);
                twin.log().save_committed(replica, last);
            }
            twin.reopen();
        }
        for replica in [A, B] {
            assert_eq!(twin.log().state(replica).unwrap(), model.state(replica).unwrap(), "step {step}");
            assert_eq!(twin.log().retained_bytes(replica), model.retained_bytes(replica), "step {step}");
        }
    }
    for replica in [A, B] {
        assert_eq!(all(twin.log(), replica), all(&model, replica));
    }
}
