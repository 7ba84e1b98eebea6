//! Reads of a shard: first the right to answer, then the data.
//!
//! Many strong reads share one confirmation by a quorum, but a read joins only a round that starts after the read arrived: what
//! arrives while a round is under way waits for the next one. Any later state of the replica is new enough for it, so each
//! reads for itself, as much at a time as it has room for.

use std::sync::Arc;
use std::time::Duration;

use quorate_machine::state::State;
use quorate_machine::{KvMachine, kv};
use quorate_testpoints::Bug;
use quorate_types::state::Head;
use quorate_types::{Key, ReadLevel, Record, Rejection, Role};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::group::Group;
use crate::leadership::DECISION_MAX;
use crate::linger::Linger;

/// Reads that may wait for the next round. One more is refused as overload.
const QUEUED_MAX: usize = 4096;
/// Reads that one round serves.
const ROUND_READS_MAX: usize = 1024;
/// The longest round: a leader without a quorum is told so by then.
const ROUND_MAX: Duration = Duration::from_secs(2);
/// When a client that was refused for overload may come again, in milliseconds.
const RETRY_AFTER_MS: u32 = 20;

/// What was read, all from one state.
#[derive(Clone, Debug)]
pub struct ReadReply {
    /// That state's applied index, revision and epoch.
    pub head: Head,
    /// What the replica was in its group.
    pub role: Role,
    /// What the first so many keys held, in the order asked.
    pub records: Vec<Option<Record>>,
}

struct Waiting {
    deadline: Instant,
    answer: oneshot::Sender<Result<(), Rejection>>,
}

/// The reads of one replica. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reads {
    group: Group<KvMachine>,
    state: Arc<dyn State>,
    queue: mpsc::Sender<Waiting>,
    _rounds: Arc<AbortOnDropHandle<()>>,
}

impl Reads {
    pub(crate) fn new(group: Group<KvMachine>, state: Arc<dyn State>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUED_MAX);
        let rounds = tokio::spawn(serve_rounds(group.clone(), waiting));
        Reads { group, state, queue, _rounds: Arc::new(AbortOnDropHandle::new(rounds)) }
    }

    /// Waits until whatever this replica applied answers a read of the level that began before.
    pub(crate) async fn may_answer(&self, level: ReadLevel, within: Duration) -> Result<(), Rejection> {
        match level {
            ReadLevel::Strong if Bug::ReadAnywhere.is_on() => Ok(()),
            ReadLevel::Strong if Bug::ReadUnconfirmed.is_on() => self.group.check_leads(),
            ReadLevel::Strong => self.confirmed(within).await,
            ReadLevel::Eventual if self.group.serves_eventual() => Ok(()),
            ReadLevel::Eventual => {
                Err(Rejection::Unavailable { reason: "the replica is still catching up".to_owned() })
            }
        }
    }

    /// Waits until a quorum has confirmed, after this call began, that this replica leads, and everything committed until then
    /// is applied here.
    async fn confirmed(&self, within: Duration) -> Result<(), Rejection> {
        let deadline = Instant::now() + within;
        self.group.check_leads_by(Instant::now() + within.min(DECISION_MAX)).await?;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { deadline, answer };
        if self.queue.try_send(waiting).is_err() {
            return Err(Rejection::Overloaded { retry_after_ms: RETRY_AFTER_MS });
        }
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_gone)) => Err(Rejection::Unavailable { reason: "the replica stopped".to_owned() }),
            Err(_late) => Err(Rejection::Unavailable { reason: format!("no quorum within {} ms", within.as_millis()) }),
        }
    }

    /// Reads from one view. A point read of warm data takes microseconds, less than moving it to another thread would.
    pub(crate) fn read(&self, keys: &[Key], bytes_max: usize) -> Result<ReadReply, Rejection> {
        let mut found = None;
        let head_before = Bug::HeadBeforeRead.is_on().then(|| self.group.head());
        self.state
            .view(&mut |view| {
                found = Some(kv::read(view, self.group.replica(), keys, bytes_max)?);
                Ok(())
            })
            .map_err(|error| Rejection::Unavailable { reason: error.to_string() })?;
        let (head, records) = found.expect("the view was read, or the error was returned");
        let head = head_before.unwrap_or(head);
        Ok(ReadReply { head, role: self.group.role(), records })
    }
}

async fn serve_rounds(group: Group<KvMachine>, mut queue: mpsc::Receiver<Waiting>) {
    let sizes = metrics::histogram!("quorate_read_round_reads");
    let mut linger = Linger::default();
    let mut round = Vec::with_capacity(ROUND_READS_MAX);
    while queue.recv_many(&mut round, ROUND_READS_MAX).await > 0 {
        linger.wait(&queue).await;
        while round.len() < ROUND_READS_MAX
            && let Ok(read) = queue.try_recv()
        {
            round.push(read);
        }
        let now = Instant::now();
        round.retain(|read| read.deadline > now && !read.answer.is_closed());
        let Some(patience) = round.iter().map(|read| read.deadline - now).max() else { continue };
        sizes.record(round.len() as f64);
        let confirmed = group.confirm(patience.min(ROUND_MAX)).await;
        linger = Linger::after(round.len(), now.elapsed());
        for waiting in round.drain(..) {
            // Whoever has gone has reported a time-out.
            let _ = waiting.answer.send(confirmed.clone().map(|_| ()));
        }
    }
}
