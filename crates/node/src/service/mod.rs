//! The client port. Wire types end here.

mod admin;
mod kv;
mod parts;
mod replies;
mod serve;

pub(crate) use admin::AdminService;
pub(crate) use kv::KvService;
