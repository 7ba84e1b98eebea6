//! The object of a search: its model and the calls on it.

use std::hash::Hash;

/// One operation in the form that the search needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call<S> {
    /// Position of the invocation.
    pub(crate) invoked: u64,
    /// Position of the return; without one, the call is optional.
    pub(crate) returned: Option<u64>,
    /// The operation and its result, in the model's terms.
    pub(crate) step: S,
    /// Index of the operation in the history.
    pub(crate) origin: usize,
}

/// An object that executes operations.
pub(crate) trait Model {
    /// An operation with its observed result. Equal steps are interchangeable.
    type Step: Clone + Eq + Hash;
    /// The state of the object.
    type State: Clone + Eq + Hash;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after the step; none if the object would have given another result.
    fn apply(&self, state: &Self::State, step: &Self::Step) -> Option<Self::State>;

    /// Whether the step changes nothing in any state.
    fn is_read(&self, step: &Self::Step) -> bool;

    /// A number by which ranked steps must be ordered: of two, the smaller rank comes first.
    fn rank(&self, _step: &Self::Step) -> Option<u64> {
        None
    }

    /// All states that the object can have had in the history; none if they cannot be listed.
    fn states(&self) -> Option<Vec<Self::State>> {
        None
    }

    /// The state in words.
    fn describe(&self, state: &Self::State) -> String;
}
