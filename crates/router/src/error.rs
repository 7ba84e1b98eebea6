//! The errors of operations, sorted by the caller's next step.

use quorate_types::Record;

/// The reason why an operation failed, sorted by the caller's next step.
///
/// Every variant except [`Error::Unknown`] promises that the operation *was not applied* and never
/// will be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No endpoint was reachable, or the shard had no quorum or no leader until the deadline.
    /// Nothing was applied: try again when the cluster has recovered.
    #[error("unreachable: {reason}")]
    Unreachable {
        /// The attempts and their failures.
        reason: String,
    },
    /// The write's condition did not hold. Nothing was changed: decide again from the current
    /// record.
    #[error("the condition does not hold: {}", describe(*version))]
    Refused {
        /// The version of the key's record at that time. 0 if the key was absent.
        version: u64,
        /// The key's record at that time. None if the key was absent, or if the write was retried
        /// and the record has changed since.
        current: Option<Record>,
    },
    /// The write may or may not have been applied. Read the key to find out: sending the write
    /// again as a new one may apply it twice.
    #[error("outcome unknown, the write may or may not have been applied: {reason}")]
    Unknown {
        /// The first attempt that may have been applied, and the end of the operation.
        reason: String,
    },
    /// The request can never succeed, in any state of the cluster.
    #[error("invalid: {reason}")]
    Invalid {
        /// The mistake.
        reason: String,
    },
    /// The shard's nodes have less free disk than their reserve. Nothing was applied. Reads and
    /// deletes still work: free disk space or add nodes.
    #[error("the disk is below its reserve of free space; nothing was written; free disk space or add nodes")]
    DiskFull,
    /// The cluster, or this client, was overloaded until the deadline. Nothing was applied: try
    /// again later, or with fewer requests at a time.
    #[error("overloaded: {reason}")]
    Overloaded {
        /// The overloaded part, and the attempts.
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
    /// Whether the operation may have been applied. False: it was not, and never will be.
    pub fn may_have_applied(&self) -> bool {
        matches!(self, Error::Unknown { .. })
    }

    /// Whether the same operation may succeed when it is sent again. False for an unknown outcome:
    /// the write could be applied twice.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Unreachable { .. } | Error::Overloaded { .. } | Error::DiskFull)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unknown_outcome_may_have_been_applied_and_it_is_not_retryable() {
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
