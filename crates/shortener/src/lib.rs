//! A URL shortener on Quorate: an HTTP front end, and an example of an application on the store.
//!
//! ```text
//!   POST /v1/urls {"long_url"}   http ─► target (is it a URL that may be redirected to?)
//!                                     ─► create (a random code, put-if-absent) ─► links
//!   GET  /{code}                 http ─► cache (moka, single-flight) ─► links
//!                                        (an eventual read, then a strong one before a 404)
//! ```
//!
//! It depends only on [`quorate_client`], through the small trait [`Links`]. It deliberately keeps
//! no data of its own (the cache may be lost at any time), never fetches a target, and never
//! normalises one: a code redirects to exactly the text that was posted.
//!
//! A `201` means that the link is durable on a majority of its shard's replicas. The code of a
//! write with an unknown outcome is never returned.
//!
//! Read `http` next.

mod cache;
mod code;
mod create;
mod http;
mod links;
mod problem;
mod server;
mod store;
mod target;

pub use code::{CODE_CHARS, Code};
pub use links::{Created, LinkError, Links};
pub use server::{Config, Error, serve};
pub use store::Store;
