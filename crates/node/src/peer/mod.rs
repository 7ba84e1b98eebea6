//! The connections to other nodes: Raft's transport and the control plane's calls, over gRPC.
//!
//! ```text
//!   send(message) → queue ─ drain ─→ one frame ──control connection──→ Frames ─→ groups.receive
//!                 → queue ─ drain ─→ one frame ──bulk connection─────→ Frames ─→       "
//!   ping ──────────────────────────────control connection──→ Ping ─→ pings::answer
//!   send_snapshot(header) ────────────────────own connection───────→ Snapshot ─→ reserve
//!     accepted: files ─ limiter ─ chunks ─────       "       ───────→    "     ─→ stage, install
//! ```
//!
//! A connection carries messages one way: each node opens its own to every other node, and answers
//! return on the other node's.

mod answer;
mod calls;
mod client;
mod connection;
mod frames;
mod lane;
mod link;
mod open_callers;
mod peers;
mod snapshots_in;
mod snapshots_out;
mod status;
mod transport;

pub(crate) use calls::{executed_to_wire, proposed_to_wire};
pub(crate) use client::PeerCaller;
pub(crate) use connection::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
pub(crate) use peers::GrpcPeers;
pub(crate) use snapshots_in::{Part, Staged, Staging, Unstaged};
pub(crate) use status::{get_node, get_nodes};
pub(crate) use transport::PeerTransport;
