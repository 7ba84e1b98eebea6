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
//!       └─ founding, join                                how a node comes into a cluster
//! ```
//!
//! Read `run` next (start and stop), then `node`, `founding`, `agent`, `service/kv`, `peer`.

mod config;
mod error;
mod run;
mod listeners;
mod data_dir;
mod durable;
mod node;
mod member;
mod founding;
mod join;
mod propose;
mod topology_feed;
mod topology_watch;
mod announce;
mod agent;
mod service;
mod peer;
mod handshake;
mod refusal;
mod admission;
mod disk;
mod readiness;
mod ops;
mod telemetry;
mod fatal;

pub use config::{Limits, NodeConfig, WEIGHT_DEFAULT};
pub use data_dir::DataDirError;
pub use error::NodeError;
pub use run::run;
