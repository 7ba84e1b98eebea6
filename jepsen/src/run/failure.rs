//! Errors of the harness as checks of the run: a step that fails must not keep the recorded history
//! from being judged.

use crate::report::{Check, Outcome};

/// A check that reports an error of the harness.
pub(super) fn failed(name: &str, error: &impl std::fmt::Display) -> Check {
    Check::new(name, Outcome::HarnessFailure, format!("{error:#}"))
}

/// A check that reports the error of a result, if it is one.
pub(super) fn failure<T, E: std::fmt::Display>(name: &str, result: Result<T, &E>) -> Option<Check> {
    result.err().map(|error| failed(name, error))
}
