//! Starts real clusters for tests: processes of the `quorate` binary on loopback, with real data directories, that can be
//! killed, paused and started again, and proxies before them that lose replies.
//!
//! The binary is the one of the profile that the tests were built with; `QUORATE_BIN` names another one.

mod cluster;
mod http;
mod process;
mod proxy;

pub use cluster::{Cluster, ClusterOptions};
pub use http::{HttpClient, Response};
pub use process::{binary, quorate, run_cli, shared_file};
pub use proxy::Proxy;

use std::time::{Duration, Instant};

/// Waits until `done` says so, asking again every 20 ms. An error after `within` names what was waited for.
pub async fn eventually<F, Fut>(what: &str, within: Duration, mut done: F) -> anyhow::Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = Instant::now() + within;
    while !done().await {
        anyhow::ensure!(Instant::now() < deadline, "{what}: not within {} s", within.as_secs_f32());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
