//! Seeded defects, which tests switch on to show that they detect them. Only in builds with the
//! feature `bugs`.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

/// A defect that `QUORATE_BUG` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Appends are answered before they are synced.
    AckBeforeSync,
    /// Votes are answered before they are synced.
    VoteNotSynced,
    /// A leader answers `strong` reads without asking a quorum.
    ReadUnconfirmed,
    /// Every replica answers `strong` reads.
    ReadAnywhere,
    /// The head of a read is read before its records, from another state.
    HeadBeforeRead,
    /// The applied index is written first, and the data a moment later.
    AppliedBeforeData,
    /// A snapshot's data is newer than its header.
    SnapshotOlderThanData,
    /// Snapshots carry no session table.
    SessionsNotInSnapshot,
    /// Received snapshots are installed without verification.
    SnapshotUnverified,
    /// Retried writes are applied again.
    SessionTableOff,
    /// Conditions always hold.
    ConditionIgnored,
    /// The log is purged without a flush of the state.
    PurgePastFlush,
    /// A node that lost its databases accepts empty ones as its own.
    WipedKeepsIdentity,
    /// The process speaks only the next release's wire version.
    NextWireVersion,
    /// The router retries a write of unknown outcome with a new stamp, so that no session
    /// recognises the retry.
    RetryWithNewStamp,
    /// The router reports a write that may have been applied as one that certainly was not.
    UnknownReportedAsFailed,
    /// The router gives a write the stamp of another outstanding write of its session.
    StampUsedTwice,
    /// The agent destroys a replica as soon as a move away from it starts, before its successor
    /// votes.
    DestroyBeforeSuccessorVotes,
    /// The reconciler finishes a move when it orders the change of voters, before the change is
    /// committed.
    FinishMoveBeforeCommit,
    /// The agent starts a group again with a replica that joins it, as its only member.
    JoiningReplicaStartsGroup,
    /// A replica that lost log entries is marked as doubtful, and takes part as before.
    DoubtfulTakesPart,
    /// The leader of the topology group lets an operator give up a node as dead although the others
    /// receive its pings.
    RemoveDeadIgnoresPings,
}

impl Bug {
    /// All defects.
    pub const ALL: [Bug; 22] = [
        Bug::AckBeforeSync,
        Bug::VoteNotSynced,
        Bug::ReadUnconfirmed,
        Bug::ReadAnywhere,
        Bug::HeadBeforeRead,
        Bug::AppliedBeforeData,
        Bug::SnapshotOlderThanData,
        Bug::SessionsNotInSnapshot,
        Bug::SnapshotUnverified,
        Bug::SessionTableOff,
        Bug::ConditionIgnored,
        Bug::PurgePastFlush,
        Bug::WipedKeepsIdentity,
        Bug::NextWireVersion,
        Bug::RetryWithNewStamp,
        Bug::UnknownReportedAsFailed,
        Bug::StampUsedTwice,
        Bug::DestroyBeforeSuccessorVotes,
        Bug::FinishMoveBeforeCommit,
        Bug::JoiningReplicaStartsGroup,
        Bug::DoubtfulTakesPart,
        Bug::RemoveDeadIgnoresPings,
    ];

    /// The name in `QUORATE_BUG`.
    pub fn name(self) -> &'static str {
        match self {
            Bug::AckBeforeSync => "ack-before-sync",
            Bug::VoteNotSynced => "vote-not-synced",
            Bug::ReadUnconfirmed => "read-unconfirmed",
            Bug::ReadAnywhere => "read-anywhere",
            Bug::HeadBeforeRead => "head-before-read",
            Bug::AppliedBeforeData => "applied-before-data",
            Bug::SnapshotOlderThanData => "snapshot-older-than-data",
            Bug::SessionsNotInSnapshot => "sessions-not-in-snapshot",
            Bug::SnapshotUnverified => "snapshot-unverified",
            Bug::SessionTableOff => "session-table-off",
            Bug::ConditionIgnored => "condition-ignored",
            Bug::PurgePastFlush => "purge-past-flush",
            Bug::WipedKeepsIdentity => "wiped-keeps-identity",
            Bug::NextWireVersion => "next-wire-version",
            Bug::RetryWithNewStamp => "retry-with-new-stamp",
            Bug::UnknownReportedAsFailed => "unknown-reported-as-failed",
            Bug::StampUsedTwice => "stamp-used-twice",
            Bug::DestroyBeforeSuccessorVotes => "destroy-before-successor-votes",
            Bug::FinishMoveBeforeCommit => "finish-move-before-commit",
            Bug::JoiningReplicaStartsGroup => "joining-replica-starts-group",
            Bug::DoubtfulTakesPart => "doubtful-takes-part",
            Bug::RemoveDeadIgnoresPings => "remove-dead-ignores-pings",
        }
    }

    /// Whether this process or this thread has the defect. Never in a build without the feature
    /// `bugs`.
    pub fn is_on(self) -> bool {
        crate::ENABLED && (*ON == Some(self) || ON_THREAD.get() == Some(self))
    }

    /// Switches the defect on for the current thread until the thread ends. A simulation runs each
    /// seed on a thread of its own.
    ///
    /// # Panics
    ///
    /// In a build without the feature `bugs`, where the defect would have no effect.
    pub fn switch_on_for_thread(self) {
        let is_built = crate::ENABLED;
        assert!(is_built, "defect '{}' needs a build with the feature 'bugs'", self.name());
        ON_THREAD.set(Some(self));
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no seeded defect has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownBug(String);

impl fmt::Display for UnknownBug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no seeded defect is called '{}'; use one of {}", self.0, Bug::ALL.map(Bug::name).join(", "))
    }
}

impl std::error::Error for UnknownBug {}

impl FromStr for Bug {
    type Err = UnknownBug;

    fn from_str(name: &str) -> Result<Self, UnknownBug> {
        let known = Bug::ALL.into_iter().find(|bug| bug.name() == name);
        known.ok_or_else(|| UnknownBug(name.to_owned()))
    }
}

thread_local! {
    static ON_THREAD: Cell<Option<Bug>> = const { Cell::new(None) };
}

static ON: LazyLock<Option<Bug>> = LazyLock::new(|| {
    let wanted = std::env::var("QUORATE_BUG").ok()?;
    Some(wanted.parse().unwrap_or_else(|unknown| panic!("QUORATE_BUG: {unknown}")))
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_every_defect_is_off_by_default() {
        let names: std::collections::BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        assert!(std::env::var_os("QUORATE_BUG").is_some() || Bug::ALL.iter().all(|bug| !bug.is_on()));
    }
}
