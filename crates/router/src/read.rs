//! Reads: at the leader or at the nearest replica. A read applies nothing, so it may be retried
//! until its deadline.

use std::time::Duration;

use quorate_types::{Key, KvAnswer, KvOperation, ReadLevel, Record, Served};

use crate::deadline::Deadline;
use crate::map_cache::MapCache;
use crate::recovery::recover;
use crate::search::{Prefer, Search};
use crate::{Attempt, Error, Router};

/// How long one attempt of a strong read waits: a healthy leader confirms with its quorum in much
/// less.
const STRONG_ATTEMPT: Duration = Duration::from_secs(1);
/// How long one attempt of an eventual read waits: a replica answers from its own state, and there
/// are other replicas.
const EVENTUAL_ATTEMPT: Duration = Duration::from_millis(300);

impl Router {
    /// Reads a key at a level, within that time. A read never applies anything.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] or [`Error::Overloaded`] when no replica served the read in time: try
    /// again. [`Error::Invalid`] when the read can never succeed.
    pub async fn get(&self, key: Key, level: ReadLevel, within: Duration) -> Result<Served<Option<Record>>, Error> {
        get(&self.maps, key, level, Deadline::after(within)).await
    }
}

async fn get(maps: &MapCache, key: Key, level: ReadLevel, deadline: Deadline) -> Result<Served<Option<Record>>, Error> {
    let (prefer, longest) = match level {
        ReadLevel::Strong => (Prefer::Leader, STRONG_ATTEMPT),
        ReadLevel::Eventual => (Prefer::Nearest { turn: maps.randomness.turn() }, EVENTUAL_ATTEMPT),
    };
    let mut search = Search::new(prefer);
    loop {
        let map = maps.get(deadline).await?;
        let shard = map.route(&key);
        let operation = KvOperation::Get { key: key.clone(), level };
        let failed = match search.pick(&map, shard) {
            None => Attempt::NoReplica,
            Some(node) => match node.attempt(shard.route(), operation, longest, deadline).await {
                Attempt::Served(Served { value: KvAnswer::Found(record), by }) => {
                    if level == ReadLevel::Strong {
                        shard.live.set_leader(by.node);
                    }
                    return Ok(Served { value: record, by });
                }
                Attempt::Served(served) => Attempt::unfitting("a get", &served.value),
                failed => failed,
            },
        };
        recover(maps, &map, shard, &mut search, failed, deadline).await?;
    }
}
