//! Purges a replica's log below its durable state.

use std::time::Duration;

use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver;
use quorate_types::peer::SnapshotMeta;
use tokio::time::Instant;

use super::Replica;
use crate::convert;
use crate::core::Core;
use crate::openraft_types::TypeConfig;

/// Pause between two looks at openraft's progress.
const POLL: Duration = Duration::from_millis(5);
/// How long one step may take before the purge is left to a later turn.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// The part of a log that a purge retains.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    /// About so many bytes.
    pub(crate) bytes: u64,
    /// At least so many entries up to the durable one, regardless of their size.
    pub(crate) entries: u64,
}

impl Replica {
    /// Purges the log below `flushed`, a state of this replica that is durable, except for the part
    /// to keep. Returns the number of entries purged.
    pub(crate) async fn purge(&self, flushed: SnapshotMeta, keep: Keep) -> u64 {
        let core = &self.core;
        let Some(durable) = flushed.applied else { return 0 };
        let Ok(log) = core.log.state(core.replica) else { return 0 };
        let first = log.purged.map_or(0, |id| id.index + 1);
        let entries = log.last.map_or(0, |id| (id.index + 1).saturating_sub(first));
        let surplus = surplus_entries(entries, core.log.retained_bytes(core.replica), keep.bytes);
        let end = (first + surplus).min(durable.index.saturating_sub(keep.entries));
        if end <= first {
            return 0;
        }
        assert!(end <= durable.index, "the log is purged only below the durable state");
        core.progress.set_flushed(flushed);
        if core.raft.trigger().snapshot().await.is_err() {
            return 0;
        }
        let mark = convert::log_id(durable);
        let marked = wait_for(core, |metrics| metrics.snapshot.as_ref() >= Some(&mark)).await;
        if !marked || core.raft.trigger().purge_log(end - 1).await.is_err() {
            return 0;
        }
        let purged = wait_for(core, |metrics| metrics.purged.as_ref().is_some_and(|id| id.index >= end - 1)).await;
        if purged { end - first } else { 0 }
    }
}

/// The number of entries, out of `entries` with `bytes` together, beyond the bytes to keep. All
/// entries count as equally large: an estimate is enough to stay near the bound.
fn surplus_entries(entries: u64, bytes: u64, keep_bytes: u64) -> u64 {
    let bytes = bytes.max(1);
    let surplus = bytes.saturating_sub(keep_bytes);
    let entries_over = u64::try_from(u128::from(entries) * u128::from(surplus) / u128::from(bytes)).unwrap_or(entries);
    assert!(entries_over <= entries, "a purge takes no more entries than there are");
    entries_over
}

async fn wait_for(core: &Core, done: impl Fn(&RaftMetrics<TypeConfig>) -> bool) -> bool {
    let deadline = Instant::now() + STEP_TIMEOUT;
    while Instant::now() < deadline {
        if done(&core.raft.metrics().borrow_watched()) {
            return true;
        }
        tokio::time::sleep(POLL).await;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surplus_is_the_share_of_entries_beyond_the_bytes_to_keep() {
        assert_eq!(surplus_entries(100, 1000, 0), 100);
        assert_eq!(surplus_entries(100, 1000, 250), 75);
        assert_eq!(surplus_entries(100, 1000, 1000), 0);
        assert_eq!(surplus_entries(100, 1000, u64::MAX), 0);
        assert_eq!(surplus_entries(0, 0, 0), 0);
        assert_eq!(surplus_entries(u64::MAX, u64::MAX, 0), u64::MAX);
    }
}
