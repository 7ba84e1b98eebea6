//! The keys of both databases. This table is the contract; golden tests at the bottom freeze it.
//!
//! ```text
//!   log database (WAL on)
//!     'R' | replica u64               ->  GroupId   the replica exists, and belongs to this group
//!     'T' | replica u64               ->  empty     tombstone: destroyed, the id is never reused
//!     'V' | replica u64               ->  Vote
//!     'C' | replica u64               ->  LogId     committed, a hint that may lag
//!     'D' | replica u64               ->  empty     doubtful: it lost confirmed entries
//!     'P' | replica u64               ->  LogId     the last purged entry
//!     'L' | replica u64 | index u64   ->  Entry
//!
//!   state database (no WAL)
//!     replica u64 | 0x00 | 'h'        ->  Head      applied index, revision, clock, arc
//!     replica u64 | 0x00 | 'm'        ->  membership and its log id
//!     replica u64 | 0x01 | …          ->  the machine's own tables; those of a shard:
//!     replica u64 | 0x01 | 'S' | session u64 | index u64
//!                                     ->  SessionEntry   effects of the entry on the session
//!     replica u64 | 0x02 | user key   ->  Record
//! ```
//!
//! Integers are big-endian, so that byte order is numeric order. The replica id comes first: each
//! replica is one range of each database, and a new incarnation never sees its predecessor's data.
//! Values of the log database are codec envelopes. A session key is put by one entry, deleted by
//! one later entry, and never put again: see [`is_put_once`].

use quorate_types::{ReplicaId, SessionId};

/// The spaces of the log database. The values are on disk, in byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LogSpace {
    /// The committed log id.
    Committed = b'C',
    /// The replica is doubtful: it lost entries that it had confirmed.
    Doubtful = b'D',
    /// An entry; the only space whose keys contain an index.
    Entry = b'L',
    /// The last purged log id.
    Purged = b'P',
    /// The replica exists.
    Replica = b'R',
    /// The replica was destroyed.
    Tombstone = b'T',
    /// The vote.
    Vote = b'V',
}

/// All spaces of the log database, in byte order.
pub const LOG_SPACES: [LogSpace; 7] = [
    LogSpace::Committed,
    LogSpace::Doubtful,
    LogSpace::Entry,
    LogSpace::Purged,
    LogSpace::Replica,
    LogSpace::Tombstone,
    LogSpace::Vote,
];

/// Length of a log key without an index, in bytes.
const LOG_KEY_BYTES: usize = 9;
/// Length of an entry's key, in bytes.
const LOG_ENTRY_KEY_BYTES: usize = 17;

/// A log key without an index: a key of any space but [`LogSpace::Entry`], or the common prefix of
/// a replica's entry keys.
pub fn log_key(space: LogSpace, replica: ReplicaId) -> [u8; LOG_KEY_BYTES] {
    let mut out = [space as u8; LOG_KEY_BYTES];
    out[1..].copy_from_slice(&replica.0.to_be_bytes());
    out
}

/// The key of a replica's entry at this index.
pub fn log_entry_key(replica: ReplicaId, index: u64) -> [u8; LOG_ENTRY_KEY_BYTES] {
    let mut out = [0; LOG_ENTRY_KEY_BYTES];
    out[..LOG_KEY_BYTES].copy_from_slice(&log_key(LogSpace::Entry, replica));
    out[LOG_KEY_BYTES..].copy_from_slice(&index.to_be_bytes());
    out
}

/// Parses a log key into space, replica and, for an entry, index. None if the bytes are not a log
/// key.
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

/// The spaces of the state database. The values are on disk, in byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Space {
    /// The replica's own records: head and membership.
    Meta = 0,
    /// The machine's own tables.
    Table = 1,
    /// User data, by user key.
    Data = 2,
}

/// The key of the [`quorate_types::state::Head`], in [`Space::Meta`].
pub(crate) const HEAD: &[u8] = b"h";
/// The key of the membership, in [`Space::Meta`].
pub(crate) const MEMBERSHIP: &[u8] = b"m";

/// First byte of a session key, in [`Space::Table`].
pub(crate) const SESSION: u8 = b'S';
/// Length of the prefix (replica and space) of a state key, in bytes.
pub const STATE_PREFIX_BYTES: usize = 9;

/// The state key of a replica's `key` in this space.
pub fn state_key(replica: ReplicaId, space: Space, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(STATE_PREFIX_BYTES + key.len());
    state_key_into(&mut out, replica, space, key);
    out
}

