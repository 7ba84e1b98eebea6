//! Writes: at the leader, in a session, applied once.
//!
//! ```text
//!   try ──► Written, Refused ───────────────────────────────► the outcome
//!       ──► certainly not applied (redirect, not sent, …) ──► next try, same stamp
//!       ──► may be applied (lost, unknown, …) ── in doubt ──► next try, same stamp: it gets the first one's outcome
//!       ──► session unknown ── in doubt? ── no ─────────────► next try, new session, new stamp
//!                                        └─ yes ────────────► Error::Unknown
//!   deadline ── in doubt? ── no ────────────────────────────► an error that says that nothing was applied
//!                         └─ yes ───────────────────────────► Error::Unknown
//! ```

use std::sync::Arc;
use std::time::Duration;

use quorate_types::{KvAnswer, KvOperation, Outcome, Rejection, Served, ShardId, Write};
use tokio::time::timeout_at;

use crate::map::{Map, Shard};
use crate::operation::{Deadline, Step, recover, step};
use crate::search::{Failure, Prefer, Search};
use crate::session::{OUTSTANDING_MAX, Session, Slot};
use crate::{Error, Router};

/// How long one try waits: beyond that it is more likely that the leader is cut off than that it is slow.
const TRY: Duration = Duration::from_secs(2);

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The shard's revision at the write. For a put that is the record's version.
    pub version: u64,
    /// The version of the record that was replaced or deleted; 0 if the key was absent, or if nobody looked (an unconditional
    /// put does not look).
    pub replaced: u64,
}

/// Why the outcome of a write is in doubt: the first of its tries that may have been applied. None: none may.
#[derive(Default)]
struct Doubt(Option<String>);

impl Doubt {
    fn cast(&mut self, reason: String) {
        self.0.get_or_insert(reason);
    }

    fn is_cast(&self) -> bool {
        self.0.is_some()
    }

    /// An error that says that nothing was applied, or what it is when that is in doubt.
    fn end(self, error: Error) -> Error {
        match self.0 {
            None => error,
            Some(reason) => Error::Unknown { reason: format!("{reason}; then {error}") },
        }
    }
}

pub(crate) async fn write(router: &Router, write: Write, deadline: Deadline) -> Result<Served<Written>, Error> {
    let mut doubt = Doubt::default();
    match attempts(router, &write, deadline, &mut doubt).await {
        Ok(served) => Ok(served),
        Err(refused @ Error::Refused { .. }) => Err(refused),
        Err(error) => Err(doubt.end(error)),
    }
}

/// Tries until there is an outcome. Whether a try may have been applied is in `doubt`, whatever the error says.
async fn attempts(
    router: &Router,
    write: &Write,
    deadline: Deadline,
    doubt: &mut Doubt,
) -> Result<Served<Written>, Error> {
    let mut search = Search::new(Prefer::Leader);
    let mut slot: Option<(ShardId, Slot)> = None;
    loop {
        let map = router.maps.get(deadline).await?;
        let shard = map.route(&write.key);
        let in_shard = match slot.take() {
            Some((in_shard, kept)) if in_shard == shard.id => kept,
            // A session says nothing in another shard.
            Some(_) if doubt.is_cast() => {
                return Err(Error::Unreachable { reason: "the key moved to another shard".into() });
            }
            _ => self::slot(router, &map, shard, deadline).await?,
        };
        let (_, kept) = slot.insert((shard.id, in_shard));
        let session = kept.session();
        let operation = KvOperation::Write { stamp: kept.stamp(), write: write.clone() };
        let failure = match step(&map, shard, &mut search, operation, TRY, deadline).await {
            Step::Failed(failure) => failure,
            Step::Answered(Served { value: KvAnswer::Outcome(outcome), by }) => {
                shard.live.set_leader(by.node);
                match outcome {
                    Outcome::Written { version, replaced } => {
                        return Ok(Served { value: Written { version, replaced }, by });
                    }
                    Outcome::Refused { version, current } => return Err(Error::Refused { version, current }),
                    // Not applied now. Whether it is safe to go on with another stamp depends on the tries before.
                    Outcome::SessionUnknown | Outcome::SequenceForgotten => {
                        shard.live.sessions.lost(session);
                        if doubt.is_cast() {
                            return Err(Error::Unreachable {
                                reason: "the shard does not know the session any more".into(),
                            });
                        }
                        slot = None;
                        Failure::Again("the shard did not know the session")
                    }
                    Outcome::SequenceTooFar => Failure::Again("too many writes of the session are outstanding"),
                    Outcome::WrongEpoch { .. } => Failure::Rejected(Rejection::WrongShard { shard: None }),
                    Outcome::SessionOpened { .. } | Outcome::Done => {
                        Failure::Unfitting(format!("answered a write with {outcome:?}"))
                    }
                }
            }
            Step::Answered(served) => Failure::Unfitting(format!("answered a write with {:?}", served.value)),
        };
        if failure.may_have_applied() {
            doubt.cast(failure.reason());
        }
        recover(router, &map, shard, &mut search, failure, deadline).await?;
    }
}

/// A place in the shard's session, which is opened if need be.
async fn slot(router: &Router, map: &Arc<Map>, shard: &Shard, deadline: Deadline) -> Result<Slot, Error> {
    let session = match shard.live.sessions.current() {
        Some(session) => session,
        None => open(router, map, shard, deadline).await?,
    };
    timeout_at(deadline.at, session.slot()).await.map_err(|_| Error::Overloaded {
        reason: format!(
            "{OUTSTANDING_MAX} writes of this client were outstanding in shard {} for {deadline}",
            shard.id
        ),
    })
}

/// Opens a session. One that was opened and of which this side never heard is evicted in time: it may be tried again.
async fn open(router: &Router, map: &Arc<Map>, shard: &Shard, deadline: Deadline) -> Result<Arc<Session>, Error> {
    let sessions = &shard.live.sessions;
    let _opening = timeout_at(deadline.at, sessions.opening.lock()).await.map_err(|_| Error::Unreachable {
        reason: format!("shard {}: no session was opened within {deadline}", shard.id),
    })?;
    if let Some(session) = sessions.current() {
        return Ok(session);
    }
    let mut search = Search::new(Prefer::Leader);
    let (mut map, mut shard_now) = (Arc::clone(map), None::<Arc<Shard>>);
    loop {
        let at = shard_now.as_deref().unwrap_or(shard);
        let failure = match step(&map, at, &mut search, KvOperation::OpenSession, TRY, deadline).await {
            Step::Answered(Served { value: KvAnswer::Outcome(Outcome::SessionOpened { session }), by }) => {
                at.live.set_leader(by.node);
                return Ok(sessions.opened(session));
            }
            Step::Answered(Served { value: KvAnswer::Outcome(Outcome::WrongEpoch { .. }), .. }) => {
                Failure::Rejected(Rejection::WrongShard { shard: None })
            }
            Step::Answered(served) => {
                Failure::Unfitting(format!("answered the opening of a session with {:?}", served.value))
            }
            Step::Failed(failure) => failure,
        };
        recover(router, &map, at, &mut search, failure, deadline).await?;
        map = router.maps.get(deadline).await?;
        let next = map.shard(shard.id).cloned();
        shard_now = Some(next.ok_or_else(|| Error::Unreachable { reason: format!("shard {} is gone", shard.id) })?);
    }
}
