//! Starts real clusters for tests: `quorate` processes on loopback with real data directories.
//! Tests kill, pause and restart them, and put proxies in front of them that lose replies.
//!
//! The binary comes from the profile that the tests were built with; `QUORATE_BIN` names another
//! one. Read [`Cluster`] first.

mod cluster;
mod http;
mod process;
mod proxy;

pub use cluster::{Cluster, ClusterOptions, NOTHING_LISTENS};
pub use http::{HttpClient, Response};
pub use process::{binary, quorate, run_cli, shared_file};
pub use proxy::Proxy;

use std::time::{Duration, Instant};

/// Polls `done` every 20 ms until it returns true. Fails after `within`; the error names `event`.
pub async fn eventually<F, Fut>(event: &str, within: Duration, mut done: F) -> anyhow::Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = Instant::now() + within;
    while !done().await {
        anyhow::ensure!(Instant::now() < deadline, "{event}: not within {} s", within.as_secs_f32());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
