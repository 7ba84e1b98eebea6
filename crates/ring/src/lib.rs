//! Keys to tokens, tokens to shards, shards to proposed replicas: pure functions, without a clock, a socket or a disk.
//!
//! This crate is the only one that knows hashring. It decides nothing: the shard map in group 0 says where replicas should
//! be, and a shard's own log says where they are. What is here is what everybody must compute alike (tokens, lookups), and
//! the proposal that the map is made from.
//!
//! ```text
//!   key ──token()──→ Token ──ArcTable::lookup()──→ ShardId            every request
//!
//!   nodes ─→ points (512 a node, on the ring) ─→ every shard's walk   once per change of the cluster
//!                                                   │
//!            zones, load bound ─────────────────→ place() ─→ shard → nodes, preferred leader first
//!                                                   │
//!            the map as it is ──────────────────→ rebalance() ─→ the moves that it needs
//! ```
//!
//! Both are frozen by golden tests: another token would lose every key, and another placement would make initial nodes of one
//! cluster disagree.
//!
//! Read `token` next, then `arcs`, `place`, `rebalance`.

mod arcs;
mod assign;
mod leaders;
mod place;
mod points;
mod rebalance;
mod token;
mod zones;

pub use arcs::{ArcError, ArcTable};
pub use place::{Candidate, PlacementError, PlacementRequest, WEIGHT_MAX, place};
pub use rebalance::{Move, MoveReason, rebalance};
pub use token::{equal_arcs, token};
