//! Crash points: named steps at which a test can abort the process. Only in builds with seeded
//! bugs.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest age of a reading of the file: steps of the write path are reached thousands of times
/// a second.
const READING_MAX: Duration = Duration::from_millis(5);

macro_rules! fail_points {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A step at which a test can abort the process.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum FailPoint {
            $($(#[$doc])* $variant,)*
        }

        impl FailPoint {
            /// All steps.
            pub const ALL: &[FailPoint] = &[$(FailPoint::$variant),*];

            /// The name in the file and in the log.
            pub const fn name(self) -> &'static str {
                match self {
                    $(FailPoint::$variant => $name,)*
                }
            }
        }
    };
}

fail_points! {
    /// The reconciler is about to propose the start of a move.
    StartMovePlanned = "start-move-planned",
    /// The start of a move was applied.
    StartMoveDone = "start-move-done",
    /// The reconciler is about to propose the end of a move.
    FinishMovePlanned = "finish-move-planned",
    /// The end of a move was applied.
    FinishMoveDone = "finish-move-done",
    /// The reconciler is about to propose the cancellation of a move.
    CancelMovePlanned = "cancel-move-planned",
    /// The cancellation of a move was applied.
    CancelMoveDone = "cancel-move-done",
    /// The reconciler is about to propose the end of a cancelled move.
    FinishCancelledMovePlanned = "finish-cancelled-move-planned",
    /// The end of a cancelled move was applied.
    FinishCancelledMoveDone = "finish-cancelled-move-done",
    /// The reconciler is about to propose the end of an operation.
    FinishOperationPlanned = "finish-operation-planned",
    /// The end of an operation was applied.
    FinishOperationDone = "finish-operation-done",
    /// The reconciler is about to propose another command.
    CommandPlanned = "command-planned",
    /// Another command was applied.
    CommandDone = "command-done",
    /// The reconciler is about to order a new learner.
    AddLearnerPlanned = "add-learner-planned",
    /// A leader received the order to add a learner.
    AddLearnerReceived = "add-learner-received",
    /// A leader added a learner.
    AddLearnerDone = "add-learner-done",
    /// The reconciler is about to order the removal of a learner.
    RemoveLearnerPlanned = "remove-learner-planned",
    /// A leader received the order to remove a learner.
    RemoveLearnerReceived = "remove-learner-received",
    /// A leader removed a learner.
    RemoveLearnerDone = "remove-learner-done",
    /// The reconciler is about to order new voters.
    ChangeVotersPlanned = "change-voters-planned",
    /// A leader received the order to change the voters.
    ChangeVotersReceived = "change-voters-received",
    /// A leader changed the voters.
    ChangeVotersDone = "change-voters-done",
    /// The reconciler is about to order the end of a joint configuration.
    FinishJointPlanned = "finish-joint-planned",
    /// A leader received the order to end a joint configuration.
    FinishJointReceived = "finish-joint-received",
    /// A leader ended a joint configuration.
    FinishJointDone = "finish-joint-done",
    /// The reconciler is about to order a leader transfer.
    TransferLeaderPlanned = "transfer-leader-planned",
    /// A leader received the order to transfer its leadership.
    TransferLeaderReceived = "transfer-leader-received",
    /// A leader transferred its leadership.
    TransferLeaderDone = "transfer-leader-done",
    /// The reconciler is about to ask whether a replica is absent.
    ConfirmAbsentPlanned = "confirm-absent-planned",
    /// A node received the question whether a replica is absent.
    ConfirmAbsentReceived = "confirm-absent-received",
    /// A node confirmed that a replica is absent.
    ConfirmAbsentDone = "confirm-absent-done",
    /// A node created a replica.
    ReplicaMade = "replica-made",
    /// A node is about to destroy a replica.
    ReplicaLeaves = "replica-leaves",
    /// A node wrote the tombstone of a destroyed replica.
    TombstoneWritten = "tombstone-written",
    /// A leader wrote a snapshot to its disk.
    SnapshotWritten = "snapshot-written",
    /// A follower received a whole snapshot.
    SnapshotStaged = "snapshot-staged",
    /// A follower installed a snapshot.
    SnapshotInstalled = "snapshot-installed",
    /// A replica applied a joint configuration.
    JointChangeApplied = "joint-change-applied",
    /// Entries are about to be written to the log.
    AppendUnwritten = "append-unwritten",
    /// Entries were synced, and are not acknowledged yet.
    AppendWritten = "append-written",
    /// Committed entries are about to be applied.
    EntriesUnapplied = "entries-unapplied",
    /// Committed entries were applied.
    EntriesApplied = "entries-applied",
    /// A vote is about to be written to the log.
    VoteUnwritten = "vote-unwritten",
    /// A vote was synced, and is not acknowledged yet.
    VoteWritten = "vote-written",
    /// A vote is durable, and is about to be sent.
    VoteSaved = "vote-saved",
    /// The state was flushed before a purge.
    StateFlushed = "state-flushed",
    /// A purge is about to be written to the log.
    PurgeUnwritten = "purge-unwritten",
    /// A purge was written to the log.
    PurgeWritten = "purge-written",
}

impl FailPoint {
    /// Whether no test reaches this step reliably: it belongs to a cancellation, to a repair, or to
    /// a step that a move takes only sometimes. A new fail point is put here or gets a test.
    pub fn is_rare(self) -> bool {
        use FailPoint::*;
        matches!(
            self,
            CancelMovePlanned
                | CancelMoveDone
                | FinishCancelledMovePlanned
                | FinishCancelledMoveDone
                | CommandPlanned
                | CommandDone
                | RemoveLearnerPlanned
                | RemoveLearnerReceived
                | RemoveLearnerDone
                | FinishJointPlanned
                | FinishJointReceived
                | FinishJointDone
                | TransferLeaderPlanned
                | ConfirmAbsentPlanned
                | ConfirmAbsentReceived
                | ConfirmAbsentDone
        )
    }

    /// The step with a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|point| point.name() == name)
    }
}

impl std::fmt::Display for FailPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Aborts the process, as SIGKILL would, if the file named by `QUORATE_FAIL_POINTS` has contained
/// `PID NAME` with this process and this step for 5 ms. Does nothing in a build without the
/// feature `bugs`.
#[inline]
pub fn fail_point(point: FailPoint) {
    if cfg!(feature = "bugs") {
        abort_if_armed(point);
    }
}

fn abort_if_armed(point: FailPoint) {
    static FILE: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("QUORATE_FAIL_POINTS").map(PathBuf::from));
    let Some(file) = &*FILE else { return };
    if armed(file) == Some(point) {
        eprintln!("fail point {point}: dies");
        std::process::abort();
    }
}

/// The step of this process that the file arms.
fn armed(file: &Path) -> Option<FailPoint> {
    /// The time of the last reading, and the step that it armed.
    static READING: Mutex<Option<(Instant, Option<FailPoint>)>> = Mutex::new(None);
    let mut reading = READING.lock().unwrap_or_else(PoisonError::into_inner);
    match *reading {
        Some((at, armed)) if at.elapsed() <= READING_MAX => armed,
        _ => {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let name = text.trim().strip_prefix(&format!("{} ", std::process::id()));
            // A half-written file contains no name yet; the next reading does.
            let armed = name.and_then(FailPoint::named);
            *reading = Some((Instant::now(), armed));
            armed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for point in FailPoint::ALL {
            assert_eq!(FailPoint::named(point.name()), Some(*point));
        }
        assert_eq!(FailPoint::named("nowhere"), None);
    }
}
