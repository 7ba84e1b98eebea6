//! Writes: at the leader, in a session, applied once.
//!
//! ```text
//!   attempt ─► Written, Refused ───────────────────────────► the outcome
//!           ─► certainly not applied (redirect, not sent, …) ► retry with the same stamp
//!           ─► may be applied (lost, silent, …) ─ in doubt ──► retry with the same stamp, which
//!                                                              returns the first outcome
//!           ─► session unknown ─── in doubt? ─── no ─────────► retry with a new session and stamp
//!                                           └─── yes ────────► Error::Unknown
//!   deadline ──────────────────── in doubt? ─── no ──────────► an error: nothing was applied
//!                                           └─── yes ────────► Error::Unknown
//! ```

use std::time::Duration;

use quorate_testpoints::Bug;
use quorate_types::{KvAnswer, KvOperation, Outcome, Rejection, Served, ShardId, Write};

use crate::attempt::LEADER_ATTEMPT;
use crate::deadline::Deadline;
use crate::map_cache::MapCache;
use crate::recovery::recover;
use crate::search::{Prefer, Search};
use crate::session::Slot;
use crate::slot::take_slot;
use crate::{Attempt, Error, Router};

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The shard's revision at the write. For a put, that is the record's version.
    pub version: u64,
    /// The version of the record that was replaced or deleted. 0 if the key was absent, and for an
    /// unconditional put, which does not look.
    pub replaced: u64,
}

impl Router {
    /// Makes a change, within that time. `Ok` means that the change is durable on a majority of the
    /// shard's replicas.
    ///
    /// If the future is dropped before it is done, the change may or may not be applied.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the condition did not hold. [`Error::Unknown`] when the change may
    /// or may not have been applied: read the key to find out. Every other error means that nothing
    /// was applied.
    pub async fn write(&self, write: Write, within: Duration) -> Result<Served<Written>, Error> {
        let mut doubt = Doubt::default();
        match attempts(&self.maps, &write, Deadline::after(within), &mut doubt).await {
            Ok(served) => Ok(served),
            Err(refused @ Error::Refused { .. }) => Err(refused),
            Err(error) => Err(doubt.qualify(error)),
        }
    }
}

/// Whether an earlier attempt of a write may have been applied, and the reason of the first one
/// that may.
#[derive(Default)]
struct Doubt(Option<String>);

impl Doubt {
    fn cast(&mut self, reason: String) {
        self.0.get_or_insert(reason);
    }

    fn is_cast(&self) -> bool {
        self.0.is_some()
    }

    /// The error to report: an error that says "nothing was applied" becomes [`Error::Unknown`]
    /// when that is in doubt.
    fn qualify(self, error: Error) -> Error {
        match self.0 {
            Some(reason) if !Bug::UnknownReportedAsFailed.is_on() => {
                Error::Unknown { reason: format!("{reason}; then {error}") }
            }
            _ => error,
        }
    }
}

/// Retries until there is an outcome. An error says that nothing was applied, which holds only if
/// `doubt` is not cast.
async fn attempts(
    maps: &MapCache,
    write: &Write,
    deadline: Deadline,
    doubt: &mut Doubt,
) -> Result<Served<Written>, Error> {
    let mut search = Search::new(Prefer::Leader);
    let mut slot: Option<(ShardId, Slot)> = None;
    loop {
        let map = maps.get(deadline).await?;
        let shard = map.route(&write.key);
        let in_shard = match slot.take() {
            Some((in_shard, kept)) if in_shard == shard.id => kept,
            // A session means nothing to another shard.
            Some(_) if doubt.is_cast() => {
                return Err(Error::Unreachable { reason: "the key moved to another shard".into() });
            }
            _ => take_slot(maps, &map, shard, deadline).await?,
        };
        let (_, kept) = slot.insert((shard.id, in_shard));
        let operation = KvOperation::Write { stamp: kept.stamp(), write: write.clone() };
        let session = kept.session();
        let attempt = match search.pick(&map, shard) {
            None => Attempt::NoReplica,
            Some(node) => node.attempt(shard.route(), operation, LEADER_ATTEMPT, deadline).await,
        };
        let failed = match attempt {
            Attempt::Served(Served { value: KvAnswer::Outcome(outcome), by }) => {
                shard.live.set_leader(by.node);
                match outcome {
                    Outcome::Written { version, replaced } => {
                        return Ok(Served { value: Written { version, replaced }, by });
                    }
                    Outcome::Refused { version, current } => return Err(Error::Refused { version, current }),
                    // This attempt was not applied. Only the earlier ones decide whether another
                    // stamp is safe.
                    Outcome::SessionUnknown | Outcome::SequenceForgotten => {
                        shard.live.sessions.lost(session);
                        if doubt.is_cast() {
                            let reason = "the shard no longer knows the session".into();
                            return Err(Error::Unreachable { reason });
                        }
                        slot = None;
                        Attempt::Retry("the shard did not know the session")
                    }
                    Outcome::SequenceTooFar => Attempt::Retry("too many writes of the session are outstanding"),
                    Outcome::WrongEpoch { .. } => Attempt::Rejected(Rejection::WrongShard { shard: None }),
                    Outcome::SessionOpened { .. } | Outcome::Done => {
                        Attempt::unfitting("a write", &KvAnswer::Outcome(outcome))
                    }
                }
            }
            Attempt::Served(served) => Attempt::unfitting("a write", &served.value),
            failed => failed,
        };
        if failed.may_have_applied() {
            doubt.cast(failed.reason());
            if Bug::RetryWithNewStamp.is_on() {
                slot = None;
            }
        }
        recover(maps, &map, shard, &mut search, failed, deadline).await?;
    }
}
