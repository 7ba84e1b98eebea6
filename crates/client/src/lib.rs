//! The client library of Quorate: the crate that applications depend on.
//!
//! ```no_run
//! use quorate_client::{Client, Error, ReadLevel};
//!
//! # async fn example() -> Result<(), Error> {
//! let client = Client::connect("127.0.0.1:7100,127.0.0.1:7110,127.0.0.1:7120").await?;
//!
//! // Linearizable by default.
//! let put = client.put("greeting", "hello").await?;
//! let read = client.get("greeting").await?;
//! assert_eq!(read.value.map(|record| record.version), Some(put.value.version));
//!
//! // Served by the nearest live replica. May be stale; works on both sides of a partition.
//! let nearby = client.get("greeting").level(ReadLevel::Eventual).await?;
//! println!("served by node {} ({})", nearby.by.node, nearby.by.role);
//!
//! // Compare and set.
//! match client.put("greeting", "goodbye").if_version(put.value.version).await {
//!     Ok(written) => println!("version {}", written.value.version),
//!     Err(Error::Refused { version, .. }) => println!("another client won: version {version}"),
//!     Err(error) if error.may_have_applied() => println!("read the key to find out: {error}"),
//!     Err(error) => return Err(error),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The programs in `examples/` show a first connection, compare-and-set, and an unknown outcome.
//!
//! ```text
//!   Client ─ get, put, delete ─► Get, Put, Delete ─ .await ─► quorate_router ──► grpc ──► nodes
//!                                level, condition,                                ▲
//!                                deadline                        AdminClient ─────┘
//! ```
//!
//! This crate checks limits, builds operations, and owns the gRPC side: connections (`grpc`) and
//! the admin client (`admin`). It deliberately makes no decision about replicas: the choice of a
//! replica, retries and unknown outcomes are in `quorate_router`. Read `operation` next.

mod admin;
mod builder;
mod grpc;
mod operation;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use admin::{AdminClient, AdminError, AdminErrorKind, admin, newest_topology, node_status};
pub use builder::ClientBuilder;
pub use operation::{Delete, Get, Put};
use quorate_router::Router;
pub use quorate_router::{Error, Written};
pub use quorate_types::{
    Condition, KEY_BYTES_MAX, Key, NodeId, ReadLevel, Record, Role, Served, ServedBy, ShardId, VALUE_BYTES_MAX, Value,
};

/// The deadline of operations, unless the client or the operation sets another one.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);

/// A client of one cluster. Cheap to clone; clones share the connections, the cluster's map and the
/// sessions.
///
/// Operations are futures that do nothing until they are awaited. A put or delete that is dropped
/// while it is awaited may or may not be applied.
#[derive(Clone, Debug)]
pub struct Client {
    router: Router,
    deadline: Duration,
}

impl Client {
    /// Reads a key. Returns its record, or none if it is absent, and the replica that served the
    /// read.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for an empty or over-long key; [`Error::Unreachable`] or
    /// [`Error::Overloaded`] when no replica could serve the read at its level within the deadline.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Get {
        Get::new(self.router.clone(), key.as_ref(), self.deadline)
    }

    /// Writes a value, unless it has a condition that does not hold. `Ok` means that the write is
    /// durable on a majority of the shard's replicas.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the condition did not hold; [`Error::Unknown`] when the write may or
    /// may not have been applied; [`Error::Invalid`] for a key or value beyond the limits; every
    /// other error when nothing was applied within the deadline.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl Into<bytes::Bytes>) -> Put {
        Put::new(self.router.clone(), key.as_ref(), value.into(), self.deadline)
    }

    /// Deletes a key, unless the deletion has a condition that does not hold. Deleting an absent
    /// key succeeds.
    ///
    /// # Errors
    ///
    /// The errors of [`Client::put`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Delete {
        Delete::new(self.router.clone(), key.as_ref(), self.deadline)
    }

    /// The router of this client: for tools that need the cluster's map.
    pub fn router(&self) -> &Router {
        &self.router
    }
}
