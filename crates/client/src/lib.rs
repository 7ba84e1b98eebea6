//! The client library of Quorate: what applications depend on.
//!
//! ```no_run
//! use quorate_client::{Client, Error, ReadLevel};
//!
//! # async fn example() -> Result<(), Error> {
//! let client = Client::connect("127.0.0.1:7100,127.0.0.1:7200,127.0.0.1:7300").await?;
//!
//! // Linearizable by default.
//! let put = client.put("greeting", "hello").await?;
//! let read = client.get("greeting").await?;
//! assert_eq!(read.value.map(|record| record.version), Some(put.value.version));
//!
//! // The nearest live replica, at once; may be stale; works on both sides of a partition.
//! let nearby = client.get("greeting").level(ReadLevel::Eventual).await?;
//! println!("served by node {} ({})", nearby.by.node, nearby.by.role);
//!
//! // Compare and set.
//! match client.put("greeting", "goodbye").if_version(put.value.version).await {
//!     Ok(written) => println!("version {}", written.value.version),
//!     Err(Error::Refused { version, .. }) => println!("somebody was faster: version {version}"),
//!     Err(error) if error.may_have_applied() => println!("read the key to find out: {error}"),
//!     Err(error) => return Err(error),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! This crate is deliberately thin: it checks limits, builds operations and waits. Which replica serves an operation, what is
//! tried again and what may not be is decided in `quorate-router`. Read `operation` next.
//!
//! ```text
//!   Client ── get/put/delete ──► Get, Put, Delete ── .await ──► Router ──► nodes
//!                                level, condition,
//!                                deadline
//! ```

mod builder;
mod operation;

use std::time::Duration;

pub use builder::ClientBuilder;
pub use operation::{Delete, Get, Put};
use quorate_router::Router;
pub use quorate_router::{Error, Written};
pub use quorate_types::{
    Condition, KEY_BYTES_MAX, Key, NodeId, ReadLevel, Record, Role, Served, ServedBy, ShardId, VALUE_BYTES_MAX, Value,
};

/// How long an operation may take unless it is told otherwise.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);

/// A client of one cluster. Cheap to clone; clones share connections, the map of the cluster and the sessions.
///
/// Operations are futures that do nothing until they are awaited. A put or delete that is dropped while it is being awaited may
/// or may not be applied.
#[derive(Clone, Debug)]
pub struct Client {
    router: Router,
    deadline: Duration,
}

impl Client {
    /// A client with other than the default settings.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Connects to the cluster that has these endpoints: `host:port` of any of its nodes' client ports, separated by commas.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when an endpoint is not `host:port` or there is none; [`Error::Unreachable`], naming what was tried,
    /// when no endpoint told the cluster's map within [`DEADLINE_DEFAULT`].
    pub async fn connect(endpoints: &str) -> Result<Client, Error> {
        Self::builder().endpoints(endpoints.split(',').map(str::trim).filter(|part| !part.is_empty())).connect().await
    }

    /// Reads a key; the future's output is the key's record, or none, and who served it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for an empty or over-long key; [`Error::Unreachable`] or [`Error::Overloaded`] when no replica could
    /// serve the read at its level within the deadline.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Get {
        Get::new(self.clone(), key.as_ref())
    }

    /// Writes a value, unless a condition is added and does not hold. When the future is done the write is durable on a majority
    /// of the shard's replicas.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the condition did not hold; [`Error::Unknown`] when the write may or may not have been applied;
    /// [`Error::Invalid`] for a key or value beyond the limits; the others when nothing was applied within the deadline.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl Into<bytes::Bytes>) -> Put {
        Put::new(self.clone(), key.as_ref(), value.into())
    }

    /// Deletes a key, unless a condition is added and does not hold. Deleting an absent key succeeds.
    ///
    /// # Errors
    ///
    /// As for [`Client::put`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Delete {
        Delete::new(self.clone(), key.as_ref())
    }

    /// What sends this client's operations to replicas: for tools that need the map or the nodes themselves.
    pub fn router(&self) -> &Router {
        &self.router
    }
}
