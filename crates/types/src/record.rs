//! The value and version of a key.

use bincode::{Decode, Encode};

use crate::Value;

/// The value and version of a key. A key without a record is absent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Record {
    /// The shard's revision at the write that made this record. Within a shard it only grows,
    /// across deletions, snapshots and leader changes, so it serves as the key's version in a
    /// condition.
    pub version: u64,
    /// The value.
    pub value: Value,
    /// The time of the shard's clock, in milliseconds, from which on the record counts as absent.
    /// None: the record stays until it is deleted. Reserved for the expiry of records, a later
    /// feature: nothing sets it yet.
    pub expires_at_ms: Option<u64>,
}
