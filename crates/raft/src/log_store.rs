//! The shared log, as openraft sees it: one `LogStore` per replica.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures::stream::{self, Stream};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use quorate_machine::log::{Log, LogError};
use quorate_testpoints::{FailPoint, fail_point};
use quorate_types::ReplicaId;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::convert;
use crate::openraft_types as raft;

/// Bytes of entries read at a time for replication and for apply. At least one entry is always
/// read.
const READ_BYTES_MAX: usize = 1 << 20;

/// One replica's log.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: Arc<dyn Log>,
    replica: ReplicaId,
}

impl LogStore {
    pub(crate) fn new(log: Arc<dyn Log>, replica: ReplicaId) -> Self {
        LogStore { log, replica }
    }

    /// Reads entries from `start` on, up to `end` or the bound of one read.
    fn read(&self, start: u64, end: u64) -> io::Result<Vec<raft::Entry>> {
        let entries = self.log.entries(self.replica, start..end, READ_BYTES_MAX).map_err(to_io)?;
        assert_contiguous(&entries);
        Ok(entries.into_iter().map(convert::entry).collect())
    }
}

/// Checked before a write and after a read.
fn assert_contiguous(entries: &[quorate_types::Entry]) {
    let follows = |pair: &[quorate_types::Entry]| pair[1].id.index == pair[0].id.index + 1;
    assert!(entries.windows(2).all(follows), "the entries of a replica have no holes");
}

fn to_io(error: LogError) -> io::Error {
    io::Error::other(error)
}

/// The half-open form of a range of indexes.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => end + 1,
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<raft::TypeConfig> for LogStore {
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<raft::Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let store = self.clone();
        let chunks = stream::unfold(Some(start), move |next| {
            let store = store.clone();
            async move {
                let start = next.filter(|start| *start < end)?;
                match store.read(start, end) {
                    Ok(entries) => {
                        let next = entries.last()?.log_id.index + 1;
                        Some((entries.into_iter().map(Ok).collect(), Some(next)))
                    }
                    Err(error) => Some((vec![Err(error)], None)),
                }
            }
        });
        futures::StreamExt::flat_map(chunks, |chunk: Vec<io::Result<raft::Entry>>| stream::iter(chunk))
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<raft::Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (mut start, end) = bounds(&range);
        let mut all = Vec::new();
        while start < end {
            let entries = self.read(start, end)?;
            let Some(last) = entries.last() else { break };
            start = last.log_id.index + 1;
            all.extend(entries);
        }
        Ok(all)
    }

    /// The entries begin at `start`, or there are none. A stream that openraft has replaced may ask
    /// for entries that were purged since; the entries after them would be a hole at the follower.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<raft::Entry>> {
        let entries = self.read(start, end)?;
        if entries.first().is_some_and(|first| first.log_id.index != start) {
            warn!(replica = %self.replica, start, "the entries to replicate are purged");
            return Ok(Vec::new());
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<raft::Vote>> {
        let vote = self.log.state(self.replica).map_err(to_io)?.vote;
        let (term, candidate) = vote.map_or((0, ReplicaId(0)), |vote| (vote.term, vote.candidate));
        debug!(replica = %self.replica, term, %candidate, "vote found");
        Ok(vote.map(convert::vote))
    }
}

