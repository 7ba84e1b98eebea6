//! The step between two attempts of an operation: a pause, a newer map, or the end.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::Rejection;
use tokio::time::{Instant, sleep};

use crate::deadline::Deadline;
use crate::map::{Map, Shard};
use crate::map_cache::MapCache;
use crate::search::{Next, Search};
use crate::{Attempt, Error, backoff};

/// Prepares the next attempt after a failed one. An error ends the operation: it says that all
/// attempts failed without effect, which the caller corrects if one of them may have been applied.
pub(crate) async fn recover(
    maps: &MapCache,
    map: &Arc<Map>,
    shard: &Shard,
    search: &mut Search,
    failed: Attempt,
    deadline: Deadline,
) -> Result<(), Error> {
    let entry = match &failed {
        Attempt::Rejected(Rejection::WrongShard { shard: Some(entry) }) => Some(entry.clone()),
        _ => None,
    };
    let pause = match search.after(map, shard, failed)? {
        Next::Immediately => Duration::ZERO,
        Next::Pause { at_least } => at_least.max(backoff::pause(search.pauses(), maps.randomness.fraction())),
        Next::Refresh => {
            let is_newer = entry.is_some_and(|entry| maps.merge(entry)) || maps.refresh(map, deadline).await;
            if is_newer && search.may_retry_without_pause() {
                Duration::ZERO
            } else {
                backoff::pause(search.pauses(), maps.randomness.fraction())
            }
        }
    };
    if Instant::now() + pause >= deadline.at {
        return Err(search.out_of_time(map, shard, deadline));
    }
    if !pause.is_zero() {
        search.paused();
        sleep(pause).await;
    }
    Ok(())
}
