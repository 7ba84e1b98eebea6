//! The state machine of a shard: keys, values, conditions and sessions, and [`read`] for its
//! records.

use bytes::Bytes;
use quorate_types::codec::{self, CodecError, Kind};
use quorate_types::state::{Head, Remembered};
use quorate_types::{
    Command, Condition, Key, LogId, Mutation, Outcome, Proposal, Record, ReplicaId, SessionStamp, TokenArc, Value,
    Write,
};

use crate::draft::Draft;
use crate::keys::Space;
use crate::machine::{Machine, Reply};
use crate::sessions::{Admission, Sessions};
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

/// A shard's state machine. An entry is an encoded [`Proposal`]; its reply contains one [`Outcome`]
/// per command, in order.
pub struct KvMachine {
    sessions: Sessions,
    deduplicate: bool,
}

impl KvMachine {
    /// Loads the session table of a replica's state into memory.
    pub fn open(replica: ReplicaId, view: &dyn View) -> Result<Self, StateError> {
        Ok(KvMachine { sessions: Sessions::open(replica, view)?, deduplicate: !Bug::SessionTableOff.is_on() })
    }

    fn apply_command(&mut self, command: Command, draft: &mut Draft<'_>) -> Result<Outcome, StateError> {
        match command {
            Command::Bootstrap { arc, epoch } => Ok(bootstrap(draft, arc, epoch)),
            Command::OpenSession { epoch } => Ok(match wrong_epoch(draft, epoch) {
                Some(refusal) => refusal,
                None => Outcome::SessionOpened { session: self.sessions.open_session(draft) },
            }),
            Command::Write { epoch, stamp, write } => self.apply_stamped(epoch, &stamp, write, draft),
            Command::Tick => Ok(Outcome::Done),
        }
    }

    /// Applies a write unless it was applied before.
    ///
    /// The session check comes before the epoch check, because `WrongEpoch` promises that the write
    /// was not applied. For a write with an unknown session or a forgotten outcome, that promise
    /// cannot be made.
    fn apply_stamped(
        &mut self,
        epoch: u64,
        stamp: &SessionStamp,
        write: Write,
        draft: &mut Draft<'_>,
    ) -> Result<Outcome, StateError> {
        let admission = if self.deduplicate { self.sessions.admit(stamp) } else { Admission::New };
        match admission {
            Admission::Unknown => return Ok(Outcome::SessionUnknown),
            Admission::Forgotten => return Ok(Outcome::SequenceForgotten),
            Admission::Done(Remembered::Written { version, replaced }) => {
                return Ok(Outcome::Written { version, replaced });
            }
            Admission::Done(Remembered::Refused { version }) => {
                let current = current(draft, &write.key)?.filter(|record| record.version == version);
                return Ok(Outcome::Refused { version, current });
            }
            Admission::TooFar | Admission::New => {}
        }
        if let Some(refusal) = wrong_epoch(draft, epoch) {
            return Ok(refusal);
        }
        if admission == Admission::TooFar {
            return Ok(Outcome::SequenceTooFar);
        }
        let outcome = apply_write(draft, write)?;
        if self.deduplicate {
            let remembered = match &outcome {
                Outcome::Written { version, replaced } => {
                    Remembered::Written { version: *version, replaced: *replaced }
                }
                Outcome::Refused { version, .. } => Remembered::Refused { version: *version },
                other => unreachable!("a write that is applied is written or refused, not {other:?}"),
            };
            self.sessions.remember(stamp, remembered);
        }
        Ok(outcome)
    }
}

impl Machine for KvMachine {
    fn apply(&mut self, at: LogId, proposal: &Bytes, draft: &mut Draft<'_>) -> Result<Reply, StateError> {
        let proposal =
            Proposal::decode(proposal).map_err(|source| StateError::Corrupt { replica: draft.replica(), source })?;
        let head = draft.head_mut();
        head.clock_ms = head.clock_ms.max(proposal.time_ms);
        let clock_ms = head.clock_ms;
        self.sessions.begin(clock_ms, at.index, draft);
        let mut room = REFUSED_BYTES_MAX;
        let apply = |command| self.apply_command(command, draft).map(|outcome| within(&mut room, outcome));
        let outcomes: Result<Vec<Outcome>, StateError> = proposal.commands.into_iter().map(apply).collect();
        self.sessions.finish(draft);
        outcomes.map(Reply::Shard)
    }
}

/// Limit, in bytes, on the records in the refusals of one entry; the same on every replica. Without
/// it, thousands of small commands refused by one large record would make a huge reply.
const REFUSED_BYTES_MAX: usize = 2 << 20;

/// Removes the record from a refusal if the entry's earlier refusals have used up the limit.
fn within(room: &mut usize, mut outcome: Outcome) -> Outcome {
    if let Outcome::Refused { current, .. } = &mut outcome {
        let bytes = current.as_ref().map_or(0, |record| record.value.as_bytes().len());
        match room.checked_sub(bytes) {
            Some(left) => *room = left,
            None => *current = None,
        }
    }
    outcome
}

/// The first bootstrap sets arc and epoch; later ones change nothing.
fn bootstrap(draft: &mut Draft<'_>, arc: TokenArc, epoch: u64) -> Outcome {
    let head = draft.head_mut();
    if head.arc.is_none() {
        head.arc = Some(arc);
        head.epoch = epoch;
    }
    Outcome::Done
}

/// The refusal of a command that was routed with another epoch than the shard's.
fn wrong_epoch(draft: &Draft<'_>, epoch: u64) -> Option<Outcome> {
    let head = draft.head();
    (head.arc.is_none() || head.epoch != epoch).then_some(Outcome::WrongEpoch { epoch: head.epoch })
}

/// Applies a write if its condition holds.
fn apply_write(draft: &mut Draft<'_>, write: Write) -> Result<Outcome, StateError> {
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
fn current(draft: &Draft<'_>, key: &Key) -> Result<Option<Record>, StateError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Four thousand small commands refused by one large record must not make a reply of gigabytes.
    #[test]
    fn refusals_of_one_entry_are_bounded() {
        let record = Record { version: 7, value: Value::new(vec![0; 1 << 20]).unwrap(), expires_at_ms: None };
        let mut room = REFUSED_BYTES_MAX;
        let carried = (0..4096)
            .map(|_| within(&mut room, Outcome::Refused { version: 7, current: Some(record.clone()) }))
            .filter(|outcome| matches!(outcome, Outcome::Refused { version: 7, current: Some(_) }))
            .count();
        assert_eq!(carried, REFUSED_BYTES_MAX >> 20);
    }
}
