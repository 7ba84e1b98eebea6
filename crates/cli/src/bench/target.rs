//! The interface of a store under load: puts and gets.

use std::future::Future;

use bytes::Bytes;
use quorate_client::{Client, Error};
use quorate_types::ReadLevel;

/// The kind of an error. Errors are counted by kind.
pub(super) type ErrorKind = &'static str;

/// The kind of a get that finds no value, which is an error because every key was preloaded.
pub(super) const ABSENT: ErrorKind = "absent";

/// A store under load. `client` is the number of the requesting client; a target with several
/// connections uses it to spread the clients over them.
pub(super) trait Target: Clone + Send + Sync + 'static {
    /// Writes a key.
    fn put(&self, client: usize, key: Bytes, value: Bytes) -> impl Future<Output = Result<(), ErrorKind>> + Send;

    /// Reads a key and checks that it exists.
    fn get(&self, client: usize, key: Bytes, level: ReadLevel) -> impl Future<Output = Result<(), ErrorKind>> + Send;
}

/// A Quorate cluster. All clients share one router, as the requests of one process do.
#[derive(Clone)]
pub(super) struct Quorate(Client);

impl Quorate {
    pub(super) fn new(client: Client) -> Self {
        Quorate(client)
    }
}

impl Target for Quorate {
    async fn put(&self, _client: usize, key: Bytes, value: Bytes) -> Result<(), ErrorKind> {
        self.0.put(&key, value).await.map(drop).map_err(kind)
    }

    async fn get(&self, _client: usize, key: Bytes, level: ReadLevel) -> Result<(), ErrorKind> {
        let read = self.0.get(&key).level(level).await.map_err(kind)?;
        read.value.map(drop).ok_or(ABSENT)
    }
}

fn kind(error: Error) -> ErrorKind {
    match error {
        Error::Unreachable { .. } => "unreachable",
        Error::Refused { .. } => "refused",
        Error::Unknown { .. } => "unknown",
        Error::Invalid { .. } => "invalid",
        Error::DiskFull => "disk_full",
        Error::Overloaded { .. } => "overloaded",
        _ => "other",
    }
}
