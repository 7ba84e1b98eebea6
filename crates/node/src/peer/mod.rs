//! The connections to other nodes: Raft's transport and the control plane's calls, over gRPC.
//!
//! ```text
//!   send(message) → queue ─ drain ─→ one frame ──control connection──→ Frames ─→ groups.receive
//!                 → queue ─ drain ─→ one frame ──bulk connection─────→ Frames ─→       "
//!   send_snapshot(files) ─ limiter ─ chunks ──own connection───────→ Snapshot ─→ stage, install
//! ```
//!
//! A connection carries messages one way: each node opens its own to every other node, and answers
//! return on the other node's.

mod calls;
mod client;
mod connection;
mod lane;
mod link;
mod peers;
mod snapshots_in;
mod snapshots_out;
mod transport;

pub(crate) use calls::proposed_to_wire;
pub(crate) use client::{PeerCaller, get_node};
pub(crate) use connection::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
pub(crate) use peers::GrpcPeers;
pub(crate) use snapshots_in::{Staging, Unstaged};
pub(crate) use transport::PeerTransport;
