//! The records of a shard: reading them, conditions, and writes.

use quorate_types::codec::{self, CodecError, Kind};
use quorate_types::state::Head;
use quorate_types::{Condition, Key, Mutation, Outcome, Record, ReplicaId, Value, Write};

use crate::draft::Draft;
use crate::keys::Space;
use crate::state::{StateError, View, meta};
use quorate_testpoints::Bug;

/// Reads keys of a shard together with the head, all from one view. A record that has expired by
/// the shard's clock is absent.
///
/// The records are in key order. Reading stops once the values have `bytes_max` bytes, so fewer
/// records than keys may be returned, but at least one.
pub fn read(
    view: &dyn View,
    replica: ReplicaId,
    keys: &[Key],
    bytes_max: usize,
) -> Result<(Head, Vec<Option<Record>>), StateError> {
    let head = meta::head(view, replica)?;
    let mut records = Vec::with_capacity(keys.len());
    let mut bytes = 0;
    for key in keys {
        if bytes >= bytes_max && !records.is_empty() {
            break;
        }
        let mut found = None;
        view.get_with(replica, Space::Data, key.as_bytes(), &mut |bytes| found = Some(decode(bytes)))?;
        let record = found.transpose().map_err(|source| StateError::Corrupt { replica, source })?;
        let record = record.filter(|record| is_live(record, head.clock_ms));
        bytes += record.as_ref().map_or(0, |record| record.value.as_bytes().len());
        records.push(record);
    }
    Ok((head, records))
}

/// Applies a write if its condition holds.
pub(crate) fn apply_write(draft: &mut Draft<'_>, write: Write) -> Result<Outcome, StateError> {
    let Write { key, mutation, condition } = write;
    // An unconditional put reads nothing: the replaced version is not reported.
    let reads = condition.is_some() || mutation == Mutation::Delete;
    let current = if reads { current(draft, &key)? } else { None };
    if let Some(condition) = condition
        && !Bug::ConditionIgnored.is_on()
        && !holds(&condition, current.as_ref())
    {
        return Ok(Outcome::Refused { version: version_of(current.as_ref()), current });
    }
    let head = draft.head_mut();
    head.revision += 1;
    let version = head.revision;
    match mutation {
        Mutation::Put(value) => put(draft, &key, version, value),
        Mutation::Delete => draft.delete(Space::Data, key.as_bytes().to_vec()),
    }
    Ok(Outcome::Written { version, replaced: version_of(current.as_ref()) })
}

fn put(draft: &mut Draft<'_>, key: &Key, version: u64, value: Value) {
    let record = Record { version, value, expires_at_ms: None };
    draft.put(Space::Data, key.as_bytes().to_vec(), codec::encode(Kind::Record, &record));
}

fn holds(condition: &Condition, current: Option<&Record>) -> bool {
    match condition {
        Condition::Absent => current.is_none(),
        Condition::Exists => current.is_some(),
        Condition::Version(version) => *version == version_of(current),
        Condition::Value(value) => current.is_some_and(|record| record.value == *value),
    }
}

/// The version of a record; 0 if there is none.
fn version_of(record: Option<&Record>) -> u64 {
    record.map_or(0, |record| record.version)
}

/// The current record of a key, by the shard's clock.
pub(crate) fn current(draft: &Draft<'_>, key: &Key) -> Result<Option<Record>, StateError> {
    let bytes = draft.get(Space::Data, key.as_bytes())?;
    let record = bytes.map(|bytes| decode(&bytes)).transpose();
    let record = record.map_err(|source| StateError::Corrupt { replica: draft.replica(), source })?;
    Ok(record.filter(|record| is_live(record, draft.head().clock_ms)))
}

fn decode(bytes: &[u8]) -> Result<Record, CodecError> {
    codec::decode(Kind::Record, bytes)
}

fn is_live(record: &Record, clock_ms: u64) -> bool {
    record.expires_at_ms.is_none_or(|expires_at_ms| expires_at_ms > clock_ms)
}
