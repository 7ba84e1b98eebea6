//! What a key holds.

use bincode::{Decode, Encode};

use crate::Value;

/// What a key holds. A key without a record is absent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Record {
    /// The shard's revision at the write that made this record. Within a shard it only grows, also over deletions, snapshots
    /// and changes of leader, so it can serve as the key's version in a condition.
    pub version: u64,
    /// The bytes that were put.
    pub value: Value,
    /// The shard's clock, in milliseconds, from which on the record counts as absent. None: it stays until it is deleted.
    pub expires_at_ms: Option<u64>,
}
