//! Histories whose answers leave no choice of order: groups of operations that stand one after the other, each in any order within.

use crate::history::Operation;

/// Operations that stand together in the order.
#[derive(Default)]
pub(super) struct Group {
    size: usize,
    /// The operation that began last.
    last_begun: Option<(u64, usize)>,
    /// The operation that returned first.
    first_returned: Option<(u64, usize)>,
}

impl Group {
    /// Adds the operation at a place in the history.
    pub(super) fn push(&mut self, place: usize, operation: &Operation) {
        self.size += 1;
        self.last_begun = self.last_begun.max(Some((operation.invoked, place)));
        let returned = operation.returned.map(|returned| (returned, place));
        self.first_returned = match (self.first_returned, returned) {
            (Some(first), Some(returned)) => Some(first.min(returned)),
            (first, returned) => first.or(returned),
        };
    }

    pub(super) fn len(&self) -> usize {
        self.size
    }

    /// One of its operations.
    pub(super) fn first(&self) -> Option<usize> {
        self.last_begun.map(|(_, place)| place)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.size == 0
    }
}

/// The places of an operation that returned before another began which has to stand before it: first the one that returned.
/// Without one there is an order.
pub(super) fn out_of_order(groups: &[Group]) -> Option<(usize, usize)> {
    let mut begun: Option<(u64, usize)> = None;
    for group in groups {
        if let (Some((begun, later)), Some((returned, earlier))) = (begun, group.first_returned)
            && returned < begun
        {
            return Some((earlier, later));
        }
        begun = begun.max(group.last_begun);
    }
    None
}
