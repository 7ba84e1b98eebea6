//! The control plane of a node, and the serving step of requests. A server runs it over gRPC, and
//! the simulation runs the same code over a simulated network.
//!
//! This crate deliberately has no sockets, no files, no wire types and no wall clock: they are
//! passed in as [`Peers`], [`Host`], [`Log`](quorate_machine::log::Log),
//! [`State`](quorate_machine::state::State) and [`Clock`](quorate_types::clock::Clock). All timers
//! are tokio's, so a paused clock moves them.
//!
//! ```text
//!   requests ─→ parts ─→ serve ─→ shard's raft group
//!
//!   topology ─→ feed ─→ agent        opens, destroys and starts this node's replicas
//!                ↑
//!               watch                asks other nodes for newer topologies
//!
//!   pings ─→ Peers::ping ─→ pings::answer on every node ─→ liveness: dead or alive?
//!
//!   reconciler ── reporters ─→ Peers::report ──→ orders::own_report on every node
//!     │   └────── order_book ─→ Peers::execute ─→ orders::execute   on the group's leader
//!     └ where this node leads the topology group
//!   proposer ───→ Peers::propose ─→ proposer::propose_here          on the topology leader
//!   throttle ← foreground ← serve    snapshots give way to clients
//! ```
//!
//! Read [`plane`] next, then [`serve`], `agent`, `reconciler`.

pub mod plane;

pub mod feed;
pub mod host;
pub mod peers;
pub mod shards;
pub mod store;
mod topology_group;

mod admission;
pub mod parts;
pub mod serve;

mod agent;
pub mod proposer;
pub mod watch;

mod dead;
pub mod liveness;
mod ping_table;
pub mod pings;

mod fail_points;
mod order_book;
pub mod orders;
pub mod progress;
mod reconciler;
pub mod reporters;
pub mod term_gate;
mod transfers;

pub mod foreground;
pub mod throttle;

mod loops;

pub use feed::{ClusterMap, TopologyFeed};
pub use host::{Host, Vitals};
pub use loops::loops;
pub use peers::{PeerAddress, PeerError, Peers, Proposed};
pub use plane::Plane;
pub use proposer::{ProposeError, Proposer};
pub use serve::{Answer, Server};
pub use store::Store;
