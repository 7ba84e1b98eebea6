//! The state machine of a shard, and what it needs of a log and a state store: pure code.
//!
//! This crate has no disk, no runtime, no clock and no randomness. `quorate_rocks` implements [`log::Log`] and [`state::State`]
//! on RocksDB; the implementations in memory here serve tests and the simulation.
//!
//! ```text
//!        raft (adapts both to openraft)
//!          │                       │
//!   log::Log (trait)        Replica<M>             applies entries: one batch = data + head
//!    ├ RocksLog (rocks)      │    └ M: Machine (KvMachine here, the topology's further up)
//!    └ MemoryLog            state::State (trait)
//!                            ├ RocksState (rocks)
//!                            └ MemoryState
//! ```
//!
//! Read [`keys`] next (the layout on disk), then [`log`], [`state`], [`Machine`], and [`kv`], which is the machine of a shard.

mod draft;
mod hash;
pub mod keys;
pub mod kv;
pub mod log;
mod machine;
pub mod rate_limiter;
mod replica;
mod sessions;
pub mod state;

pub use draft::Draft;
pub use hash::{StateHash, state_hash};
pub use kv::KvMachine;
pub use machine::{Machine, Reply};
pub use replica::Replica;
pub use sessions::{OUTSTANDING_MAX, SESSION_IDLE_MS_MAX, SESSIONS_MAX};
