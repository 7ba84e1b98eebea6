//! One cluster of a comparison, as child processes: three nodes of a quorate binary, or three
//! members of etcd.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::plan::{Load, Measurement, Plan};
use crate::failure::{Exit, Failure};

/// How long a cluster may take to start serving.
const START_MAX: Duration = Duration::from_secs(120);
/// How often a starting cluster is checked.
const START_POLL: Duration = Duration::from_millis(200);
/// How long a cluster may take to stop before it is killed.
const STOP_MAX: Duration = Duration::from_secs(30);
/// The time that a measurement may take beyond its warm-up and window: for writing the keys, and
/// for operations that hang at the end.
const MEASUREMENT_SLACK: Duration = Duration::from_secs(90);
/// The number of nodes, or etcd members, of a cluster.
const NODES: u16 = 3;

/// The program that a cluster runs.
#[derive(Clone, Debug)]
pub(super) enum Program {
    /// A quorate binary.
    Quorate(PathBuf),
    /// `etcd` from PATH.
    Etcd,
}

impl FromStr for Program {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "etcd" { Program::Etcd } else { Program::Quorate(text.into()) })
    }
}

impl fmt::Display for Program {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Program::Quorate(binary) => write!(to, "{}", binary.display()),
            Program::Etcd => to.write_str("etcd"),
        }
    }
}

/// A running cluster.
///
/// # Invariants
/// * Its processes are children of this process and end with it.
pub(super) struct Contender {
    /// The binary that drives the load: the cluster's own binary, or this one for etcd.
    client: PathBuf,
    target: &'static str,
    endpoints: String,
    children: Vec<Child>,
}

/// The part of `bench kv -o json` that a comparison needs.
#[derive(Deserialize)]
struct Report {
    throughput: f64,
    p99_ms: f64,
}

impl Contender {
    /// Starts the cluster and waits until it serves.
    pub(super) async fn start(program: &Program, dir: PathBuf, port_base: u16) -> Result<Self, Failure> {
        std::fs::create_dir_all(&dir)
            .map_err(|error| Failure::new(Exit::Other, format!("cannot make {}", dir.display())).cause(error))?;
        match program {
            Program::Quorate(binary) => Self::start_quorate(binary, &dir, port_base).await,
            Program::Etcd => Self::start_etcd(&dir, port_base).await,
        }
    }

    async fn start_quorate(binary: &Path, dir: &Path, port_base: u16) -> Result<Self, Failure> {
        let (ready, log) = (dir.join("ready"), dir.join("output"));
        let mut command = Command::new(binary);
        command.args(["playground", "--direct", "--no-shortener", "--port-base", &port_base.to_string()]);
        command.arg("--dir").arg(dir.join("data")).arg("--ready-file").arg(&ready);
        let child = spawn(command, &log)?;
        let endpoints = (0..NODES).map(|node| format!("127.0.0.1:{}", port_base + 10 * node));
        let mut contender = Contender {
            client: binary.to_owned(),
            target: "quorate",
            endpoints: endpoints.collect::<Vec<_>>().join(","),
            children: vec![child],
        };
        let deadline = Instant::now() + START_MAX;
        while !ready.exists() {
            contender.check_runs(&log)?;
            if Instant::now() > deadline {
                return Err(not_ready(&log));
            }
            sleep(START_POLL).await;
        }
        Ok(contender)
    }

