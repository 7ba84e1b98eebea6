//! The store of links, as the shortener needs it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use quorate_client::ReadLevel;

use crate::Code;

/// Links in a store. Implemented by [`crate::Store`] over a cluster, and in memory for tests.
///
/// To be correct:
/// * `create` returns [`Created::Done`] only when the link is durable and every later strong
///   `lookup` finds it.
/// * `create` never replaces a link. If it cannot tell whether the link was created, it returns
///   [`LinkError::Unknown`].
/// * A strong `lookup` sees every link that was acknowledged before it began; an eventual one may
///   miss the latest.
pub trait Links: Send + Sync + 'static {
    /// Creates a link if its code is free.
    fn create(&self, code: Code, target: &str) -> impl Future<Output = Result<Created, LinkError>> + Send;

    /// The target of a code; none if no link is visible at this level.
    fn lookup(&self, code: Code, level: ReadLevel) -> impl Future<Output = Result<Option<Arc<str>>, LinkError>> + Send;

    /// Checks that the store responds.
    fn probe(&self) -> impl Future<Output = Result<(), LinkError>> + Send;
}

/// The result of creating a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The link is durable.
    Done,
    /// The code already has another target; nothing was changed.
    Taken,
}

/// The reason why the store failed, sorted by the answer to the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nothing was applied; try again later.
    #[error("the store is unreachable: {reason}")]
    Unreachable {
        /// The endpoints that failed, with their errors.
        reason: String,
    },
    /// Nothing was applied; the store admits no more requests.
    #[error("the store is overloaded")]
    Overloaded {
        /// The recommended wait before a retry.
        retry_after: Duration,
    },
    /// Nothing was applied; the store's disks are full.
    #[error("the store accepts no writes: its disks have less free space than their reserve")]
    Full,
    /// The write may or may not be applied, now or later.
    #[error("the outcome is unknown: {reason}")]
    Unknown {
        /// The reason why the answer is missing.
        reason: String,
    },
    /// The store refused a valid request, or holds a record that the shortener never wrote. No
    /// retry helps.
    #[error("{reason}")]
    Broken {
        /// The refusal, or the defect of the record.
        reason: String,
    },
}

#[cfg(test)]
pub(crate) mod memory;
