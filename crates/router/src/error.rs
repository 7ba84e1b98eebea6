//! Why an operation failed, sorted by what the caller does next.

use quorate_types::Record;

/// Why an operation failed, sorted by what the caller does next.
///
/// Every variant but [`Error::Unknown`] promises that *nothing was applied* and that nothing of it ever will be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No endpoint could be reached, or the shard had no quorum or no leader until the deadline. Nothing was applied: try again
    /// when the cluster is back.
    #[error("unreachable: {reason}")]
    Unreachable {
        /// What was tried, and how it failed.
        reason: String,
    },
    /// The write's condition did not hold. Nothing was changed: decide anew from what the key holds.
    #[error("the condition does not hold: {}", describe(*version))]
    Refused {
        /// The version of the key's record then; 0 if the key was absent.
        version: u64,
        /// The key's record then. None if it was absent, or if the write had to be sent twice and the record has changed since.
        current: Option<Record>,
    },
    /// The write may have been applied, or may not. Read the key to find out; sending the write again as a new one may apply it
    /// twice.
    #[error("outcome unknown, the write may or may not have been applied: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// The request can never succeed, whatever the state of the cluster.
    #[error("invalid: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The shard's nodes have less free disk than their reserve. Reads and deletes still work: make room or add nodes.
    #[error("the disk is below its reserve of free space; nothing was written; make room or add nodes")]
    DiskFull,
    /// The cluster, or this client, had as much to do as it admits until the deadline. Nothing was applied: try again later, or
    /// with fewer requests at a time.
    #[error("overloaded: {reason}")]
    Overloaded {
        /// Who had too much to do.
        reason: String,
    },
}

fn describe(version: u64) -> String {
    match version {
        0 => "the key is absent".to_owned(),
        version => format!("the key's record has version {version}"),
    }
}

impl Error {
    /// Whether the operation may have been applied. When this is false, nothing was and nothing will be.
    pub fn may_have_applied(&self) -> bool {
        matches!(self, Error::Unknown { .. })
    }

    /// Whether the same operation may be sent again as it is and may then succeed. Never true of an unknown outcome: sent again
    /// as a new write it could be applied twice.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Unreachable { .. } | Error::Overloaded { .. } | Error::DiskFull)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unknown_outcome_may_have_been_applied_and_it_is_never_retryable() {
        let reason = || "because".to_owned();
        let all = [
            (Error::Unreachable { reason: reason() }, false, true),
            (Error::Refused { version: 0, current: None }, false, false),
            (Error::Unknown { reason: reason() }, true, false),
            (Error::Invalid { reason: reason() }, false, false),
            (Error::DiskFull, false, true),
            (Error::Overloaded { reason: reason() }, false, true),
        ];
        for (error, may_have_applied, retryable) in all {
            assert_eq!((error.may_have_applied(), error.is_retryable()), (may_have_applied, retryable), "{error}");
        }
    }
}
