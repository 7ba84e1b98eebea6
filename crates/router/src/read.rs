//! Reads: at the leader or at the nearest replica. A read applies nothing, so it may be tried as often as there is time.

use std::time::Duration;

use quorate_types::{Key, KvAnswer, KvOperation, ReadLevel, Record, Served};

use crate::operation::{Deadline, Step, recover, step};
use crate::search::{Failure, Prefer, Search};
use crate::{Error, Router};

/// How long one try of a strong read waits: a leader that is well confirms with its quorum in much less.
const STRONG_TRY: Duration = Duration::from_secs(1);
/// How long one try of an eventual read waits: the replica answers by itself, and there is another one.
const EVENTUAL_TRY: Duration = Duration::from_millis(300);

pub(crate) async fn get(
    router: &Router,
    key: Key,
    level: ReadLevel,
    deadline: Deadline,
) -> Result<Served<Option<Record>>, Error> {
    let (prefer, longest) = match level {
        ReadLevel::Strong => (Prefer::Leader, STRONG_TRY),
        ReadLevel::Eventual => (Prefer::Nearest, EVENTUAL_TRY),
    };
    let mut search = Search::new(prefer);
    loop {
        let map = router.maps.get(deadline).await?;
        let shard = map.route(&key);
        let operation = KvOperation::Get { key: key.clone(), level };
        let failure = match step(&map, shard, &mut search, operation, longest, deadline).await {
            Step::Answered(Served { value: KvAnswer::Found(record), by }) => {
                if level == ReadLevel::Strong {
                    shard.live.set_leader(by.node);
                }
                return Ok(Served { value: record, by });
            }
            Step::Answered(served) => Failure::Unfitting(format!("answered a get with {:?}", served.value)),
            Step::Failed(failure) => failure,
        };
        recover(router, &map, shard, &mut search, failure, deadline).await?;
    }
}
