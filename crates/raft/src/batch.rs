//! Commands of clients on their way into an entry: counted while they wait, claimed once, answered
//! together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use bytes::Bytes;
use quorate_types::state::Head;
use quorate_types::{Command, Outcome, Proposal, Rejection};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::replica::propose::Applied;

/// Bytes of commands that may wait for the entry in flight.
const QUEUED_BYTES_MAX: usize = 32 << 20;
/// Bounds of one entry.
const ENTRY_COMMANDS_MAX: usize = 4096;
const ENTRY_BYTES_MAX: usize = 4 << 20;

/// The result of commands that were applied together.
#[derive(Clone, Debug)]
pub struct Written {
    /// One outcome per command, in order.
    pub outcomes: Vec<Outcome>,
    /// The head of the state after the batch that held the commands: `revision` and `applied` are
    /// at least theirs.
    pub head: Head,
}

/// The sender of a submission's result.
type Answer = oneshot::Sender<Result<Written, Rejection>>;

/// Commands that one client wants applied together.
pub(crate) struct Submission {
    commands: Vec<Command>,
    deadline: Instant,
    /// How long the submission waits for an undecided leadership.
    pub(crate) leader_deadline: Instant,
    claim: Claim,
    answer: Answer,
    room: Room,
}

impl Submission {
    pub(crate) fn new(
        commands: Vec<Command>,
        deadline: Instant,
        leader_deadline: Instant,
        room: Room,
    ) -> (Self, Pending) {
        let (answer, answered) = oneshot::channel();
        let claim = Claim::default();
        let pending = Pending { submitted: Instant::now(), claim: claim.clone(), answered };
        (Submission { commands, deadline, leader_deadline, claim, answer, room }, pending)
    }
}

/// A client's side of its submission.
pub(crate) struct Pending {
    submitted: Instant,
    claim: Claim,
    answered: oneshot::Receiver<Result<Written, Rejection>>,
}

impl Pending {
    /// Waits for the result until the deadline. Gives the commands up if they are in no entry by
    /// then.
    pub(crate) async fn result(self, deadline: Instant) -> Result<Written, Rejection> {
        let outcome = tokio::time::timeout_at(deadline, self.answered).await;
        if let Ok(Ok(result)) = outcome {
            return result;
        }
        if self.claim.abandon() {
            let reason = "not proposed in time: the shard is busy or has no quorum".to_owned();
            return Err(Rejection::Unavailable { reason });
        }
        let reason = match outcome {
            Err(_late) => format!("not applied within {} ms", (deadline - self.submitted).as_millis()),
            Ok(_stopped) => "the replica stopped".to_owned(),
        };
        Err(Rejection::Unknown { reason })
    }
}

/// Decides once between the proposer, which takes commands into an entry, and the client, which
/// gives them up. Only one of them wins, so a client that wins knows for certain that nothing was
/// proposed.
#[derive(Clone, Default)]
struct Claim(Arc<AtomicU8>);

const OPEN: u8 = 0;
const TAKEN: u8 = 1;
const ABANDONED: u8 = 2;

