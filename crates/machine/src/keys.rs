//! The keys of both databases. This table is the contract; the golden test at the bottom holds us to it.
//!
//! ```text
//!   log database (WAL on)
//!     'R' | replica u64                  ->  GroupId    the replica exists, and is of this group
//!     'T' | replica u64                  ->  empty: tombstone, the replica is destroyed and its id never used again
//!     'V' | replica u64                  ->  Vote
//!     'C' | replica u64                  ->  LogId      committed, a hint that may lag
//!     'P' | replica u64                  ->  LogId      the last purged entry
//!     'L' | replica u64 | index u64      ->  Entry
//!
//!   state database (no WAL)
//!     replica u64 | 0x00 | 'h'           ->  Head       applied index, revision, clock, arc
//!     replica u64 | 0x00 | 'm'           ->  membership and its place in the log
//!     replica u64 | 0x01 | …             ->  the machine's own tables; those of a shard:
//!     replica u64 | 0x01 | 'S' | session u64 | index u64   ->  SessionEntry   what the entry at index did in the session
//!     replica u64 | 0x02 | user key      ->  Record
//! ```
//!
//! A session's key is put by one entry, deleted by one later entry, and never put again: see `is_put_once`.
//! Integers are big-endian, so that byte order is numeric order. The replica id comes first everywhere: a replica is one range
//! of each database, and a new incarnation never sees an old one's data. Values of the log database are codec envelopes.

use quorate_types::{ReplicaId, SessionId};

/// What a key of the log database says of a replica. The numbers are on disk, in byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LogSpace {
    /// How far the log is committed.
    Committed = b'C',
    /// An entry; the only space whose keys hold an index.
    Entry = b'L',
    /// The last purged entry.
    Purged = b'P',
    /// The replica exists.
    Replica = b'R',
    /// The replica was destroyed.
    Tombstone = b'T',
    /// The vote.
    Vote = b'V',
}

/// Every space of the log database, in byte order.
pub const LOG_SPACES: [LogSpace; 6] =
    [LogSpace::Committed, LogSpace::Entry, LogSpace::Purged, LogSpace::Replica, LogSpace::Tombstone, LogSpace::Vote];

/// Bytes of a key of the log database that holds no index.
pub const LOG_KEY_BYTES: usize = 9;
/// Bytes of an entry's key.
pub const LOG_ENTRY_KEY_BYTES: usize = 17;

/// A key of the log database without an index: any space but [`LogSpace::Entry`], or the prefix of a replica's entries.
pub fn log_key(space: LogSpace, replica: ReplicaId) -> [u8; LOG_KEY_BYTES] {
    let mut out = [space as u8; LOG_KEY_BYTES];
    out[1..].copy_from_slice(&replica.0.to_be_bytes());
    out
}

/// The key of an entry.
pub fn log_entry_key(replica: ReplicaId, index: u64) -> [u8; LOG_ENTRY_KEY_BYTES] {
    let mut out = [0; LOG_ENTRY_KEY_BYTES];
    out[..LOG_KEY_BYTES].copy_from_slice(&log_key(LogSpace::Entry, replica));
    out[LOG_KEY_BYTES..].copy_from_slice(&index.to_be_bytes());
    out
}

/// What a key of the log database says: space, replica and, for an entry, its index. None for bytes that are no such key.
pub fn parse_log_key(key: &[u8]) -> Option<(LogSpace, ReplicaId, Option<u64>)> {
    let (space, rest) = key.split_first()?;
    let space = LOG_SPACES.into_iter().find(|known| *known as u8 == *space)?;
    let (replica, rest) = rest.split_first_chunk::<8>()?;
    let replica = ReplicaId(u64::from_be_bytes(*replica));
    match (space, rest) {
        (LogSpace::Entry, index) => {
            let index = u64::from_be_bytes(index.try_into().ok()?);
            Some((space, replica, Some(index)))
        }
        (_, []) => Some((space, replica, None)),
        _ => None,
    }
}

/// The part of a replica's state that a key is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Space {
    /// What the replica remembers of itself.
    Meta = 0,
    /// The machine's own tables.
    Table = 1,
    /// User data, by user key.
    Data = 2,
}

/// The key of the [`quorate_types::state::Head`], in [`Space::Meta`].
pub const HEAD: &[u8] = b"h";
/// The key of the membership, in [`Space::Meta`].
pub const MEMBERSHIP: &[u8] = b"m";

