//! The server: one node of a cluster, from its ports down to its Raft groups. It is deliberately
//! not a router: a request for another node is answered with a hint and never forwarded.
//!
//! ```text
//!   client port                  peer port                       ops port
//!   service/kv, service/admin    service/peer   peer/transport   ops
//!         │                           │              ↑             │
//!         └─────────────┬─────────────┘              │             │
//!                       ▼                            │             │
//!   node ── member (in a cluster): quorate_control::Plane, over Peers (peer/peers) and Host (host)
//!    │         ↑
//!    │       tasks       starts the control loops, and announce
//!    ├─ bootstrap, join  how a node enters a cluster
//!    └─ operations       operators' requests
//! ```
//!
//! Read `process` next (start and stop), then `node`, `tasks`, `service/kv`, `peer`.

mod process;

mod life;
mod listeners;
mod node;
mod servers;
mod tasks;
mod upkeep;

mod ops;
mod service;

mod cluster_node;
mod databases;
mod host;
mod peer;
mod release;
mod store;

mod announce;
mod bootstrap;
mod handshake;
mod join;
mod operations;
mod readiness;
mod refusal;

mod config;
mod data_dir;
mod disk;
mod durable;
mod error;
mod fatal;
mod open_files;
mod telemetry;

pub use config::{ConfigError, Limits, NodeConfig, WEIGHT_DEFAULT};
pub use data_dir::DataDirError;
pub use error::NodeError;
pub use fatal::stop_on_panic;
pub use process::run;

/// The version of this build, as nodes report it. A build with seeded bugs is marked.
pub const VERSION: &str =
    if cfg!(feature = "bugs") { concat!(env!("CARGO_PKG_VERSION"), "+bugs") } else { env!("CARGO_PKG_VERSION") };
