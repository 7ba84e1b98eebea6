//! A shard's replica, as the shard's clients use it: batches of commands, read barriers, reads.
//!
//! Commands that arrive while an entry is in flight become the next entry. A round of a group costs
//! the same however many commands it carries, so full rounds are the source of throughput. A lone
//! command never waits; after an entry that carried commands of several clients the next one waits
//! briefly for the clients just answered (`batch_delay`).

use std::sync::Arc;
use std::time::Duration;

use quorate_machine::kv;
use quorate_machine::state::State;
use quorate_testpoints::Bug;
use quorate_types::clock::Clock;
use quorate_types::state::Head;
use quorate_types::{Command, Key, ReadLevel, Record, Rejection, Role};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::batch::{Batch, Queued, Submission, Written};
use crate::batch_delay::BatchDelay;
use crate::read_rounds::{RETRY_AFTER_MS, ReadRounds};
use crate::replica::Replica;
use crate::soft_state::LEADER_WAIT_MAX;

/// Submissions that may wait for the entry in flight; one more is refused as overload.
const QUEUED_MAX: usize = 1024;
/// How long an entry in flight holds up the next one, which is then sent beside it.
const IN_FLIGHT_MAX: Duration = Duration::from_secs(5);

/// Records read from one state.
#[derive(Clone, Debug)]
pub struct ReadReply {
    /// That state's applied index, revision and epoch.
    pub head: Head,
    /// The replica's role in its group.
    pub role: Role,
    /// The records of the first keys, in the order of the keys; none for an absent key.
    pub records: Vec<Option<Record>>,
}

/// A replica of a shard. Cheap to clone; its tasks end with the last clone.
#[derive(Clone)]
pub struct Shard {
    replica: Arc<Replica>,
    state: Arc<dyn State>,
    submissions: mpsc::Sender<Submission>,
    queued: Queued,
    read_rounds: ReadRounds,
    _proposer: Arc<AbortOnDropHandle<()>>,
}

impl Shard {
    /// Starts to serve a shard from its replica.
    pub(crate) fn new(replica: Arc<Replica>, state: Arc<dyn State>, clock: Arc<dyn Clock>) -> Self {
        let (submissions, queue) = mpsc::channel(QUEUED_MAX);
        let proposer = tokio::spawn(propose_batches(replica.clone(), clock, queue));
        Shard {
            read_rounds: ReadRounds::new(replica.clone()),
            replica,
            state,
            submissions,
            queued: Queued::default(),
            _proposer: Arc::new(AbortOnDropHandle::new(proposer)),
        }
    }

    /// The replica.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Proposes commands, all in one entry, and waits until they are applied here, at most
    /// `within`. See [`Replica::propose`] for the meaning of a rejection.
    pub async fn write(&self, commands: Vec<Command>, within: Duration) -> Result<Written, Rejection> {
        let now = Instant::now();
        let (deadline, leader_deadline) = (now + within, now + within.min(LEADER_WAIT_MAX));
        // Before the queue: a client of a deposed leader must not wait for the entry in flight.
        self.replica.until_leadership_is_decided(leader_deadline).await?;
        let bytes = commands.iter().map(Command::size_bytes).sum();
        let overloaded = || Rejection::Overloaded { retry_after_ms: RETRY_AFTER_MS };
        let room = self.queued.reserve(bytes).ok_or_else(overloaded)?;
        let (submission, pending) = Submission::new(commands, deadline, leader_deadline, room);
        self.submissions.try_send(submission).map_err(|_full| overloaded())?;
        pending.result(deadline).await
    }

    /// Waits, at most `within`, until [`read`](Self::read) is as fresh as its level promises.
    /// `Strong`: a quorum confirmed, after this call began, that this replica leads, and every
    /// entry committed by then is applied here. `Eventual`: the replica has caught up once since it
    /// started.
    pub async fn read_barrier(&self, level: ReadLevel, within: Duration) -> Result<(), Rejection> {
        if let Some(skipped) = self.seeded_defect(level) {
            return skipped;
        }
        match level {
            ReadLevel::Strong => self.read_rounds.join(within).await,
            ReadLevel::Eventual if self.replica.serves_eventual() => Ok(()),
            ReadLevel::Eventual => {
                Err(Rejection::Unavailable { reason: "the replica is still catching up".to_owned() })
            }
        }
    }

    /// A barrier of a test build that has one of its defects switched on.
    fn seeded_defect(&self, level: ReadLevel) -> Option<Result<(), Rejection>> {
        match level {
            ReadLevel::Strong if Bug::ReadAnywhere.is_on() => Some(Ok(())),
            ReadLevel::Strong if Bug::ReadUnconfirmed.is_on() && self.replica.is_leader() => Some(Ok(())),
            ReadLevel::Strong if Bug::ReadUnconfirmed.is_on() => {
                Some(Err(Rejection::NotLeader { leader: self.replica.leader() }))
            }
            _ => None,
        }
    }

    /// Reads keys from the replica's state as it is now, all from one view. Stops after the key
    /// whose value brings the total to `bytes_max` bytes; the first key is always read. A point
    /// read of warm data takes microseconds, less than a switch to another thread.
    pub fn read(&self, keys: &[Key], bytes_max: usize) -> Result<ReadReply, Rejection> {
        let mut found = None;
        let head_before = Bug::HeadBeforeRead.is_on().then(|| self.replica.head());
        self.state
            .view(&mut |view| {
                found = Some(kv::read(view, self.replica.id(), keys, bytes_max)?);
                Ok(())
            })
            .map_err(|error| Rejection::Unavailable { reason: error.to_string() })?;
        let (head, records) = found.expect("the view called back, or the error was returned");
        assert!(records.len() <= keys.len(), "there is at most one record per key");
        let head = head_before.unwrap_or(head);
        Ok(ReadReply { head, role: self.replica.role(), records })
    }
}

/// Proposes one entry at a time, each made of the submissions queued by then.
async fn propose_batches(replica: Arc<Replica>, clock: Arc<dyn Clock>, mut queue: mpsc::Receiver<Submission>) {
    let sizes = metrics::histogram!("quorate_proposal_commands");
    let mut delay = BatchDelay::default();
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(submission) => submission,
            None => match queue.recv().await {
                Some(submission) => submission,
                None => return,
            },
        };
        delay.wait(&queue).await;
        let leader_deadline = first.leader_deadline;
        let mut batch = Batch::starting_with(first);
        let mut began = Instant::now();
        let make_entry = || {
            began = Instant::now();
            batch.fill(&mut queue);
            if batch.commands() > 0 {
                sizes.record(batch.commands() as f64);
            }
            batch.entry(clock.now_ms())
        };
        let applied = replica.propose_with(make_entry, IN_FLIGHT_MAX, leader_deadline).await;
        delay = BatchDelay::after(batch.clients(), began.elapsed());
        match applied {
            Ok(Some(applied)) => batch.deliver(applied),
            Ok(None) => {}
            Err(rejection) => batch.reject(rejection),
        }
        next = batch.into_next();
    }
}