/// The tag of a shard's sessions in [`Space::Table`].
pub const SESSION: u8 = b'S';
/// Bytes before a key of the state database: the replica and the space.
pub const STATE_PREFIX_BYTES: usize = 9;

/// A key of the state database.
pub fn state_key(replica: ReplicaId, space: Space, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(STATE_PREFIX_BYTES + key.len());
    state_key_into(&mut out, replica, space, key);
    out
}

/// A key of the state database, into a buffer that is used again; what it held is gone.
pub fn state_key_into(out: &mut Vec<u8>, replica: ReplicaId, space: Space, key: &[u8]) {
    out.clear();
    out.extend_from_slice(&replica.0.to_be_bytes());
    out.push(space as u8);
    out.extend_from_slice(key);
}

/// All keys of a replica in the state database: from the first, included, to the second, excluded.
pub fn state_range(replica: ReplicaId) -> (Vec<u8>, Vec<u8>) {
    let start = replica.0.to_be_bytes().to_vec();
    let end = [&start[..], &[SPACE_END]].concat();
    (start, end)
}

/// Above every space.
const SPACE_END: u8 = 0xff;

/// The replica whose key of the state database this is; none if it cannot be one.
pub fn state_key_replica(key: &[u8]) -> Option<ReplicaId> {
    let id = key.first_chunk::<8>()?;
    let space = key.get(8)?;
    (*space <= Space::Data as u8).then_some(ReplicaId(u64::from_be_bytes(*id)))
}

/// The key, in [`Space::Table`], of what an entry did in a session.
pub fn session_key(session: SessionId, index: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(SESSION_KEY_BYTES);
    out.push(SESSION);
    out.extend_from_slice(&session.0.to_be_bytes());
    out.extend_from_slice(&index.to_be_bytes());
    out
}

const SESSION_KEY_BYTES: usize = 17;

/// Reads a [`session_key`] back; none if it is not one.
pub fn parse_session_key(key: &[u8]) -> Option<(SessionId, u64)> {
    if key.len() != SESSION_KEY_BYTES || key[0] != SESSION {
        return None;
    }
    let word = |at: usize| key[at..].first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    Some((SessionId(word(1)?), word(9)?))
}

/// Whether a key is put at most once, and deleted at most once after that. RocksDB then drops both when they meet, unless a snapshot of it
/// lies between them, and needs no tombstone until the last level (<https://github.com/facebook/rocksdb/wiki/Single-Delete>).
/// A second put would make the first one come back after the deletion, unless a range deletion lies between the two, as it does
/// in the files of an installed snapshot.
pub fn is_put_once(space: Space, key: &[u8]) -> bool {
    space == Space::Table && parse_session_key(key).is_some()
}

/// The first key that is after every key with this prefix; none if there is no such key (the prefix is all 0xff).
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod state_tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The keys of the state database, written out: whoever changes them breaks every data directory.
    #[test]
    fn the_keys_of_the_state_database_are_frozen() {
        let replica = ReplicaId(0x0102);
        assert_eq!(hex(&state_key(replica, Space::Meta, HEAD)), "00000000000001020068");
        assert_eq!(hex(&state_key(replica, Space::Meta, MEMBERSHIP)), "0000000000000102006d");
        assert_eq!(hex(&state_key(replica, Space::Data, b"url")), "00000000000001020275726c");
        assert_eq!(
            hex(&state_key(replica, Space::Table, &session_key(SessionId(3), 4))),
            "0000000000000102015300000000000000030000000000000004"
        );
        let (start, end) = state_range(replica);
        assert_eq!((hex(&start).as_str(), hex(&end).as_str()), ("0000000000000102", "0000000000000102ff"));
    }

    #[test]
    fn what_is_no_key_of_the_state_is_told() {
        assert_eq!(state_key_replica(b"short"), None);
        assert_eq!(state_key_replica(&[0, 0, 0, 0, 0, 0, 0, 1, 3]), None, "no such space");
        assert_eq!(parse_session_key(b"S"), None);
    }

    #[test]
    fn only_the_records_of_sessions_are_put_once() {
        let record = session_key(SessionId(3), 4);
        assert!(is_put_once(Space::Table, &record));
        assert!(
            !is_put_once(Space::Data, &record) && !is_put_once(Space::Meta, &record),
            "a user's key may look like one"
        );
        assert!(!is_put_once(Space::Table, &record[..16]) && !is_put_once(Space::Table, &[&record[..], &[0]].concat()));
    }

    fn space() -> impl Strategy<Value = Space> {
        prop_oneof![Just(Space::Meta), Just(Space::Table), Just(Space::Data)]
    }

    proptest! {
        /// Keys sort as (replica, space, key) do, and a replica's range holds its keys and no others.
        #[test]
        fn keys_sort_as_what_they_say(
            a in (any::<u64>(), space(), any::<Vec<u8>>()),
            b in (any::<u64>(), space(), any::<Vec<u8>>()),
        ) {
            let key = |(replica, space, key): &(u64, Space, Vec<u8>)| state_key(ReplicaId(*replica), *space, key);
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
            let (start, end) = state_range(ReplicaId(a.0));
            prop_assert_eq!((start..end).contains(&key(&b)), a.0 == b.0);
            prop_assert_eq!(state_key_replica(&key(&a)), Some(ReplicaId(a.0)));
        }

        #[test]
        fn a_session_key_round_trips(session: u64, index: u64) {
            prop_assert_eq!(parse_session_key(&session_key(SessionId(session), index)), Some((SessionId(session), index)));
        }

        #[test]
        fn the_end_of_a_prefix_is_after_its_keys_and_before_all_others(prefix: Vec<u8>, key: Vec<u8>) {
            if let Some(end) = prefix_end(&prefix) {
                prop_assert_eq!(key >= prefix && key < end, key.starts_with(&prefix));
            } else {
                prop_assert_eq!(key >= prefix, key.starts_with(&prefix));
            }
        }
    }
}

