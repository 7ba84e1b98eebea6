//! Raft groups of a node, on openraft. The only crate that knows openraft; it knows neither tonic
//! nor RocksDB.
//!
//! ```text
//!   Shard      a shard's replica for its clients: write, read barrier, read
//!     │          batch: commands that arrive while an entry is in flight become the next entry
//!     │          read_rounds: reads that arrive during a round of the quorum join the next one
//!   Replica    one replica of one Raft group: propose, confirm, status, membership, messages
//!     │
//!   Groups     all replicas of a node: open, destroy, dispatch messages, supervise;
//!     │          heartbeats, elections and purges of all of them together
//!   openraft ─┬─ log_store ──────→ machine::Log
//!             ├─ state_machine ──→ machine::ReplicaState
//!             └─ network ────────→ Transport (trait)
//! ```
//!
//! Read `shard` and `replica` next: they are the path of a put. Then `log_store`, `state_machine`,
//! `network`, `groups`.

mod shard;

mod batch;
mod batch_delay;
mod read_rounds;

mod replica;

mod core;
mod doubt;
mod doubtful;
mod error;
mod progress;
mod soft_state;
mod stalls;

mod log_store;
mod snapshot_data;
mod state_machine;

mod acknowledged;
mod append_receive;
mod append_stream;
mod calls;
mod inbound;
mod network_factory;
mod peer_link;
mod peer_network;
mod snapshot_doubts;
mod snapshot_files;
mod snapshot_send;
mod snapshot_slots;
mod transport;

mod groups;

mod campaigner;
mod config;
mod election;
mod heartbeat;
mod opening;
mod replicas;
mod retention;
mod tasks;

mod blocking;
mod convert;
mod memory_transport;
mod openraft_types;
mod runtime;

pub use batch::Written;
pub use config::{LEASE_MS_DEFAULT, LOG_RETAINED_ENTRIES, Options, Room, Timing};
pub use error::{FileError, InstallError, OpenError, OrderError, Stopped};
pub use groups::Groups;
pub use memory_transport::{MemoryNetwork, SnapshotFaults};
pub use replica::Replica;
pub use replica::confirm::Confirmed;
pub use replica::propose::Applied;
pub use replica::status::ReplicaStatus;
pub use runtime::simulate;
pub use shard::{ReadReply, Shard};
pub use snapshot_data::Received;
pub use snapshot_files::{OutgoingFile, SnapshotFiles};
pub use stalls::Stalled;
pub use transport::{Lane, SnapshotUnsent, Transport, Unsent};

#[cfg(test)]
mod suite;
