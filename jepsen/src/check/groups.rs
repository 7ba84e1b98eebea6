//! Orders that the results leave no choice in: a sequence of groups whose operations may come in
//! any order within the group.

use crate::history::Operation;

/// A group of operations.
#[derive(Default)]
pub(super) struct Group {
    size: usize,
    /// The operation that began last.
    last_begun: Option<(u64, usize)>,
    /// The operation that returned first.
    first_returned: Option<(u64, usize)>,
}

impl Group {
    /// Adds the operation with this index.
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

    /// Any one of its operations.
    pub(super) fn first(&self) -> Option<usize> {
        self.last_begun.map(|(_, place)| place)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.size == 0
    }
}

/// Finds two operations whose groups contradict real time: the first returned before the second
/// began, but belongs to a later group. None if the groups form a legal order.
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
