//! A shard's group as its clients use it. What they propose while an entry is in flight becomes the next entry: a round of a
//! group costs the same however many commands ride in it, so this is where throughput comes from. A lone command never waits;
//! where an entry carried company, the next one waits a moment for the clients that it has just answered (`linger`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use quorate_machine::KvMachine;
use quorate_types::clock::Clock;
use quorate_types::{Command, Key, Outcome, Proposal, ReadLevel, Rejection};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::group::{Applied, Group};
use crate::groups::Groups;
use crate::leadership::DECISION_MAX;
use crate::linger::Linger;
use crate::reads::{ReadReply, Reads};

/// Submissions that may wait for the entry in flight. One more is refused as overload.
const QUEUED_MAX: usize = 1024;
/// Bytes of commands that may wait for it.
const QUEUED_BYTES_MAX: usize = 32 << 20;
/// Commands and bytes of one entry.
const ENTRY_COMMANDS_MAX: usize = 4096;
const ENTRY_BYTES_MAX: usize = 4 << 20;
/// How long the queue waits for an entry in flight before it sends the next one beside it.
const IN_FLIGHT_MAX: Duration = Duration::from_secs(5);
/// When a client that was refused for overload may come again, in milliseconds.
const RETRY_AFTER_MS: u32 = 20;

/// A shard's group: batches of commands and of reads. Cheap to clone.
#[derive(Clone)]
pub struct KvGroup {
    group: Group<KvMachine>,
    proposals: mpsc::Sender<Submission>,
    queued: Queued,
    reads: Reads,
    _batcher: Arc<AbortOnDropHandle<()>>,
}

impl KvGroup {
    /// Starts the batching of a shard's group; it ends when the last clone is dropped.
    pub fn new(groups: &Groups, group: Group<KvMachine>) -> Self {
        let (proposals, submissions) = mpsc::channel(QUEUED_MAX);
        let clock = groups.shared().clock.clone();
        let batcher = tokio::spawn(propose_batches(group.clone(), clock, submissions));
        let reads = Reads::new(group.clone(), groups.shared().state.clone());
        KvGroup {
            group,
            proposals,
            queued: Queued::default(),
            reads,
            _batcher: Arc::new(AbortOnDropHandle::new(batcher)),
        }
    }

    /// The group.
    pub fn group(&self) -> &Group<KvMachine> {
        &self.group
    }

    /// Proposes commands and waits, at most `within`, until they are applied here; one outcome a command, in order. They are
    /// all in one entry. See [`Group::propose`] for what a rejection promises.
    pub async fn write(&self, commands: Vec<Command>, within: Duration) -> Result<Applied<Vec<Outcome>>, Rejection> {
        let now = Instant::now();
        let (deadline, patience) = (now + within, now + within.min(DECISION_MAX));
        self.group.check_leads_by(patience).await?;
        let (answer, answered) = oneshot::channel();
        let claim = Claim::default();
        let bytes = commands.iter().map(Command::size_bytes).sum();
        let overloaded = Rejection::Overloaded { retry_after_ms: RETRY_AFTER_MS };
        let room = self.queued.reserve(bytes).ok_or_else(|| overloaded.clone())?;
        let submission = Submission { commands, bytes, deadline, patience, claim: claim.clone(), answer, _room: room };
        if self.proposals.try_send(submission).is_err() {
            return Err(overloaded);
        }
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) if claim.abandon() => Err(Rejection::Unavailable {
                reason: "not proposed in time: the shard is busy or has no quorum".to_owned(),
            }),
            Ok(Err(_gone)) => Err(Rejection::Unknown { reason: "the replica stopped".to_owned() }),
            Err(_late) => Err(Rejection::Unknown { reason: format!("not applied within {} ms", within.as_millis()) }),
        }
    }

    /// Waits, at most `within`, until [`read`](Self::read) answers this call as its level promises. `Strong`: a quorum has
    /// confirmed, after this call began, that this replica leads, and it has applied what was committed by then. `Eventual`: it
    /// has caught up once since it started.
    pub async fn may_answer(&self, level: ReadLevel, within: Duration) -> Result<(), Rejection> {
        self.reads.may_answer(level, within).await
    }

    /// Reads keys from this replica's state as it is. Gives the records of the first keys only where their values have
    /// `bytes_max` bytes together; at least one.
    pub fn read(&self, keys: &[Key], bytes_max: usize) -> Result<ReadReply, Rejection> {
        self.reads.read(keys, bytes_max)
    }
}

/// Decides, once, between the proposer that takes commands into an entry and the client that gives them up: only one of them
/// wins, so a client that wins knows for certain that nothing was proposed.
#[derive(Clone, Default)]
struct Claim(Arc<AtomicU8>);

const OPEN: u8 = 0;
const TAKEN: u8 = 1;
const ABANDONED: u8 = 2;

