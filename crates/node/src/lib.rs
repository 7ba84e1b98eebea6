//! The server: one node of a cluster, from its ports down to its Raft groups. It is deliberately not a router: a request for
//! another node is answered with a hint and never forwarded.
//!
//! ```text
//!     client port                  peer port                        ops port
//!     service/kv, service/admin    peer/server   peer/transport     ops
//!           │                          │              ↑              │
//!           └──────────┬───────────────┘              │              │
//!                      ▼                              │              │
//!     node ── member (in a cluster): storage, raft groups, topology feed
//!       │          ↑         ↑
//!       │        agent     topology_watch, announce      follow the cluster, and tell it of this node
//!       ├─ bootstrap, join                                how a node comes into a cluster
//!       └─ reconciler, operations                        where group 0 is led: what moves, and what was asked for
//! ```
//!
//! Read `run` next (start and stop), then `node`, `bootstrap`, `agent`, `service/kv`, `peer`.

mod admission;
mod agent;
mod announce;
mod bootstrap;
mod config;
mod data_dir;
mod disk;
mod durable;
mod error;
mod fatal;
mod handshake;
mod join;
mod listeners;
mod member;
mod node;
mod open_files;
mod operations;
mod ops;
mod peer;
mod propose;
mod readiness;
mod reconciler;
mod refusal;
mod reporters;
mod run;
mod service;
mod telemetry;
mod throttle;
mod topology_feed;
mod topology_watch;

pub use config::{Limits, NodeConfig, WEIGHT_DEFAULT};
pub use data_dir::DataDirError;
pub use error::NodeError;
pub use fatal::stop_on_panic;
pub use run::run;

/// The version of this build, which nodes tell whoever asks: one with seeded bugs can be told from a release.
pub const VERSION: &str =
    if cfg!(feature = "bugs") { concat!(env!("CARGO_PKG_VERSION"), "+bugs") } else { env!("CARGO_PKG_VERSION") };