impl Claim {
    /// Claims the commands for an entry; false if the client has given them up.
    fn take(&self) -> bool {
        self.0.compare_exchange(OPEN, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Gives the commands up; false if they are in an entry already and may be applied.
    fn abandon(&self) -> bool {
        self.0.compare_exchange(OPEN, ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Bytes of commands that wait for their entry. Clones share the count.
#[derive(Clone, Default)]
pub(crate) struct Queued(Arc<AtomicUsize>);

impl Queued {
    /// Reserves room, released when it is dropped; none if too many bytes wait. Into an empty queue
    /// anything fits.
    pub(crate) fn reserve(&self, bytes: usize) -> Option<Room> {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { queued: self.clone(), bytes };
        (before == 0 || before + bytes <= QUEUED_BYTES_MAX).then_some(room)
    }
}

/// Room reserved in the queue.
pub(crate) struct Room {
    queued: Queued,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        let before = self.queued.0.fetch_sub(self.bytes, Ordering::Relaxed);
        assert!(before >= self.bytes, "room is released once");
    }
}

/// Submissions that share an entry.
///
/// # Invariants
/// * Its commands are claimed: their clients can no longer give them up.
/// * An entry has at most [`ENTRY_COMMANDS_MAX`] commands and [`ENTRY_BYTES_MAX`] bytes, or is one
///   submission alone.
#[derive(Default)]
pub(crate) struct Batch {
    commands: Vec<Command>,
    bytes: usize,
    waiters: Vec<Waiter>,
    /// Not claimed yet: the first submission, or the one that did not fit.
    next: Option<Submission>,
}

/// A client that waits for the outcomes of its commands.
struct Waiter {
    commands: usize,
    answer: Answer,
}

impl Batch {
    /// No commands yet; `first` is the first candidate.
    pub(crate) fn starting_with(first: Submission) -> Self {
        Batch { next: Some(first), ..Batch::default() }
    }

    /// The number of commands claimed.
    pub(crate) fn commands(&self) -> usize {
        self.commands.len()
    }

    /// The number of clients that wait for this entry.
    pub(crate) fn clients(&self) -> usize {
        self.waiters.len()
    }

    /// The submission that begins the next batch.
    pub(crate) fn into_next(self) -> Option<Submission> {
        self.next
    }

    /// Claims queued submissions in their order, until one does not fit or the queue is empty.
    /// Skips those whose clients have given up.
    pub(crate) fn fill(&mut self, queue: &mut mpsc::Receiver<Submission>) {
        while let Some(submission) = self.next.take().or_else(|| queue.try_recv().ok()) {
            if !self.fits(&submission) {
                self.next = Some(submission);
                return;
            }
            if submission.deadline > Instant::now() && submission.claim.take() {
                self.bytes += submission.room.bytes;
                self.waiters.push(Waiter { commands: submission.commands.len(), answer: submission.answer });
                self.commands.extend(submission.commands);
            }
        }
    }

    fn fits(&self, submission: &Submission) -> bool {
        self.commands.is_empty()
            || (self.commands.len() + submission.commands.len() <= ENTRY_COMMANDS_MAX
                && self.bytes + submission.room.bytes <= ENTRY_BYTES_MAX)
    }

    /// The encoded entry; none without commands.
    pub(crate) fn entry(&mut self, time_ms: u64) -> Option<Bytes> {
        let awaited: usize = self.waiters.iter().map(|waiter| waiter.commands).sum();
        assert_eq!(awaited, self.commands.len(), "a client waits for every command of an entry");
        let commands = std::mem::take(&mut self.commands);
        (!commands.is_empty()).then(|| Proposal { time_ms, commands }.encode().into())
    }

    /// Sends every client its outcomes. A client that has given up has reported its outcome as
    /// unknown.
    pub(crate) fn deliver(&mut self, applied: Applied) {
        let Applied { reply, head } = applied;
        let mut outcomes = reply.into_shard().into_iter();
        for waiter in self.waiters.drain(..) {
            let own: Vec<_> = outcomes.by_ref().take(waiter.commands).collect();
            assert_eq!(own.len(), waiter.commands, "the machine answers every command of an entry");
            let _ = waiter.answer.send(Ok(Written { outcomes: own, head }));
        }
        assert_eq!(outcomes.len(), 0, "the machine answers every command of an entry once");
    }

    /// Sends the rejection to every client of the entry; if none was made, to the first submission.
    pub(crate) fn reject(&mut self, rejection: Rejection) {
        if self.waiters.is_empty()
            && let Some(first) = self.next.take()
        {
            let _ = first.answer.send(Err(rejection));
            return;
        }
        for waiter in self.waiters.drain(..) {
            let _ = waiter.answer.send(Err(rejection.clone()));
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
        assert!(!claim.abandon(), "commands in an entry may be applied");
        let claim = Claim::default();
        assert!(claim.abandon());
        assert!(!claim.take(), "abandoned commands are not proposed");
    }

    #[test]
    fn queue_is_bounded_in_bytes_and_room_is_released() {
        let queued = Queued::default();
        let large = queued.reserve(2 * QUEUED_BYTES_MAX).expect("into an empty queue anything fits");
        assert!(queued.reserve(1).is_none());
        drop(large);
        let _half = queued.reserve(QUEUED_BYTES_MAX / 2).expect("there is room again");
        assert!(queued.reserve(QUEUED_BYTES_MAX).is_none());
        assert!(queued.reserve(QUEUED_BYTES_MAX / 2).is_some());
    }
}