/// Writes a state key into a reused buffer and overwrites its content.
pub fn state_key_into(out: &mut Vec<u8>, replica: ReplicaId, space: Space, key: &[u8]) {
    out.clear();
    out.extend_from_slice(&replica.0.to_be_bytes());
    out.push(space as u8);
    out.extend_from_slice(key);
}

/// The range of all state keys of a replica: start inclusive, end exclusive.
pub fn state_range(replica: ReplicaId) -> (Vec<u8>, Vec<u8>) {
    let start = replica.0.to_be_bytes().to_vec();
    let end = [&start[..], &[SPACE_END]].concat();
    (start, end)
}

/// Greater than every space.
const SPACE_END: u8 = 0xff;

/// The replica of a state key. None if the bytes are not a state key.
pub fn state_key_replica(key: &[u8]) -> Option<ReplicaId> {
    let id = key.first_chunk::<8>()?;
    let space = key.get(8)?;
    (*space <= Space::Data as u8).then_some(ReplicaId(u64::from_be_bytes(*id)))
}

/// The key, in [`Space::Table`], of the effects that the entry at this index has on a session.
pub fn session_key(session: SessionId, index: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(SESSION_KEY_BYTES);
    out.push(SESSION);
    out.extend_from_slice(&session.0.to_be_bytes());
    out.extend_from_slice(&index.to_be_bytes());
    out
}

const SESSION_KEY_BYTES: usize = 17;

/// Parses a [`session_key`]. None if the bytes are not one.
pub(crate) fn parse_session_key(key: &[u8]) -> Option<(SessionId, u64)> {
    if key.len() != SESSION_KEY_BYTES || key[0] != SESSION {
        return None;
    }
    let word = |at: usize| key[at..].first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    Some((SessionId(word(1)?), word(9)?))
}

/// `SingleDelete` contract. Returns whether this key is put at most once and deleted at most once
/// afterwards. RocksDB can then drop the put and the deletion when a compaction meets both (unless
/// a snapshot lies between them), so no tombstone survives until the last level
/// (<https://github.com/facebook/rocksdb/wiki/Single-Delete>).
///
/// A second put would resurrect the first one after the deletion. The only exception is a range
/// deletion between the two puts, as in the files of an installed snapshot.
pub fn is_put_once(space: Space, key: &[u8]) -> bool {
    space == Space::Table && parse_session_key(key).is_some()
}

/// The smallest key greater than all keys with this prefix. None if there is no such key (the
/// prefix is all 0xff).
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

    /// Freezes the bytes of all state keys: changing them breaks every existing data directory.
    #[test]
    fn state_keys_are_frozen() {
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
    fn malformed_state_keys_are_refused() {
        assert_eq!(state_key_replica(b"short"), None);
        assert_eq!(state_key_replica(&[0, 0, 0, 0, 0, 0, 0, 1, 3]), None, "no such space");
        assert_eq!(parse_session_key(b"S"), None);
    }

    #[test]
    fn only_session_keys_are_put_once() {
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
        /// Keys sort like (replica, space, key). A replica's range contains exactly its keys.
        #[test]
        fn state_keys_sort_by_replica_space_and_key(
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
        fn session_key_round_trips(session: u64, index: u64) {
            prop_assert_eq!(parse_session_key(&session_key(SessionId(session), index)), Some((SessionId(session), index)));
        }

        #[test]
        fn prefix_end_separates_keys_with_the_prefix(prefix: Vec<u8>, key: Vec<u8>) {
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

    /// Freezes the bytes of all log keys, as listed in the table at the top.
    #[test]
    fn log_keys_are_frozen() {
        let replica = ReplicaId(0x0102_0304_0506_0708);
        let bytes = |space: u8| [&[space][..], &[1, 2, 3, 4, 5, 6, 7, 8]].concat();
        assert_eq!(log_key(LogSpace::Replica, replica).to_vec(), bytes(b'R'));
        assert_eq!(log_key(LogSpace::Tombstone, replica).to_vec(), bytes(b'T'));
        assert_eq!(log_key(LogSpace::Vote, replica).to_vec(), bytes(b'V'));
        assert_eq!(log_key(LogSpace::Committed, replica).to_vec(), bytes(b'C'));
        assert_eq!(log_key(LogSpace::Doubtful, replica).to_vec(), bytes(b'D'));
        assert_eq!(log_key(LogSpace::Purged, replica).to_vec(), bytes(b'P'));
        let entry = [bytes(b'L'), vec![0, 0, 0, 0, 0, 0, 0x12, 0x34]].concat();
        assert_eq!(log_entry_key(replica, 0x1234).to_vec(), entry);
    }

    /// Bytes that are not a log key are refused.
    #[test]
    fn malformed_log_keys_are_refused() {
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
