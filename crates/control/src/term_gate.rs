//! Rejects the orders of reconcilers that no longer lead.

use std::sync::{Mutex, PoisonError};

/// A deposed reconciler sent the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the order is of term {term} of the topology group, which is in term {newest}")]
pub struct Deposed {
    /// The order's term.
    pub term: u64,
    /// The newest term that this node has accepted an order in.
    pub newest: u64,
}

/// Rejects the orders of deposed reconcilers.
///
/// # Invariants
/// * Accepted terms never decrease.
#[derive(Default)]
pub struct TermGate {
    newest: Mutex<u64>,
}

impl TermGate {
    /// Accepts an order's term, or names the newer one that was accepted before.
    pub fn accept(&self, term: u64) -> Result<(), Deposed> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if term < *newest {
            return Err(Deposed { term, newest: *newest });
        }
        *newest = term;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that an order of a deposed reconciler is refused, and one of the same term is not.
    #[test]
    fn orders_of_older_terms_are_refused() {
        let gate = TermGate::default();
        assert_eq!(gate.accept(3), Ok(()));
        assert_eq!(gate.accept(3), Ok(()));
        assert_eq!(gate.accept(2), Err(Deposed { term: 2, newest: 3 }));
        assert_eq!(gate.accept(4), Ok(()));
    }
}
