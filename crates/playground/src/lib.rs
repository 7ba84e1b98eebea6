//! A Quorate cluster on this machine: node processes, the URL shortener on top, and faults to try.
//!
//! ```text
//!   run        starts the cluster, serves requests, stops it
//!    │
//!    ├─ start            nodes ─► bootstrap ─► test write ─► shortener
//!    ├─ running          add, kill, start, pause, resume, partition, heal
//!    │    ▲
//!    │    └─ control ◄── remote (sends requests from another process, over a Unix socket)
//!    │
//!    ├─ layout, home     ports and directories
//!    ├─ children, spawn  child processes, their logs, how they stop
//!    └─ links, owner     a proxy before each peer port, which a partition closes
//! ```
//!
//! The child processes are the running program itself, started with the arguments that a user would
//! type, so they can also be killed and restarted by hand.
//!
//! This crate is not for production clusters and has no command line: the `quorate` binary parses
//! the arguments and maps [`Error`] to exit codes. Read `run` next.

mod children;
mod control;
mod error;
mod home;
mod layout;
mod links;
mod options;
mod orphan;
mod owner;
mod probe;
mod ready;
mod remote;
mod run;
mod running;
mod shortener;
mod spawn;
mod start;
mod terminal;

pub use control::Request;
pub use error::{Error, Kind};
pub use layout::{NODES_DEFAULT, NODES_MAX, PORT_BASE_DEFAULT, SHARDS_DEFAULT};
pub use options::Options;
pub use orphan::die_with_parent;
pub use remote::{Which, send};
pub use run::run;
pub use terminal::Terminal;
