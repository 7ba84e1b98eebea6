//! The state machine of a shard: commands, epochs and sessions. Its records are read and written by
//! `record`.

use bytes::Bytes;
use quorate_types::state::Remembered;
use quorate_types::{Command, LogId, Outcome, Proposal, ReplicaId, SessionStamp, TokenArc, Write};

use crate::draft::Draft;
use crate::machine::{Machine, Reply};
use crate::record;
use crate::sessions::{Admission, Sessions};
use crate::state::{StateError, View};
use quorate_testpoints::Bug;

pub use crate::record::read;

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
                let current = record::current(draft, &write.key)?.filter(|record| record.version == version);
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
        let outcome = record::apply_write(draft, write)?;
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

#[cfg(test)]
mod tests {
    use quorate_types::{Record, Value};

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
