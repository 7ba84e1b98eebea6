//! How an error of RocksDB or of the file system becomes a [`StateError`].

use quorate_machine::state::StateError;

/// The error as [`StateError::Io`]: the node stops.
pub(super) fn io(error: impl ToString) -> StateError {
    StateError::Io(error.to_string().into())
}
