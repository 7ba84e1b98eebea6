//! Takes a slot in the session of a shard, and opens the session if there is none.

use std::sync::Arc;

use quorate_types::{KvAnswer, KvOperation, Outcome, Rejection, Served};
use tokio::time::timeout_at;

use crate::attempt::LEADER_ATTEMPT;
use crate::deadline::Deadline;
use crate::map::{Map, Shard};
use crate::map_cache::MapCache;
use crate::recovery::recover;
use crate::search::{Prefer, Search};
use crate::session::{OUTSTANDING_MAX, Session, Slot};
use crate::{Attempt, Error};

/// Takes a slot in the shard's session. Opens the session if there is none.
pub(crate) async fn take_slot(
    maps: &MapCache,
    map: &Arc<Map>,
    shard: &Shard,
    deadline: Deadline,
) -> Result<Slot, Error> {
    let session = match shard.live.sessions.current() {
        Some(session) => session,
        None => open(maps, map, shard, deadline).await?,
    };
    timeout_at(deadline.at, session.slot()).await.map_err(|_| Error::Overloaded {
        reason: format!(
            "{OUTSTANDING_MAX} writes of this client were outstanding in shard {} for {deadline}",
            shard.id
        ),
    })
}

/// Opens a session. Opening may be retried in doubt: the shard evicts a session that no client
/// uses.
async fn open(maps: &MapCache, map: &Arc<Map>, shard: &Shard, deadline: Deadline) -> Result<Arc<Session>, Error> {
    let sessions = &shard.live.sessions;
    let _opening = timeout_at(deadline.at, sessions.opening.lock()).await.map_err(|_| Error::Unreachable {
        reason: format!("shard {}: no session was opened within {deadline}", shard.id),
    })?;
    if let Some(session) = sessions.current() {
        return Ok(session);
    }
    let mut search = Search::new(Prefer::Leader);
    let (mut map, mut newer) = (Arc::clone(map), None::<Arc<Shard>>);
    loop {
        let at = newer.as_deref().unwrap_or(shard);
        let attempt = match search.pick(&map, at) {
            None => Attempt::NoReplica,
            Some(node) => node.attempt(at.route(), KvOperation::OpenSession, LEADER_ATTEMPT, deadline).await,
        };
        let failed = match attempt {
            Attempt::Served(Served { value: KvAnswer::Outcome(Outcome::SessionOpened { session }), by }) => {
                at.live.set_leader(by.node);
                return Ok(sessions.opened(session));
            }
            Attempt::Served(Served { value: KvAnswer::Outcome(Outcome::WrongEpoch { .. }), .. }) => {
                Attempt::Rejected(Rejection::WrongShard { shard: None })
            }
            Attempt::Served(served) => Attempt::unfitting("the opening of a session", &served.value),
            failed => failed,
        };
        recover(maps, &map, at, &mut search, failed, deadline).await?;
        map = maps.get(deadline).await?;
        let next = map.shard(shard.id).cloned();
        newer = Some(next.ok_or_else(|| Error::Unreachable { reason: format!("shard {} is gone", shard.id) })?);
    }
}
