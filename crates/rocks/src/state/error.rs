//! Converts errors of RocksDB and of the file system to a [`StateError`].

use quorate_machine::state::StateError;

/// Converts an error to [`StateError::Io`], which stops the node.
pub(super) fn io(error: impl ToString) -> StateError {
    StateError::Io(error.to_string().into())
}
