//! The gRPC services of a node: this is where wire types end.

mod admin;
mod callers;
mod kv;
mod metrics;
mod pages;
mod peer;
mod replies;
mod snapshot;

pub(crate) use admin::AdminService;
pub(crate) use kv::KvService;
pub(crate) use peer::PeerService;
