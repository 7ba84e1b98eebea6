//! Seeded defects ([`Bug`]) and crash points ([`fail_point`]) for tests. Both do nothing in a build
//! without the feature `bugs`.
//!
//! This crate knows nothing of the store: it only answers "is this defect on?" and "should the
//! process die here?". Read `bug` next.

mod bug;
mod fail_point;

pub use bug::Bug;
pub use fail_point::{FailPoint, fail_point};

/// Whether this build has seeded defects and crash points at all.
pub const ENABLED: bool = cfg!(feature = "bugs");
