//! The result of a check: a verdict and, if it is invalid, the violation.

use std::fmt;

use crate::history::Operation;

/// Result of a check.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// A correct store can produce this history.
    Valid,
    /// No correct store can produce this history.
    Invalid(Box<Violation>),
    /// Undecided, for this reason. Never counts as valid.
    Unknown(String),
}

impl Verdict {
    /// Combines two verdicts on one history: a violation outweighs an unknown, an unknown outweighs
    /// valid.
    #[must_use]
    pub fn and(self, other: Verdict) -> Verdict {
        match (self, other) {
            (invalid @ Verdict::Invalid(_), _) | (_, invalid @ Verdict::Invalid(_)) => invalid,
            (unknown @ Verdict::Unknown(_), _) | (_, unknown @ Verdict::Unknown(_)) => unknown,
            (Verdict::Valid, Verdict::Valid) => Verdict::Valid,
        }
    }
}

/// A proof that a history is invalid. Operations are identified by their indices in the checked
/// list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Violation {
    /// The contradiction, in one or two sentences.
    pub message: String,
    /// The affected key.
    pub key: Option<String>,
    /// The operation that fits into no order.
    pub operation: Option<usize>,
    /// The longest order found of the operations before that one; empty if there was no search.
    pub placed: Vec<usize>,
    /// The object's state after that order.
    pub state: String,
    /// The operations of the shortest stretch of history that contradicts itself, in invocation
    /// order.
    pub window: Vec<usize>,
}

impl Violation {
    /// Creates a violation that one operation shows together with some others.
    pub(crate) fn of(message: String, operations: &[Operation], operation: usize, others: &[usize]) -> Violation {
        let mut window: Vec<usize> = others.iter().copied().chain([operation]).collect();
        window.sort_unstable_by_key(|place| operations[*place].invoked);
        window.dedup();
        let key = operations[operation].key.as_deref().map(str::to_owned);
        Violation { message, key, operation: Some(operation), window, ..Violation::default() }
    }

    /// The position at which the violation was complete: the return of its operation.
    pub(crate) fn position(&self, operations: &[Operation]) -> u64 {
        self.operation.and_then(|place| operations[place].returned).unwrap_or(u64::MAX)
    }

    /// Formats the violation: the contradiction, then one line per operation of the window.
    pub fn explain<'a>(&'a self, operations: &'a [Operation]) -> impl fmt::Display + 'a {
        Explanation { violation: self, operations }
    }
}

/// Maximum number of operations listed in a text; the timeline shows all of them.
const NAMED_MAX: usize = 20;

struct Explanation<'a> {
    violation: &'a Violation,
    operations: &'a [Operation],
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { message, operation, window, .. } = self.violation;
        write!(f, "{message}")?;
        let skipped = window.len().saturating_sub(NAMED_MAX);
        if skipped > 0 {
            write!(f, "\n    … {skipped} operations before")?;
        }
        for place in &window[skipped..] {
            let shown = &self.operations[*place];
            let mark = if Some(*place) == *operation { '*' } else { ' ' };
            let returned = shown.returned.map_or("…".to_owned(), |returned| returned.to_string());
            write!(f, "\n  {mark} events {}–{returned}: {}", shown.invoked, shown.describe())?;
        }
        Ok(())
    }
}