impl Claim {
    fn take(&self) -> bool {
        self.0.compare_exchange(OPEN, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn abandon(&self) -> bool {
        self.0.compare_exchange(OPEN, ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Counts the bytes that wait for their entry.
#[derive(Clone, Default)]
struct Queued(Arc<AtomicUsize>);

impl Queued {
    /// Room for so many bytes, given back when it is dropped; none if too much waits. Alone, anything fits.
    fn reserve(&self, bytes: usize) -> Option<Room> {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { queued: self.clone(), bytes };
        (before == 0 || before + bytes <= QUEUED_BYTES_MAX).then_some(room)
    }
}

struct Room {
    queued: Queued,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.queued.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Submission {
    commands: Vec<Command>,
    bytes: usize,
    deadline: Instant,
    /// Until when it waits for a decision who leads.
    patience: Instant,
    claim: Claim,
    answer: oneshot::Sender<Result<Applied<Vec<Outcome>>, Rejection>>,
    _room: Room,
}

/// Who waits for how many outcomes of an entry.
struct Waiter {
    outcomes: usize,
    answer: oneshot::Sender<Result<Applied<Vec<Outcome>>, Rejection>>,
}

async fn propose_batches(group: Group<KvMachine>, clock: Arc<dyn Clock>, mut submissions: mpsc::Receiver<Submission>) {
    let sizes = metrics::histogram!("quorate_proposal_commands");
    let mut linger = Linger::default();
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(submission) => submission,
            None => match submissions.recv().await {
                Some(submission) => submission,
                None => return,
            },
        };
        linger.wait(&submissions).await;
        // What comes of it, the proposal finds out.
        let patience = first.patience;
        let _ = group.check_leads_by(patience).await;
        let mut batch = Batch::default();
        let mut candidate = Some(first);
        while let Some(submission) = candidate {
            if !batch.fits(&submission) {
                next = Some(submission);
                break;
            }
            batch.add(submission);
            candidate = submissions.try_recv().ok();
        }
        if batch.commands.is_empty() {
            continue;
        }
        let Batch { commands, waiters, .. } = batch;
        let proposal = Proposal { time_ms: clock.now_ms(), commands };
        sizes.record(proposal.commands.len() as f64);
        let began = Instant::now();
        let result = group.propose_with(proposal.encode().into(), IN_FLIGHT_MAX, patience).await;
        linger = Linger::after(waiters.len(), began.elapsed());
        answer(waiters, result);
    }
}

#[derive(Default)]
struct Batch {
    commands: Vec<Command>,
    bytes: usize,
    waiters: Vec<Waiter>,
}

impl Batch {
    fn fits(&self, submission: &Submission) -> bool {
        self.commands.is_empty()
            || (self.commands.len() + submission.commands.len() <= ENTRY_COMMANDS_MAX
                && self.bytes + submission.bytes <= ENTRY_BYTES_MAX)
    }

    fn add(&mut self, submission: Submission) {
        if submission.deadline <= Instant::now() || !submission.claim.take() {
            return;
        }
        self.bytes += submission.bytes;
        self.waiters.push(Waiter { outcomes: submission.commands.len(), answer: submission.answer });
        self.commands.extend(submission.commands);
    }
}

/// Gives everybody their part of an entry's outcomes. Whoever has gone meanwhile has reported the outcome as unknown.
fn answer(waiters: Vec<Waiter>, result: Result<Applied<Vec<Outcome>>, Rejection>) {
    match result {
        Ok(applied) => {
            let mut outcomes = applied.reply.into_iter();
            for waiter in waiters {
                let reply: Vec<Outcome> = outcomes.by_ref().take(waiter.outcomes).collect();
                assert_eq!(reply.len(), waiter.outcomes, "the machine answers every command of an entry");
                let _ = waiter.answer.send(Ok(Applied { reply, head: applied.head }));
            }
        }
        Err(rejection) => {
            for waiter in waiters {
                let _ = waiter.answer.send(Err(rejection.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_of_proposer_and_client_wins_a_claim() {
        let claim = Claim::default();
        assert!(claim.take());
        assert!(!claim.abandon(), "what was taken may be applied");
        let claim = Claim::default();
        assert!(claim.abandon());
        assert!(!claim.take(), "what was given up is not proposed");
    }

    #[test]
    fn the_queue_is_bounded_in_bytes_and_gives_room_back() {
        let queued = Queued::default();
        let large = queued.reserve(2 * QUEUED_BYTES_MAX).expect("alone, anything fits");
        assert!(queued.reserve(1).is_none());
        drop(large);
        let _half = queued.reserve(QUEUED_BYTES_MAX / 2).expect("there is room again");
        assert!(queued.reserve(QUEUED_BYTES_MAX).is_none());
        assert!(queued.reserve(QUEUED_BYTES_MAX / 2).is_some());
    }
}
