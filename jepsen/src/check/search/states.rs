//! The states of the object that a search has met, by number.

use std::hash::Hash;

use rustc_hash::FxHashMap;

/// Interns states: equal states have the same number.
pub(super) struct States<S> {
    known: Vec<S>,
    numbers: FxHashMap<S, u32>,
}

impl<S: Clone + Eq + Hash> States<S> {
    /// The initial state gets number 0.
    pub(super) fn new(initial: S) -> Self {
        States { known: vec![initial.clone()], numbers: FxHashMap::from_iter([(initial, 0)]) }
    }

    /// The state with this number.
    pub(super) fn get(&self, number: u32) -> &S {
        &self.known[number as usize]
    }

    /// The number of a state, which is new or known.
    pub(super) fn number(&mut self, state: S) -> u32 {
        if let Some(number) = self.numbers.get(&state) {
            return *number;
        }
        let number = u32::try_from(self.known.len()).expect("the memory bound ends a search long before");
        self.known.push(state.clone());
        self.numbers.insert(state, number);
        number
    }

    /// Approximate memory use in bytes. Strings and sets weigh more than their handle, by an amount
    /// that only the model knows.
    pub(super) fn bytes(&self) -> usize {
        self.known.len() * (3 * size_of::<S>() + 16)
    }
}
