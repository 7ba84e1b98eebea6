//! Doubt about a replica of this node: it lost entries that it had confirmed to a leader, or its
//! log ends before its commit mark. It may also have forgotten votes.
//!
//! ```text
//!   a leader tells it, or recovery finds it → silent → synced mark, Raft core stopped
//!                                                          └→ reported, replaced, destroyed
//! ```
//!
//! From the first moment nothing that it says counts: its messages are not sent, its answers say
//! that it is unreachable, and its reads are rejected. The mark keeps it so after a restart; once
//! it is synced, its node answers that the replica is doubtful. Its log and its state stay as they
//! are until the topology replaces it under a new id.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_testpoints::Bug;
use quorate_types::Rejection;

/// Whether a replica is doubtful. Clones share it.
///
/// # Invariants
/// * Doubt is never withdrawn.
#[derive(Clone, Default)]
pub(crate) struct Doubt(Arc<AtomicBool>);

impl Doubt {
    /// Raises the doubt; false if it was raised before.
    pub(crate) fn raise(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire) && !Bug::DoubtfulTakesPart.is_on()
    }

    /// Rejects a request of a client if the replica is doubtful.
    pub(crate) fn check(&self) -> Result<(), Rejection> {
        if !self.is_raised() {
            return Ok(());
        }
        Err(Rejection::Unavailable { reason: "the replica lost log entries and is being replaced".to_owned() })
    }
}
