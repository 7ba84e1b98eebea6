//! The state machine of the topology group, and the planner of its reconciler. The topology group
//! is the Raft group whose state is the cluster itself: identity, nodes, shard map, replica ids,
//! operations.
//!
//! This crate is pure code over records: it decides the effect of each command. It knows no Raft,
//! no socket and no task. Replication is the business of `quorate_raft`, execution that of the
//! control plane.
//!
//! ```text
//!   plan_bootstrap ─→ Command::Bootstrap ─┐
//!   node registers ───────────────────────┼─→ log ─→ TopologyMachine ─→ ClusterState::apply
//!   operator, planner ────────────────────┘                │                   │
//!                                                          │          (Outcome, changes)
//!                     Published ←── records in Space::Table ←──────────────────┘
//!                         │
//!     nodes act on it, clients route by it: types::topology::Topology
//! ```
//!
//! The map is a hint, because the members of a shard are decided in the shard's own log.
//! `reconcile` plans the steps that bring both together.
//!
//! Read `state` next, then `bootstrap`, `machine`, `reconcile`.

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
pub use reconcile::{
    MOVES_PER_NODE_MAX, NoSpace, NodeReports, Plan, Progress, Reports, Step, check_room, plan, possible_moves,
};
pub use record::{Change, Counters, Record};
pub use state::ClusterState;