#[cfg(test)]
mod log_key_tests {
    use proptest::prelude::*;

    use super::*;

    /// Shows that the bytes of every kind of key of the log database are what the table at the top says, for ever.
    #[test]
    fn the_bytes_of_log_keys_are_golden() {
        let replica = ReplicaId(0x0102_0304_0506_0708);
        let bytes = |space: u8| [&[space][..], &[1, 2, 3, 4, 5, 6, 7, 8]].concat();
        assert_eq!(log_key(LogSpace::Replica, replica).to_vec(), bytes(b'R'));
        assert_eq!(log_key(LogSpace::Tombstone, replica).to_vec(), bytes(b'T'));
        assert_eq!(log_key(LogSpace::Vote, replica).to_vec(), bytes(b'V'));
        assert_eq!(log_key(LogSpace::Committed, replica).to_vec(), bytes(b'C'));
        assert_eq!(log_key(LogSpace::Purged, replica).to_vec(), bytes(b'P'));
        let entry = [bytes(b'L'), vec![0, 0, 0, 0, 0, 0, 0x12, 0x34]].concat();
        assert_eq!(log_entry_key(replica, 0x1234).to_vec(), entry);
    }

    /// Shows that bytes that are no key are told apart from keys.
    #[test]
    fn what_is_no_log_key_is_refused() {
        let entry = log_entry_key(ReplicaId(7), 9);
        for length in 0..entry.len() {
            assert_eq!(parse_log_key(&entry[..length]), None, "an entry's key cut to {length}");
        }
        assert_eq!(parse_log_key(&[&entry[..], &[0]].concat()), None);
        assert_eq!(parse_log_key(&[&log_key(LogSpace::Vote, ReplicaId(7))[..], &[0]].concat()), None);
        assert_eq!(parse_log_key(b"X12345678"), None);
    }

    proptest! {
        #[test]
        fn log_keys_round_trip_and_sort(a: (u64, u64), b: (u64, u64)) {
            let (key_a, key_b) = (log_entry_key(ReplicaId(a.0), a.1), log_entry_key(ReplicaId(b.0), b.1));
            prop_assert_eq!(key_a.cmp(&key_b), a.cmp(&b));
            prop_assert_eq!(parse_log_key(&key_a), Some((LogSpace::Entry, ReplicaId(a.0), Some(a.1))));
            for (place, space) in LOG_SPACES.into_iter().enumerate() {
                let key = log_key(space, ReplicaId(a.0));
                let next = LOG_SPACES.get(place + 1).map(|next| log_key(*next, ReplicaId(b.0)));
                prop_assert!(next.is_none_or(|next| key < next));
                prop_assert_eq!(key.cmp(&log_key(space, ReplicaId(b.0))), a.0.cmp(&b.0));
                if space != LogSpace::Entry {
                    prop_assert_eq!(parse_log_key(&key), Some((space, ReplicaId(a.0), None)));
                }
            }
        }
    }
}
