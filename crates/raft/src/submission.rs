//! Commands of one client on their way into an entry: claimed once, counted while they wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use quorate_types::state::Head;
use quorate_types::{Command, Outcome, Rejection};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Bytes of commands that may wait for the entry in flight.
const QUEUED_BYTES_MAX: usize = 32 << 20;

/// The result of commands that were applied together.
#[derive(Clone, Debug)]
pub struct Written {
    /// One outcome per command, in order.
    pub outcomes: Vec<Outcome>,
    /// The head of the state after the batch that held the commands: `revision` and `applied` are at least theirs.
    pub head: Head,
}

/// The sender of a submission's result.
pub(crate) type Answer = oneshot::Sender<Result<Written, Rejection>>;

/// Commands that one client wants applied together.
pub(crate) struct Submission {
    pub(crate) commands: Vec<Command>,
    pub(crate) bytes: usize,
    pub(crate) deadline: Instant,
    /// How long the submission waits for an undecided leadership.
    pub(crate) leader_deadline: Instant,
    pub(crate) claim: Claim,
    pub(crate) answer: Answer,
    pub(crate) _room: Room,
}

/// Decides once between the proposer, which takes commands into an entry, and the client, which gives them up. Only one of them
/// wins, so a client that wins knows for certain that nothing was proposed.
#[derive(Clone, Default)]
pub(crate) struct Claim(Arc<AtomicU8>);

const OPEN: u8 = 0;
const TAKEN: u8 = 1;
const ABANDONED: u8 = 2;

impl Claim {
    /// Claims the commands for an entry; false if the client has given them up.
    pub(crate) fn take(&self) -> bool {
        self.0.compare_exchange(OPEN, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Gives the commands up; false if they are in an entry already and may be applied.
    pub(crate) fn abandon(&self) -> bool {
        self.0.compare_exchange(OPEN, ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Bytes of commands that wait for their entry. Clones share the count.
#[derive(Clone, Default)]
pub(crate) struct Queued(Arc<AtomicUsize>);

impl Queued {
    /// Reserves room, released when it is dropped; none if too many bytes wait. Into an empty queue anything fits.
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
