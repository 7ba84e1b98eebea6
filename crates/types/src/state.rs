//! A replica's state beside user data: persisted structs of the state database.

use bincode::{Decode, Encode};

use crate::{LogId, Membership, TokenArc};

/// The head of a replica's state. Written in the same batch as the applied entries: no reader and
/// no crash sees one without the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Head {
    /// The last entry applied.
    pub applied: Option<LogId>,
    /// The number of mutations ever applied. A record's version is the revision at its write. Only
    /// grows.
    pub revision: u64,
    /// The shard's clock in milliseconds: the maximum of all proposal times.
    pub clock_ms: u64,
    /// The arc's epoch; 0 until the shard was bootstrapped.
    pub epoch: u64,
    /// The tokens that the shard owns.
    pub arc: Option<TokenArc>,
    /// The number of sessions ever opened; the next session gets this number plus one.
    pub sessions_opened: u64,
}

/// The last membership applied, and its place in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct StoredMembership {
    /// The entry that set it.
    pub at: Option<LogId>,
    /// The members.
    pub members: Membership,
}

/// The effect of one entry on one session. The newest entry of a session is the session's state;
/// older ones stay while one of their outcomes may be requested.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SessionEntry {
    /// The shard's clock at the entry: the last use of the session.
    pub clock_ms: u64,
    /// The lowest sequence whose outcome may still be requested.
    pub lowest: u64,
    /// The outcomes of the entry's writes, by sequence.
    pub outcomes: Vec<(u64, Remembered)>,
}

/// A remembered outcome: enough to repeat it, without the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Remembered {
    /// The write was applied.
    Written {
        /// The shard's revision at the write.
        version: u64,
        /// The version of the replaced or deleted record; 0 if there was none, or if an
        /// unconditional put read none.
        replaced: u64,
    },
    /// The condition did not hold.
    Refused {
        /// The version of the key's record at the write; 0 if the key was absent.
        version: u64,
    },
}
