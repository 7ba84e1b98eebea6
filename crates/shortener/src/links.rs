//! What the shortener needs of a store, and nothing more.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use quorate_client::ReadLevel;

use crate::Code;

/// Links in a store. Implemented by [`crate::Store`] over a cluster, and in memory for tests.
///
/// To be correct:
/// * `create` answers [`Created::Done`] only when the link is durable and every later strong `lookup` finds it.
/// * `create` never replaces a link. If it cannot tell whether the link was made, it answers [`LinkError::Unknown`].
/// * A strong `lookup` sees every link that was acknowledged before it began; an eventual one may miss the latest.
pub trait Links: Send + Sync + 'static {
    /// Makes a link if its code is free.
    fn create(&self, code: Code, target: &str) -> impl Future<Output = Result<Created, LinkError>> + Send;

    /// Where a code leads, if it leads anywhere at that level.
    fn lookup(&self, code: Code, level: ReadLevel) -> impl Future<Output = Result<Option<Arc<str>>, LinkError>> + Send;

    /// Whether the store answers at all.
    fn probe(&self) -> impl Future<Output = Result<(), LinkError>> + Send;
}

/// What came of making a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The link is durable.
    Done,
    /// The code leads somewhere else already; nothing was changed.
    Taken,
}

/// Why the store did not answer, sorted by what to tell the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nothing was applied; try again later.
    #[error("the store cannot be reached: {reason}")]
    Unreachable {
        /// What was tried.
        reason: String,
    },
    /// Nothing was applied; the store has as much to do as it admits.
    #[error("the store is overloaded")]
    Overloaded {
        /// How long to wait before the next try.
        retry_after: Duration,
    },
    /// Nothing was applied; the store's disks are full.
    #[error("the store takes no more writes: its disks are below their reserve of free space")]
    Full,
    /// The write may or may not be applied, now or later.
    #[error("the outcome is unknown: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// The store refused what we asked, or holds what we never wrote. No retry helps.
    #[error("{reason}")]
    Broken {
        /// What is wrong.
        reason: String,
    },
}

#[cfg(test)]
pub(crate) mod memory;
