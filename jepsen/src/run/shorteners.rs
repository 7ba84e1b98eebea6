//! Shortener processes beside the cluster, where its clients are.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

/// How long a shortener may take until it listens.
const LISTEN_MAX: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Processes that end when this is dropped.
#[derive(Default)]
pub(super) struct Shorteners {
    /// Where they listen.
    pub(super) addresses: Arc<[String]>,
    processes: Vec<Child>,
}

impl Shorteners {
    /// Starts so many. `command` makes a command of the binary that runs where the clients do, whose runtime is `clients`.
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

    /// Those that ended, and how. No fault is meant for them: each is a bug.
    pub(super) fn ended(&mut self) -> Vec<String> {
        let ended = self.processes.iter_mut().filter_map(|process| process.try_wait().ok().flatten());
        ended.map(|status| format!("a shortener ended by itself: {status}")).collect()
    }
}

async fn listening(address: String) -> anyhow::Result<()> {
    let deadline = Instant::now() + LISTEN_MAX;
    while tokio::net::TcpStream::connect(&address).await.is_err() {
        ensure!(Instant::now() < deadline, "the shortener at {address} does not listen; see its log");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// An address of loopback that was free a moment ago.
fn free_address() -> std::io::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
