//! Raft groups of a node, on openraft. This crate is the only one that knows openraft; it knows nothing of tonic.
//!
//! ```text
//!   KvGroup    what a shard's clients ask of it: batches of commands, batches of reads
//!     │          proposals: what arrives while an entry is in flight becomes the next entry
//!     │          reads: what arrives while a round is in flight joins the next round
//!   Group<M>   one replica of one Raft group with its state machine: propose, confirm, status, transfer
//!     │
//!   Groups     all replicas of a node: open, close, deliver messages, pace heartbeats, campaign, purge logs, supervise
//!     │
//!   openraft ── log_store ──→ storage::log       state_machine ──→ storage::machine       network ──→ Transport (trait)
//! ```
//!
//! Read `groups` next, then `group`, `proposals`, `reads`, `network`.

mod append_stream;
mod blocking;
mod calls;
mod config;
mod convert;
mod election;
mod group;
mod groups;
mod heartbeat;
mod inbound;
mod leadership;
mod linger;
mod log_store;
mod membership;
mod memory_transport;
mod network;
mod openraft_types;
mod proposals;
mod reads;
mod retention;
mod runtime;
mod state_machine;
mod transport;

pub use config::{LOG_RETAINED_ENTRIES, Options, Timing};
pub use group::{Applied, Confirmed, Group, GroupStatus, OpenError};
pub use groups::{Groups, Stopped};
pub use membership::OrderError;
pub use memory_transport::MemoryNetwork;
pub use proposals::KvGroup;
pub use reads::ReadReply;
pub use runtime::simulate;
pub use state_machine::Received;
pub use transport::{Lane, SnapshotUnsent, Transport, Unsent};

#[cfg(test)]
mod stories;
#[cfg(test)]
mod suite;
