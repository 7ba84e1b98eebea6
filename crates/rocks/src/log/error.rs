//! Converts errors of RocksDB to a [`LogError`].

use quorate_machine::log::LogError;

/// Converts an error to [`LogError::Io`], which stops the node.
pub(super) fn io(error: rocksdb::Error) -> LogError {
    LogError::Io(error.into_string().into())
}