    async fn start_etcd(dir: &Path, port_base: u16) -> Result<Self, Failure> {
        let client_url = |member: u16| format!("http://127.0.0.1:{}", port_base + 10 * member);
        let peer_url = |member: u16| format!("http://127.0.0.1:{}", port_base + 10 * member + 1);
        let members: Vec<String> = (0..NODES).map(|member| format!("e{member}={}", peer_url(member))).collect();
        let log = dir.join("output");
        let mut children = Vec::new();
        for member in 0..NODES {
            let mut command = Command::new("etcd");
            command.args(["--name", &format!("e{member}"), "--log-level", "error"]);
            command.arg("--data-dir").arg(dir.join(format!("member-{member}")));
            command.args(["--listen-client-urls", &client_url(member), "--advertise-client-urls", &client_url(member)]);
            command.args(["--listen-peer-urls", &peer_url(member), "--initial-advertise-peer-urls", &peer_url(member)]);
            command.args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new"]);
            children.push(spawn(command, &log)?);
        }
        let client = std::env::current_exe()
            .map_err(|error| Failure::new(Exit::Other, "cannot find this binary").cause(error))?;
        let endpoints = (0..NODES).map(|member| format!("127.0.0.1:{}", port_base + 10 * member));
        let endpoints = endpoints.collect::<Vec<_>>().join(",");
        let mut contender = Contender { client, target: "etcd", endpoints, children };
        let probe = Plan { rounds: 1, seconds: 1, warm_up: Duration::ZERO, value_bytes: 8, keys: 1 };
        let deadline = Instant::now() + START_MAX;
        while contender.measure(&probe, Load::FIRST).await.is_err() {
            contender.check_runs(&log)?;
            if Instant::now() > deadline {
                return Err(not_ready(&log));
            }
            sleep(START_POLL).await;
        }
        Ok(contender)
    }

    /// Returns an error if one of the processes has ended.
    fn check_runs(&mut self, log: &Path) -> Result<(), Failure> {
        for child in &mut self.children {
            if let Ok(Some(status)) = child.try_wait() {
                let failure = Failure::new(Exit::Other, format!("a cluster ended while it was starting: {status}"));
                return Err(failure.cause(tail(log)).hint("are its ports free?  --port-base chooses others"));
            }
        }
        Ok(())
    }

    /// Measures one load with a process of the client's binary.
    pub(super) async fn measure(&self, plan: &Plan, load: Load) -> Result<Measurement, Failure> {
        let mut command = Command::new(&self.client);
        command.args(["bench", "kv", "--target", self.target, "--endpoints", &self.endpoints, "-o", "json"]);
        command.args(["--op", load.op(), "--read", load.read(), "--clients", &load.clients.to_string()]);
        command.args(["--value", &plan.value_bytes.to_string(), "--keys", &plan.keys.to_string()]);
        command.args(["--seconds", &plan.seconds.to_string()]);
        command.args(["--warm-up", &format!("{}ms", plan.warm_up.as_millis())]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let failed = || Failure::new(Exit::Other, format!("cannot measure {load} on {}", self.endpoints));
        let within = plan.warm_up + Duration::from_secs(plan.seconds) + MEASUREMENT_SLACK;
        let output = timeout(within, command.output())
            .await
            .map_err(|_| failed().cause(format!("no result within {} s", within.as_secs())))?
            .map_err(|error| failed().cause(error))?;
        if !output.status.success() {
            return Err(failed().cause(String::from_utf8_lossy(&output.stderr).trim()));
        }
        let report: Report = serde_json::from_slice(&output.stdout).map_err(|error| failed().chain(&error))?;
        if report.throughput <= 0.0 || report.p99_ms <= 0.0 {
            return Err(failed().cause("no operation succeeded inside the window"));
        }
        Ok(Measurement { throughput: report.throughput, p99_ms: report.p99_ms })
    }

    /// Stops the cluster: SIGTERM, and SIGKILL for a process that takes too long.
    pub(super) async fn stop(mut self) {
        for child in &self.children {
            if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
                // The call fails if the process has already ended, which needs no signal.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        for child in &mut self.children {
            if timeout(STOP_MAX, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
    }
}

/// Starts a process whose output goes to a file and which ends with this one.
fn spawn(mut command: Command, log: &Path) -> Result<Child, Failure> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let failed = move |error| {
        Failure::new(Exit::Other, format!("cannot start '{program}'"))
            .cause(error)
            .hint("name a quorate binary, or install Debian's etcd-server")
    };
    let file = || std::fs::OpenOptions::new().create(true).append(true).open(log);
    let (output, errors) = (file().map_err(&failed)?, file().map_err(&failed)?);
    command.stdin(Stdio::null()).stdout(output).stderr(errors).kill_on_drop(true);
    command.spawn().map_err(failed)
}

fn not_ready(log: &Path) -> Failure {
    Failure::new(Exit::Unreachable, format!("a cluster did not serve within {} s", START_MAX.as_secs()))
        .cause(tail(log))
}

/// The last lines of a process's output.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    if lines.is_empty() {
        "it printed nothing".to_owned()
    } else {
        lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
    }
}
