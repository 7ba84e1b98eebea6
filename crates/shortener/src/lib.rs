//! A URL shortener on Quorate: the HTTP front end, and the first application on top of the store.
//!
//! ```text
//!   POST /v1/urls {"long_url"}   http ─► target (is it a URL that we may send people to?)
//!                                     ─► create (a random code, put-if-absent, another code on a collision) ─► links
//!   GET  /{code}                 http ─► cache (moka, single-flight) ─► links: eventual, then strong before it says 404
//! ```
//!
//! It talks only to [`quorate_client`], through the small trait [`Links`]. What it deliberately is not: it keeps no data of its
//! own (the cache may be lost at any time), it never looks at a target's content, and it never normalises one: a code
//! redirects to exactly the text that was posted.
//!
//! A `201` means that the link is durable on a majority of its shard's replicas. A code of a write with an unknown outcome
//! is never handed out.
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
