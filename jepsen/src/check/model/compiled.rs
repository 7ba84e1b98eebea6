//! The result of compiling the operations on an object for the search.

use super::super::search::{Call, Model};
use super::name::ModelName;
use crate::history::Operation;

/// An object and its calls.
pub(crate) type Compiled<M> = Result<(M, Vec<Call<<M as Model>::Step>>), Unfit>;

/// The model does not support an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfit(pub(super) String);

/// The error for an operation that the model does not support.
pub(crate) fn unfit(model: ModelName, operation: &Operation) -> Unfit {
    Unfit(format!("event {}: model {model} does not support '{}'", operation.invoked, operation.describe()))
}

/// The argument of an operation, if it is a whole number.
pub(super) fn whole(operation: &Operation) -> Option<i64> {
    operation.argument.as_i64()
}
