//! Defects that can be switched on, to show that the simulation notices them.

use std::fmt;
use std::str::FromStr;

/// A defect. Each breaks one promise of the product in the way in which real systems broke it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// An append counts as durable before it was synced.
    AcknowledgeBeforeSync,
    /// A vote is given before it was synced.
    VoteNotSynced,
    /// A strong read is answered by whoever believes to lead, without asking a quorum.
    StrongReadWithoutQuorum,
    /// A retry carries a new stamp, so that no session can recognise it.
    SessionsOff,
    /// The log is purged below a flush of the state that did not happen.
    PurgePastFlush,
    /// A node that lost its disk comes back under its old identity.
    WipedNodeKeepsIdentity,
}

impl Defect {
    /// All of them.
    pub const ALL: [Defect; 6] = [
        Defect::AcknowledgeBeforeSync,
        Defect::VoteNotSynced,
        Defect::StrongReadWithoutQuorum,
        Defect::SessionsOff,
        Defect::PurgePastFlush,
        Defect::WipedNodeKeepsIdentity,
    ];
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
        })
    }
}

impl FromStr for Defect {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Defect::ALL.into_iter().find(|defect| defect.to_string() == name);
        known.ok_or_else(|| {
            let all: Vec<String> = Defect::ALL.iter().map(ToString::to_string).collect();
            format!("unknown defect '{name}'; use one of {}", all.join(", "))
        })
    }
}
