//! The cluster's state: its records in memory, and pure deciders over them.
//!
//! ```text
//!   cluster      ClusterState: the records and look-ups of them
//!   apply        command → decision → changed records
//!   checks       the invariants, after every command
//!   nodes        registers and updates nodes
//!   moves        starts, finishes and cancels the move of a replica
//!   operations   starts operations
//!   completion   finishes and cancels operations
//!   intents      the conditions of operations on nodes: add, drain, undrain, remove, replace
//!   plans        the conditions of operations on named replicas: move, rebalance
//!   endings      the changes that end an operation
//!   held         the replicas that a node holds
//! ```
//!
//! A decider takes `&ClusterState` and returns the changes to make, or a refusal. It changes
//! nothing itself, so a refused command changes nothing.

mod apply;
mod checks;
mod cluster;
pub(crate) mod completion;
mod endings;
mod held;
mod intents;
pub(crate) mod moves;
mod nodes;
mod operation_refused;
mod operations;
pub(crate) mod plans;

pub use self::cluster::ClusterState;
pub(crate) use self::held::Held;
