//! The network between nodes: the transport that Raft asks for, over gRPC.
//!
//! ```text
//!   send(to, lane, message) → queue ─ drain ─→ one frame ──control connection──→ Frames ─→ groups.receive(from, message)
//!                           → queue ─ drain ─→ one frame ──bulk connection─────→ Frames ─→       "
//!   send_snapshot(files) ─ pace ─ chunks ──────connection of its own──────────→ Snapshot ─→ stage, verify, install
//! ```
//!
//! A connection goes one way: each node opens its own to every other node, and the answers come back on the other's.

mod client;
mod connection;
mod lane;
mod link;
mod server;
mod snapshots_in;
mod snapshots_out;
mod transport;

pub(crate) use client::{PeerCaller, Proposed, get_node};
pub(crate) use connection::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
pub(crate) use server::PeerService;
pub(crate) use snapshots_in::Staging;
pub(crate) use transport::PeerTransport;
