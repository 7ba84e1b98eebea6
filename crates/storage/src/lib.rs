//! Storage of a node: one log for all its Raft groups, one state store for all its replicas, and the state machine that is
//! pure code over the latter.
//!
//! This crate is the only one that knows RocksDB. It knows nothing of openraft, of sockets and of tasks: its calls block, or
//! call back from its own writer thread.
//!
//! ```text
//!        raft (adapts both to openraft)
//!          │                       │
//!   log::Log (trait)        machine::Replica<M>    applies entries: one batch = data + head
//!    ├ RocksLog              │            └ M: Machine (KvMachine here, the topology's further up)
//!    └ MemoryLog            state::State (trait)
//!                            ├ RocksState     no WAL: after a crash it is at its last flush, and the log replays the rest
//!                            └ MemoryState
//! ```
//!
//! Read `keys` next (what is on disk), then `log`, `state`, `machine`.

mod background;
mod bug;
mod fail_point;
pub mod keys;
pub mod log;
pub mod machine;
pub mod pace;
pub mod state;
mod torn;

pub use bug::Bug;
pub use fail_point::fail_point;
