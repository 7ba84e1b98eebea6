//! The wire: the generated code of `proto/`, and its conversions to and from the vocabulary of
//! `types`.
//!
//! ```text
//!   convert    levels, roles, records, conditions: the common parts of requests and replies
//!   request    KvRequest <-> kv::Request
//!   reply      Result<Served<KvAnswer>, Rejection> <-> kv::Reply
//!   map        shards, nodes, Topology <-> kv::Shard, admin::Topology
//!   operation  Intent, Operation, ReplicaMove <-> admin::…
//!   wrong_port a connection to a port that is no node's client port
//! ```
//!
//! Wire types stay in the services (`node`) and in the connections (`client`); all code between
//! them uses `types`.

/// The client protocol, `quorate.kv.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod kv {
    pub use v1::*;

    // Generated code refers to other packages by their full path.
    pub(crate) mod v1 {
        tonic::include_proto!("quorate.kv.v1");
    }
}

/// Administration and the map, `quorate.admin.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod admin {
    pub use v1::*;

    // Generated code refers to other packages by their full path.
    pub(crate) mod v1 {
        tonic::include_proto!("quorate.admin.v1");
    }
}

/// The protocol between nodes, `quorate.peer.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod peer {
    pub use v1::*;

    // Generated code refers to other packages by their full path.
    pub(crate) mod v1 {
        tonic::include_proto!("quorate.peer.v1");
    }
}

mod convert;
mod map;
mod operation;
mod reply;
mod request;
mod wrong_port;

#[cfg(test)]
mod tests;

pub use convert::WireError;
pub use reply::{reply_from_wire, reply_to_wire};
pub use request::request_from_wire;
pub use wrong_port::{WRONG_PORT, at_client_port};

/// The encoded descriptors of all protocols, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The only version of the client and peer protocols so far.
pub const WIRE_VERSION: u32 = 1;

/// The wire version for a client that speaks versions `min` to `max`; none: there is no common one,
/// and the client is refused.
pub fn negotiate(min: u32, max: u32) -> Option<u32> {
    (min..=max).contains(&WIRE_VERSION).then_some(WIRE_VERSION)
}

/// The largest gRPC message that either side accepts, in bytes. A frame of the largest values stays
/// below it.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;
