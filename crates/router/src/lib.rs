//! From an operation to the replica that serves it: map, connections, batches, levels, redirects, retries.
//!
//! ```text
//!   operation ──► read / write      what to send, what an answer means, when the outcome is in doubt
//!                   │
//!                 search            which replica next: leader or nearest, hints, pauses; pure decisions
//!                   │
//!                 map, map_cache    key → shard → nodes; fetched from any node, refreshed when it proves wrong
//!                   │
//!                 node              one per node: circuit breaker (breaker) and connection
//!                   │
//!                 link              one stream: queue → frames → replies by id
//! ```
//!
//! What it is not: it keeps no data, decides no consistency and never answers by itself. What it guarantees is that an outcome
//! it does not know is never reported as a failure ([`Error::Unknown`]), and that a write is sent twice only with the same stamp
//! of the same session (`session`), so that it is applied once.
//!
//! Read `router` next, then `write`.

mod admin;
mod backoff;
mod breaker;
mod config;
mod error;
mod link;
mod map;
mod map_cache;
mod node;
mod operation;
mod read;
mod router;
mod search;
mod session;
mod write;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use admin::{AdminClient, AdminError, admin};
pub use config::RouterConfig;
pub use error::Error;
pub use router::Router;
pub use session::OUTSTANDING_MAX;
pub use write::Written;
