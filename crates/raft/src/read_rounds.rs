//! Read barriers of a shard, many confirmed by one round of the quorum.
//!
//! A read joins only a round that starts after the read arrived: reads that arrive during a round
//! wait for the next one. Any later state of the replica is new enough for them, so each reads for
//! itself after the barrier, as much as it has room for.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::Rejection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::batch_delay::BatchDelay;
use crate::replica::Replica;
use crate::soft_state::LEADER_WAIT_MAX;

/// Reads that may wait for the next round; one more is refused as overload.
const QUEUED_MAX: usize = 4096;
/// Reads confirmed by one round.
const ROUND_READS_MAX: usize = 1024;
/// The longest round: a leader without a quorum learns of it by then.
const ROUND_MAX: Duration = Duration::from_secs(2);
/// Back-off for a client refused as overload by a full queue of a shard, in milliseconds.
pub(crate) const RETRY_AFTER_MS: u32 = 20;

struct Waiting {
    deadline: Instant,
    answer: oneshot::Sender<Result<(), Rejection>>,
}

/// The read rounds of one replica. Cheap to clone; the rounds end with the last clone.
#[derive(Clone)]
pub(crate) struct ReadRounds {
    replica: Arc<Replica>,
    queue: mpsc::Sender<Waiting>,
    _rounds: Arc<AbortOnDropHandle<()>>,
}

impl ReadRounds {
    pub(crate) fn new(replica: Arc<Replica>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUED_MAX);
        let rounds = tokio::spawn(confirm_rounds(replica.clone(), waiting));
        ReadRounds { replica, queue, _rounds: Arc::new(AbortOnDropHandle::new(rounds)) }
    }

    /// Waits for a round that began after this call, at most `within`: a quorum confirmed that this
    /// replica leads, and every entry committed by then is applied here.
    pub(crate) async fn join(&self, within: Duration) -> Result<(), Rejection> {
        let now = Instant::now();
        let deadline = now + within;
        // Before the queue: a client of a deposed leader must not wait for the round under way.
        self.replica.until_leadership_is_decided(now + within.min(LEADER_WAIT_MAX)).await?;
        let (answer, answered) = oneshot::channel();
        if self.queue.try_send(Waiting { deadline, answer }).is_err() {
            return Err(Rejection::Overloaded { retry_after_ms: RETRY_AFTER_MS });
        }
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_gone)) => Err(Rejection::Unavailable { reason: "the replica stopped".to_owned() }),
            Err(_late) => Err(Rejection::Unavailable { reason: format!("no quorum within {} ms", within.as_millis()) }),
        }
    }
}

async fn confirm_rounds(replica: Arc<Replica>, mut queue: mpsc::Receiver<Waiting>) {
    let sizes = metrics::histogram!("quorate_read_round_reads");
    let mut delay = BatchDelay::default();
    let mut round = Vec::with_capacity(ROUND_READS_MAX);
    while queue.recv_many(&mut round, ROUND_READS_MAX).await > 0 {
        delay.wait(&queue).await;
        while round.len() < ROUND_READS_MAX
            && let Ok(read) = queue.try_recv()
        {
            round.push(read);
        }
        let now = Instant::now();
        round.retain(|read| read.deadline > now && !read.answer.is_closed());
        let Some(deadline) = round.iter().map(|read| read.deadline).max() else { continue };
        sizes.record(round.len() as f64);
        let confirmed = replica.confirm((deadline - now).min(ROUND_MAX)).await;
        delay = BatchDelay::after(round.len(), now.elapsed());
        for waiting in round.drain(..) {
            // A client that has given up has reported a time-out.
            let _ = waiting.answer.send(confirmed.clone().map(|_| ()));
        }
    }
}
