//! The state machine of a shard, and the traits of the log and the state store that it needs. Pure
//! code.
//!
//! This crate has no disk, no runtime, no clock and no randomness. `quorate_rocks` implements
//! [`log::Log`] and [`state::State`] on RocksDB; the in-memory implementations here serve tests and
//! the simulation.
//!
//! ```text
//!        raft (adapts both to openraft)
//!          │                       │
//!   log::Log (trait)        ReplicaState<M>      applies entries: one batch = data + head
//!    ├ RocksLog (rocks)      │    └ M: Machine (KvMachine here; the topology has its own)
//!    └ MemoryLog            state::State (trait)
//!                            ├ RocksState (rocks)
//!                            └ MemoryState
//! ```
//!
//! Read [`keys`] next (the layout on disk), then [`log`], [`state`], [`Machine`], and [`kv`], the
//! machine of a shard.

mod draft;
mod hash;
pub mod keys;
pub mod kv;
pub mod log;
mod machine;
pub mod rate_limiter;
mod record;
mod replica_state;
mod sessions;
pub mod state;

pub use draft::Draft;
pub use hash::{StateHash, state_hash};
pub use kv::KvMachine;
pub use machine::{Machine, Reply};
pub use replica_state::ReplicaState;
pub use sessions::{SESSION_IDLE_MS_MAX, SESSION_SEQUENCES_MAX, SESSIONS_MAX};
