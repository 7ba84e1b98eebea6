//! What a replica's state holds beside user data: persisted structs of the state database.

use bincode::{Decode, Encode};

use crate::{LogId, Membership, TokenArc};

/// What a replica remembers of itself. Written with every batch of applied entries, in the same batch: no reader and no crash
/// ever sees one without the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Head {
    /// The last entry applied.
    pub applied: Option<LogId>,
    /// Counts the mutations ever applied; a record's version is the revision at its write. Only grows.
    pub revision: u64,
    /// The shard's clock in milliseconds: the largest time that any proposal carried.
    pub clock_ms: u64,
    /// The arc's epoch; 0 until the shard was bootstrapped.
    pub epoch: u64,
    /// The tokens that the shard owns.
    pub arc: Option<TokenArc>,
    /// Sessions ever opened: the next one gets this number plus one.
    pub sessions_opened: u64,
}

/// The last membership applied, and its place in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct StoredMembership {
    /// The entry that it came with.
    pub at: Option<LogId>,
    /// Who is a member.
    pub members: Membership,
}

/// What one entry did in one session, and where the session stood after it. The newest one of a session is what the session
/// is; older ones are kept while an outcome in them may be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SessionEntry {
    /// The shard's clock at the entry: the session was last used then.
    pub clock_ms: u64,
    /// The lowest sequence whose outcome may still be asked for.
    pub lowest: u64,
    /// What became of the writes that the entry did, with their sequences.
    pub outcomes: Vec<(u64, Remembered)>,
}

/// What is remembered of an outcome: enough to give it again, without the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Remembered {
    /// The write was done.
    Written {
        /// The shard's revision at the write.
        version: u64,
        /// The version of the record that it replaced or deleted; 0 if there was none or if nobody looked.
        replaced: u64,
    },
    /// The condition did not hold.
    Refused {
        /// The version of the key's record then; 0 if the key was absent.
        version: u64,
    },
}
