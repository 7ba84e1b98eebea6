//! The wire: generated code of `proto/`, and the conversions between it and the vocabulary of `types`.
//!
//! Wire types stop at the services (`node`) and at the connections (`router`): everything between speaks `types`.

/// The client protocol, `quorate.kv.v1`.
#[allow(missing_docs, clippy::all)]
pub mod kv {
    tonic::include_proto!("quorate.kv.v1");
}

/// What operators and clients ask of a node beside data, `quorate.admin.v1`.
#[allow(missing_docs, clippy::all)]
pub mod admin {
    tonic::include_proto!("quorate.admin.v1");
}

/// What nodes say to each other, `quorate.peer.v1`.
#[allow(missing_docs, clippy::all)]
pub mod peer {
    tonic::include_proto!("quorate.peer.v1");
}

mod convert;

pub use convert::WireError;

/// The encoded descriptors of all protocols, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The only version of the client and peer protocols so far.
pub const WIRE_VERSION: u32 = 1;

/// The largest gRPC message that either side accepts, in bytes: a frame of the largest values stays below it.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;
