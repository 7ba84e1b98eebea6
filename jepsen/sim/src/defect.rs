//! Defects that can be switched on, to show that the simulation notices them.

use std::fmt;
use std::str::FromStr;

use quorate_testpoints::Bug;

/// A defect. Each breaks one promise of the product in the way in which real systems broke it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// An append counts as durable before it was synced.
    AcknowledgeBeforeSync,
    /// A vote is given before it was synced.
    VoteNotSynced,
    /// A replica that believes it leads answers a strong read without asking a quorum.
    StrongReadWithoutQuorum,
    /// A retried write is applied again, because no session recognises it.
    SessionsOff,
    /// Flushes of the state do nothing, and the log is purged past the durable state.
    PurgePastFlush,
    /// A node that lost its disk comes back under its old identity.
    WipedNodeKeepsIdentity,
    /// The router retries a write of unknown outcome with a new stamp.
    RetryWithNewStamp,
    /// The router reports a write that may have been applied as one that certainly was not.
    UnknownReportedAsFailed,
    /// The router gives a write the stamp of another outstanding write of its session.
    StampUsedTwice,
}

impl Defect {
    /// All defects.
    pub const ALL: [Defect; 9] = [
        Defect::AcknowledgeBeforeSync,
        Defect::VoteNotSynced,
        Defect::StrongReadWithoutQuorum,
        Defect::SessionsOff,
        Defect::PurgePastFlush,
        Defect::WipedNodeKeepsIdentity,
        Defect::RetryWithNewStamp,
        Defect::UnknownReportedAsFailed,
        Defect::StampUsedTwice,
    ];

    /// The product's testpoint for the defect. None for a defect of the simulated disk or machine.
    pub(crate) fn bug(self) -> Option<Bug> {
        match self {
            Defect::AcknowledgeBeforeSync
            | Defect::VoteNotSynced
            | Defect::PurgePastFlush
            | Defect::WipedNodeKeepsIdentity => None,
            Defect::StrongReadWithoutQuorum => Some(Bug::ReadUnconfirmed),
            Defect::SessionsOff => Some(Bug::SessionTableOff),
            Defect::RetryWithNewStamp => Some(Bug::RetryWithNewStamp),
            Defect::UnknownReportedAsFailed => Some(Bug::UnknownReportedAsFailed),
            Defect::StampUsedTwice => Some(Bug::StampUsedTwice),
        }
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Defect::AcknowledgeBeforeSync => "acknowledge-before-sync",
            Defect::VoteNotSynced => "vote-not-synced",
            Defect::StrongReadWithoutQuorum => "strong-read-without-quorum",
            Defect::SessionsOff => "sessions-off",
            Defect::PurgePastFlush => "purge-past-flush",
            Defect::WipedNodeKeepsIdentity => "wiped-node-keeps-identity",
            Defect::RetryWithNewStamp => "retry-with-new-stamp",
            Defect::UnknownReportedAsFailed => "unknown-reported-as-failed",
            Defect::StampUsedTwice => "stamp-used-twice",
        })
    }
}

/// A name that no defect has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownDefect(String);

impl fmt::Display for UnknownDefect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = Defect::ALL.iter().map(ToString::to_string).collect();
        write!(f, "unknown defect '{}'; use one of {}", self.0, all.join(", "))
    }
}

impl std::error::Error for UnknownDefect {}

impl FromStr for Defect {
    type Err = UnknownDefect;

    fn from_str(name: &str) -> Result<Self, UnknownDefect> {
        let known = Defect::ALL.into_iter().find(|defect| defect.to_string() == name);
        known.ok_or_else(|| UnknownDefect(name.to_owned()))
    }
}
