//! The keys of both databases. This table is the contract; the golden test at the bottom holds us to it.
//!
//! ```text
//!   log database (WAL on)
//!     'R' | replica u64                  ->  envelope LogId-like: see log/rocks.rs (the replica exists, and its group)
//!     'T' | replica u64                  ->  empty: tombstone, the replica is destroyed and its id never used again
//!     'V' | replica u64                  ->  Vote
//!     'C' | replica u64                  ->  LogId      committed, a hint that may lag
//!     'P' | replica u64                  ->  LogId      the last purged entry
//!     'L' | replica u64 | index u64      ->  Entry
//!
//!   state database (no WAL)
//!     replica u64 | 0x00 | 'h'           ->  Head       applied index, revision, clock, arc
//!     replica u64 | 0x00 | 'm'           ->  membership and its place in the log
//!     replica u64 | 0x01 | …             ->  the machine's own tables: sessions of a shard, records of the topology
//!     replica u64 | 0x02 | user key      ->  Record
//! ```
//!
//! Integers are big-endian, so that byte order is numeric order. The replica id comes first everywhere: a replica is one range
//! of each database, and a new incarnation never sees an old one's data.

use quorate_types::ReplicaId;

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

/// The key of the [`crate::machine::Head`], in [`Space::Meta`].
pub const HEAD: &[u8] = b"h";
/// The key of the membership, in [`Space::Meta`].
pub const MEMBERSHIP: &[u8] = b"m";

/// A key of the state database.
pub fn state_key(replica: ReplicaId, space: Space, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(9 + key.len());
    out.extend_from_slice(&replica.0.to_be_bytes());
    out.push(space as u8);
    out.extend_from_slice(key);
    out
}
