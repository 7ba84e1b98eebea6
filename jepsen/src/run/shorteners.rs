//! Shortener processes in the clients' namespace.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

use super::files::LOGS;
use super::subject::Subject;
use crate::workload::Workload;

/// The longest time until a shortener listens.
const LISTEN_MAX: Duration = Duration::from_secs(30);
/// The pause between two attempts to connect.
const POLL: Duration = Duration::from_millis(20);

/// Running shorteners. Dropping this kills them.
#[derive(Default)]
pub(super) struct Shorteners {
    /// The addresses on which they listen.
    pub(super) addresses: Arc<[String]>,
    processes: Vec<Child>,
}

impl Shorteners {
    /// Starts `count` shorteners. `command` returns a command of the binary in the clients'
    /// namespace, and `clients` is a runtime there.
    pub(super) async fn start(
        count: usize,
        command: impl Fn() -> anyhow::Result<Command>,
        endpoints: &[String],
        log: &Path,
        clients: &Handle,
    ) -> anyhow::Result<Self> {
        let (mut addresses, mut processes) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let address = clients.spawn(async { free_address() }).await??;
            let log = std::fs::File::options().create(true).append(true).open(log)?;
            let mut command = command()?;
            command.args(["shortener", "--listen", &address, "--endpoints", &endpoints.join(",")]);
            command.args(["--log-level", "error"]);
            command.env("QUORATE_DIE_WITH_PARENT", std::process::id().to_string());
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
            processes.push(clients.spawn(async move { command.spawn() }).await?.context("starting a shortener")?);
            addresses.push(address);
        }
        for address in &addresses {
            let address = address.clone();
            clients.spawn(listening(address)).await??;
        }
        Ok(Shorteners { addresses: addresses.into(), processes })
    }

    /// The exit status of shorteners that ended by themselves. No fault affects them, so each is a
    /// bug.
    pub(super) fn ended(&mut self) -> Vec<String> {
        let ended = self.processes.iter_mut().filter_map(|process| process.try_wait().ok().flatten());
        ended.map(|status| format!("a shortener ended by itself: {status}")).collect()
    }
}

/// Starts as many shorteners as the most demanding workload needs.
pub(super) async fn for_workloads(
    subject: &Subject,
    workloads: &[Arc<dyn Workload>],
    dir: &Path,
) -> anyhow::Result<Shorteners> {
    let count = workloads.iter().map(|workload| workload.shorteners()).max().unwrap_or(0);
    Shorteners::start(count, || subject.command(), &subject.endpoints, &log_file(dir), subject.clients()).await
}

/// The log of all shorteners of a run.
pub(super) fn log_file(dir: &Path) -> PathBuf {
    dir.join(LOGS).join("shortener.log")
}

async fn listening(address: String) -> anyhow::Result<()> {
    let deadline = Instant::now() + LISTEN_MAX;
    while tokio::net::TcpStream::connect(&address).await.is_err() {
        ensure!(Instant::now() < deadline, "the shortener at {address} does not listen; see its log");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// A loopback address that was free a moment ago.
fn free_address() -> std::io::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
