//! A node's storage on disk: the shared Raft log and the state store, both on RocksDB.
//!
//! This is the only crate that uses RocksDB. It implements the traits
//! [`Log`](quorate_machine::log::Log) and [`State`](quorate_machine::state::State). It knows
//! nothing of commands, openraft, sockets or tasks. Its calls block, or call back from its own
//! writer thread.
//!
//! ```text
//!   quorate_machine::log::Log        quorate_machine::state::State
//!            │                                 │
//!         RocksLog                         RocksState
//!    write-ahead log, synced          no write-ahead log: a crash reverts it to its last flush,
//!    one writer thread                and the Raft log replays the rest
//!            │                                 │
//!         data-dir/log                    data-dir/state
//! ```
//!
//! Read `log` next, then `state`. [`quorate_machine::keys`] lists the keys of both databases.

mod background;
mod log;
mod state;
mod wal_repair;

pub use log::RocksLog;
pub use log::database::has_write_ahead_log;
pub use log::options::LogOptions;
pub use state::{RocksState, StateOptions};
