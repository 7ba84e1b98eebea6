//! Keys to tokens, tokens to shards, shards to proposed replicas: pure functions without a clock, a
//! socket or a disk.
//!
//! This crate is the only one that knows hashring. It decides nothing: the shard map of the
//! topology group says where replicas should be, and a shard's own log says where they are. This
//! crate has the functions that all processes must compute alike (tokens, look-ups), and the
//! proposal from which the map is made.
//!
//! ```text
//!   key ──token()──→ Token ──ArcTable::lookup()──→ ShardId              every request
//!
//!   nodes ─→ points (512 a node, on the ring) ─→ every shard's walk     once per change
//!                                                   │
//!            zones, load bound ─────────────────→ place() ─→ shard → nodes, preferred leader first
//!                                                   │
//!            the map as it is ──────────────────→ rebalance() ─→ the moves that it needs
//! ```
//!
//! Golden tests freeze both: with another token every key would be lost, and with another placement
//! the initial nodes of one cluster would disagree.
//!
//! Read `token` next, then `arcs`, `place`, `rebalance`.

mod arcs;
mod assign;
mod candidate;
mod leaders;
mod place;
mod points;
mod rebalance;
mod token;
mod zones;

pub use arcs::{ArcError, ArcTable};
pub use candidate::{Candidate, WEIGHT_MAX};
pub use place::{PlacementError, PlacementRequest, place};
pub use rebalance::{Move, MoveReason, rebalance};
pub use token::{equal_arcs, token};
