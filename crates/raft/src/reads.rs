//! Reads of a shard. Many strong reads share one confirmation by a quorum, but a read joins only a round that starts after the
//! read arrived: what arrives while a round is under way waits for the next one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_storage::machine::{KvMachine, kv};
use quorate_storage::state::State;
use quorate_types::state::Head;
use quorate_types::{Key, Record, Rejection, Role};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::group::Group;
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
    /// What each key held, in the order asked.
    pub records: Vec<Option<Record>>,
}

struct Waiting {
    keys: Vec<Key>,
    deadline: Instant,
    answer: oneshot::Sender<Result<ReadReply, Rejection>>,
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
        let rounds = tokio::spawn(serve_rounds(group.clone(), state.clone(), waiting));
        Reads { group, state, queue, _rounds: Arc::new(AbortOnDropHandle::new(rounds)) }
    }

    pub(crate) async fn strong(&self, keys: Vec<Key>, within: Duration) -> Result<ReadReply, Rejection> {
        self.group.check_leads()?;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { keys, deadline: Instant::now() + within, answer };
        if self.queue.try_send(waiting).is_err() {
            return Err(Rejection::Overloaded { retry_after_ms: RETRY_AFTER_MS });
        }
        match tokio::time::timeout(within, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_gone)) => Err(Rejection::Unavailable { reason: "the replica stopped".to_owned() }),
            Err(_late) => Err(Rejection::Unavailable { reason: format!("no quorum within {} ms", within.as_millis()) }),
        }
    }

    pub(crate) fn eventual(&self, keys: &[Key]) -> Result<ReadReply, Rejection> {
        if !self.group.serves_eventual() {
            return Err(Rejection::Unavailable { reason: "the replica is still catching up".to_owned() });
        }
        read(&self.group, &*self.state, keys)
    }
}

/// Reads from one view. A point read of warm data takes microseconds, less than moving it to another thread would.
fn read(group: &Group<KvMachine>, state: &dyn State, keys: &[Key]) -> Result<ReadReply, Rejection> {
    let mut found = None;
    state
        .view(&mut |view| {
            found = Some(kv::read(view, group.replica(), keys)?);
            Ok(())
        })
        .map_err(|error| Rejection::Unavailable { reason: error.to_string() })?;
    let (head, records) = found.expect("the view was read, or the error was returned");
    Ok(ReadReply { head, role: group.role(), records })
}

async fn serve_rounds(group: Group<KvMachine>, state: Arc<dyn State>, mut queue: mpsc::Receiver<Waiting>) {
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
            let result = match &confirmed {
                Ok(_) => read(&group, &*state, &waiting.keys),
                Err(rejection) => Err(rejection.clone()),
            };
            // Whoever has gone has reported a time-out.
            let _ = waiting.answer.send(result);
        }
    }
}
