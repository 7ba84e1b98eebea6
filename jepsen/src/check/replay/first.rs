//! Of several violations, the one to report.

use super::super::verdict::Violation;
use crate::history::Operation;

/// Keeps the violation that was complete first.
pub(super) struct First<'a> {
    pub(super) operations: &'a [Operation],
    pub(super) found: Option<Violation>,
}

impl First<'_> {
    /// Records a violation, unless one that was complete earlier is known.
    pub(super) fn note(&mut self, violation: Violation) {
        let position = |violation: &Violation| (violation.position(self.operations), violation.operation);
        if self.found.as_ref().is_none_or(|found| position(&violation) < position(found)) {
            self.found = Some(violation);
        }
    }
}