impl RaftLogStorage<raft::TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<raft::TypeConfig>> {
        let state = self.log.state(self.replica).map_err(to_io)?;
        Ok(LogState {
            last_purged_log_id: state.purged.map(convert::log_id),
            last_log_id: state.last.map(convert::log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    /// The vote (term and candidate) is durable on return. Its `committed` flag, set when the
    /// candidate has won, is persisted by the next write, such as the first entry of the term. That
    /// saves two fsyncs per election, and is safe: a replica that forgets the flag has still voted
    /// for no other candidate.
    async fn save_vote(&mut self, vote: &raft::Vote) -> io::Result<()> {
        let vote = convert::our_vote(vote);
        let saved = self.log.state(self.replica).map_err(to_io)?.vote;
        assert!(saved.is_none_or(|saved| saved.term <= vote.term), "a vote never goes back to an earlier term");
        if vote.committed && saved == Some(quorate_types::Vote { committed: false, ..vote }) {
            self.log.vote_won(self.replica);
        } else {
            let (done, synced) = completion();
            self.log.save_vote(self.replica, vote, done);
            wait(synced).await?;
        }
        debug!(replica = %self.replica, term = vote.term, candidate = %vote.candidate, "vote saved");
        fail_point(FailPoint::VoteSaved);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<raft::LogId>) -> io::Result<()> {
        self.log.save_committed(self.replica, committed.as_ref().map(convert::our_log_id));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<raft::LogId>> {
        Ok(self.log.state(self.replica).map_err(to_io)?.committed.map(convert::log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<raft::TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = raft::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().map(convert::our_entry).collect();
        assert_contiguous(&entries);
        self.log.append(self.replica, entries, Box::new(move |result| callback.io_completed(result.map_err(to_io))));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<raft::LogId>) -> io::Result<()> {
        let (done, synced) = completion();
        self.log.truncate_after(self.replica, last_log_id.as_ref().map(convert::our_log_id), done);
        wait(synced).await
    }

    async fn purge(&mut self, log_id: raft::LogId) -> io::Result<()> {
        self.log.purge(self.replica, convert::our_log_id(&log_id));
        Ok(())
    }
}

/// A `Done` and the receiver of its result.
fn completion() -> (quorate_machine::log::Done, oneshot::Receiver<Result<(), LogError>>) {
    let (sender, receiver) = oneshot::channel();
    let done = Box::new(move |result| {
        // The receiver is gone when the core has stopped.
        let _ = sender.send(result);
    });
    (done, receiver)
}

async fn wait(synced: oneshot::Receiver<Result<(), LogError>>) -> io::Result<()> {
    synced.await.unwrap_or(Err(LogError::Closed)).map_err(to_io)
}

#[cfg(test)]
mod tests {
    use quorate_machine::log::MemoryLog;
    use quorate_types::GroupId;

    use super::*;
    use crate::openraft_types::Vote;

    const A: ReplicaId = ReplicaId(7);

    fn vote(term: u64, candidate: u64, committed: bool) -> Vote {
        convert::vote(quorate_types::Vote { term, candidate: ReplicaId(candidate), committed })
    }

    /// A vote is durable before the replica answers. The candidate's victory waits for no sync; the
    /// next write persists it.
    #[tokio::test]
    async fn only_a_new_vote_waits_for_its_sync() {
        let log = Arc::new(MemoryLog::new(false));
        log.create(A, GroupId(1)).unwrap();
        let mut store = LogStore::new(log.clone(), A);
        let durable = || log.durable_state(A).and_then(|state| state.vote).map(convert::vote);
        // A candidate, a leader that was no candidate here, another one of the same term, a
        // candidate of a later term.
        for news in [vote(1, 5, false), vote(2, 6, true), vote(2, 8, true), vote(3, 5, false)] {
            let mut saving = std::pin::pin!(store.save_vote(&news));
            assert!(futures::poll!(saving.as_mut()).is_pending(), "{news}");
            assert_ne!(durable(), Some(news));
            log.sync();
            saving.await.unwrap();
            assert_eq!(durable(), Some(news));
        }
        store.save_vote(&vote(3, 5, true)).await.unwrap();
        assert_eq!(store.read_vote().await.unwrap(), Some(vote(3, 5, true)));
        assert_eq!(durable(), Some(vote(3, 5, false)));
        log.crash();
        assert_eq!(store.read_vote().await.unwrap(), Some(vote(3, 5, false)), "it still votes for no other candidate");
        store.save_vote(&vote(3, 5, true)).await.unwrap();
        log.sync();
        assert_eq!(durable(), Some(vote(3, 5, true)));
    }
}
