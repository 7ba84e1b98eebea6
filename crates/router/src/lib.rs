//! The router: sends each operation to the replica that serves it, and decides about retries.
//!
//! ```text
//!   Router::write, Router::get      the entry points: `write` and `read`
//!          │
//!          │      leaves that return values, none calls back:
//!          │        map_cache   key → shard → nodes; refreshed when the map proves wrong
//!          │        session     a stamp for each write, so that a retry is applied once
//!          │        search      the next replica to try, and the meaning of a failed attempt
//!          │        recovery    pauses and map refreshes between two attempts
//!          ▼
//!        node                       one node: circuit breaker, then its connection
//!          │
//!          ▼
//!     trait Connection              one attempt at one node; gRPC in `quorate_client`,
//!                                   a simulated network in `quorate_sim`
//! ```
//!
//! This crate deliberately has no sockets, no wire types and no randomness of its own: [`Network`]
//! and a seed are passed in, and all timers are tokio's, so a paused clock moves them.
//!
//! Two guarantees rest on this crate. An unknown outcome is never reported as a failure
//! ([`Error::Unknown`]), and every retry of a write carries the stamp of the first attempt, so that
//! the shard applies it once.
//!
//! Read `write` next, then `node` and [`Connection`].

mod attempt;
mod backoff;
mod breaker;
mod config;
mod deadline;
mod error;
mod health;
mod live;
mod map;
mod map_cache;
mod network;
mod node;
mod randomness;
mod read;
mod recovery;
mod router;
mod search;
mod session;
mod slot;
mod write;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use attempt::Attempt;
pub use config::RouterConfig;
pub use error::Error;
pub use health::Health;
pub use network::{Connection, Network, Target, TopologyUnavailable};
pub use router::Router;
pub use session::OUTSTANDING_MAX;
pub use write::Written;
