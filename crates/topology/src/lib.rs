//! The topology group: the state machine that is the cluster itself. Its identity, its nodes, its shard map, its replica ids.
//!
//! This crate decides what a change of the cluster means; it is pure code over records. It knows no Raft, no socket and no
//! task: group 0 is a Raft group like every other, and this is what its log says.
//!
//! ```text
//!   plan_bootstrap ─→ Command::Bootstrap ─┐
//!   node asks for an id ─────────────┤→ group 0's log ─→ TopologyMachine ─→ ClusterState::apply ─→ (Outcome, changes)
//!   planner's wishes ────────────────┘                        │                                          │
//!                                            Published ←──────┴── records in Space::Table ←──────────────┘
//!                                               │
//!                        what the node acts on and clients route by: types::topology::Topology
//! ```
//!
//! The map is a hint. What is true of a shard is in the shard's own log; `reconcile` plans how the one becomes the other.
//!
//! Read `cluster` next, then `bootstrap`, `operations`, `moves`, `machine`, `reconcile`.

mod bootstrap;
mod keys;
mod limits;
mod machine;
mod names;
mod publish;
mod reconcile;
mod record;
mod state;

pub use bootstrap::{BootstrapError, SHARDS_MAX, bootstrap_shards, plan_bootstrap};
pub use limits::{
    DescriptionError, NODES_MAX, OPERATIONS_KEPT_MAX, OPERATIONS_RUNNING_MAX, PLAN_MOVES_MAX, ZONE_BYTES_MAX,
};
pub use machine::{TopologyMachine, read_cluster};
pub use publish::Published;
pub use reconcile::{MOVES_PER_NODE_MAX, NodeReports, Plan, Progress, Reports, Step, plan, possible_moves};
pub use record::{Change, Counters, Record};
pub use state::ClusterState;
