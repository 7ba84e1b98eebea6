//! A cluster of real processes.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use quorate_client::Client;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::Child;

use crate::process::{quorate, run_cli};
use crate::proxy::Proxy;

/// How long a cluster may take to serve after a start: ten times the usual time.
const SERVING_MAX: Duration = Duration::from_secs(60);

/// A client address at which nothing listens.
pub const NOTHING_LISTENS: &str = "127.0.0.1:1";

/// How a cluster is started.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Nodes.
    pub nodes: usize,
    /// Shards.
    pub shards: u32,
    /// Put a proxy in front of each node's client port, so that replies can be lost.
    pub proxied: bool,
    /// A node that advertises a client address at which nothing listens, so that only other nodes
    /// reach it by the topology.
    pub misadvertised: Option<usize>,
    /// Environment variables of every node.
    pub environment: Vec<(String, String)>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        ClusterOptions { nodes: 3, shards: 16, proxied: false, misadvertised: None, environment: vec![] }
    }
}

/// One node: its ports, and its process while it runs.
struct Node {
    client: u16,
    peer: u16,
    ops: u16,
    proxy: Option<Proxy>,
    data_dir: PathBuf,
    process: Option<Child>,
}

impl Node {
    /// The address that clients use.
    fn client_address(&self) -> String {
        match &self.proxy {
            Some(proxy) => proxy.address(),
            None => format!("127.0.0.1:{}", self.client),
        }
    }
}

/// A cluster of real processes. They are killed when it is dropped.
pub struct Cluster {
    nodes: Vec<Node>,
    options: ClusterOptions,
    dir: TempDir,
    shortener: Option<(String, Child)>,
}

impl Cluster {
    /// Starts the nodes and bootstraps the cluster; returns when every shard takes writes.
    pub async fn start(options: ClusterOptions) -> anyhow::Result<Self> {
        let mut cluster = Self::start_nodes(options).await?;
        cluster.init().await?;
        cluster.wait_until_serving().await?;
        Ok(cluster)
    }

    /// Bootstraps a cluster of the nodes.
    pub async fn init(&self) -> anyhow::Result<()> {
        let nodes = self.endpoints();
        let shards = self.options.shards.to_string();
        let replicas = self.options.nodes.min(3).to_string();
        let arguments = ["cluster", "init", "--nodes", &nodes, "--replicas", &replicas, "--shards", &shards];
        let init = run_cli(&nodes, &arguments).await?;
        ensure!(init.status.success(), "cluster init: {}", String::from_utf8_lossy(&init.stderr));
        Ok(())
    }

    /// Starts the nodes without bootstrapping a cluster.
    pub async fn start_nodes(options: ClusterOptions) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut nodes = Vec::new();
        for number in 1..=options.nodes {
            let (client, peer, ops) = (free_port()?, free_port()?, free_port()?);
            let proxy = if options.proxied { Some(Proxy::start(client).await?) } else { None };
            let data_dir = dir.path().join(format!("n{number}"));
            nodes.push(Node { client, peer, ops, proxy, data_dir, process: None });
        }
        let mut cluster = Cluster { nodes, options, dir, shortener: None };
        for number in 1..=cluster.nodes.len() {
            cluster.restart(number).await?;
        }
        Ok(cluster)
    }

    /// The client addresses of all nodes, for `--endpoints`.
    pub fn endpoints(&self) -> String {
        let all: Vec<String> = self.nodes.iter().map(Node::client_address).collect();
        all.join(",")
    }

    /// The client address of a node (numbered from 1).
    pub fn endpoint(&self, number: usize) -> String {
        self.nodes[number - 1].client_address()
    }

    /// The address of a node's peer port.
    pub fn peer(&self, number: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[number - 1].peer)
    }

    /// The address of a node's ops port.
    pub fn ops(&self, number: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[number - 1].ops)
    }

    /// A node's data directory.
    pub fn data_dir(&self, number: usize) -> &Path {
        &self.nodes[number - 1].data_dir
    }

    /// The proxy in front of a node.
    pub fn proxy(&self, number: usize) -> &Proxy {
        self.nodes[number - 1].proxy.as_ref().expect("the cluster was started with proxies")
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the cluster has no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A client of the whole cluster.
    pub async fn client(&self, deadline: Duration) -> anyhow::Result<Client> {
        let endpoints: Vec<String> = self.nodes.iter().map(Node::client_address).collect();
        Ok(Client::builder().endpoints(endpoints).deadline(deadline).connect().await?)
    }

    /// Kills a node's process with SIGKILL and waits until it is gone.
    pub async fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let mut process = self.nodes[number - 1].process.take().context("the node is not running")?;
        process.kill().await?;
        Ok(())
    }

    /// The process id of a running node.
    pub fn pid(&self, number: usize) -> Option<u32> {
        self.nodes[number - 1].process.as_ref().and_then(Child::id)
    }

    /// Whether a node's process has ended by itself. If so, the node can be restarted.
    pub fn has_died(&mut self, number: usize) -> anyhow::Result<bool> {
        let node = &mut self.nodes[number - 1];
        let ended = match &mut node.process {
            Some(process) => process.try_wait()?.is_some(),
            None => return Ok(false),
        };
        if ended {
            node.process = None;
        }
        Ok(ended)
    }

    /// Kills all nodes at the same instant.
    pub async fn kill_all(&mut self) -> anyhow::Result<()> {
        for node in &self.nodes {
            signal(node, Signal::KILL)?;
        }
        for number in 1..=self.nodes.len() {
            self.kill(number).await?;
        }
        Ok(())
    }

    /// Pauses a node's process (SIGSTOP).
    pub fn pause(&self, number: usize) -> anyhow::Result<()> {
        signal(&self.nodes[number - 1], Signal::STOP)
    }

    /// Resumes a paused process (SIGCONT).
    pub fn resume(&self, number: usize) -> anyhow::Result<()> {
        signal(&self.nodes[number - 1], Signal::CONT)
    }

    /// Asks a node to stop (SIGTERM) and returns its exit code.
    pub async fn stop(&mut self, number: usize) -> anyhow::Result<Option<i32>> {
        signal(&self.nodes[number - 1], Signal::TERM)?;
        let mut process = self.nodes[number - 1].process.take().context("the node is not running")?;
        let status =
            tokio::time::timeout(Duration::from_secs(60), process.wait()).await.context("the node did not stop")??;
        Ok(status.code())
    }

    /// Starts a stopped node on its old data directory.
    pub async fn restart(&mut self, number: usize) -> anyhow::Result<()> {
        let join = self.endpoints();
        let options = self.options.clone();
        let log =
            std::fs::File::options().create(true).append(true).open(self.dir.path().join(format!("n{number}.log")))?;
        let node = &mut self.nodes[number - 1];
        ensure!(node.process.is_none(), "node {number} is already running");
        let mut command = quorate()?;
        command.args(["node", "start", "--log-format", "text", "--join", &join]);
        command.arg("--data-dir").arg(&node.data_dir);
        command.args(["--client-listen", &format!("127.0.0.1:{}", node.client)]);
        command.args(["--peer-listen", &format!("127.0.0.1:{}", node.peer)]);
        command.args(["--ops-listen", &format!("127.0.0.1:{}", node.ops)]);
        let advertised = match options.misadvertised {
            Some(misadvertised) if misadvertised == number => NOTHING_LISTENS.to_owned(),
            _ => node.client_address(),
        };
        command.args(["--advertise-client", &advertised]);
        command.envs(options.environment).stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
        node.process = Some(command.spawn()?);
        let listening = ("127.0.0.1", node.client);
        crate::eventually("the node listens", SERVING_MAX, || async move {
            tokio::net::TcpStream::connect(listening).await.is_ok()
        })
        .await
        .with_context(|| self.log_tail(number))
    }

    /// Starts another node, which joins the cluster by itself. Returns its number, which is also
    /// its id if all earlier nodes are in the cluster.
    pub async fn add(&mut self) -> anyhow::Result<usize> {
        let number = self.nodes.len() + 1;
        let (client, peer, ops) = (free_port()?, free_port()?, free_port()?);
        let data_dir = self.dir.path().join(format!("n{number}"));
        self.nodes.push(Node { client, peer, ops, proxy: None, data_dir, process: None });
        self.restart(number).await?;
        Ok(number)
    }

    /// Waits until every shard takes writes, with enough keys to reach each shard.
    pub async fn wait_until_serving(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + SERVING_MAX;
        let client = self.client(SERVING_MAX).await?;
        for probe in 0..self.options.shards * 8 {
            let key = format!("probe-{probe}");
            client.put(&key, "serving").deadline(SERVING_MAX).await.with_context(|| self.log_tail(1))?;
            ensure!(Instant::now() < deadline, "the cluster is not serving");
        }
        Ok(())
    }

    /// Starts a shortener on the cluster and returns its address.
    pub async fn start_shortener(&mut self) -> anyhow::Result<String> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let log = std::fs::File::create(self.dir.path().join("shortener.log"))?;
        let mut command = quorate()?;
        command.args(["shortener", "--endpoints", &self.endpoints(), "--listen", &address]);
        command.stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
        self.shortener = Some((address.clone(), command.spawn()?));
        let listening = address.clone();
        crate::eventually("the shortener listens", SERVING_MAX, || {
            let listening = listening.clone();
            async move { tokio::net::TcpStream::connect(&listening).await.is_ok() }
        })
        .await?;
        Ok(address)
    }

    /// The address of the latest shortener.
    pub fn shortener_address(&self) -> Option<&str> {
        self.shortener.as_ref().map(|(address, _)| address.as_str())
    }

    /// A node's log, over all its starts.
    pub fn log(&self, number: usize) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("n{number}.log"))).unwrap_or_default()
    }

    /// The end of a node's log, for error messages.
    pub fn log_tail(&self, number: usize) -> String {
        const LINES: usize = 20;
        let log = self.log(number);
        let lines: Vec<&str> = log.lines().collect();
        format!("node {number}:\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"))
    }
}

fn signal(node: &Node, signal: Signal) -> anyhow::Result<()> {
    let process = node.process.as_ref().and_then(Child::id).context("the node is not running")?;
    let pid = Pid::from_raw(i32::try_from(process)?).context("a process has a pid")?;
    Ok(kill_process(pid, signal)?)
}

/// A port of loopback that was free a moment ago, below the range of outgoing connections. Each
/// process takes its ports in order from a block of its own: with random ports, one cluster in five
/// hundred had the same port twice.
fn free_port() -> anyhow::Result<u16> {
    const FIRST: u32 = 10_000;
    const BLOCKS: u32 = 200;
    const BLOCK: u32 = 100;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    for _ in 0..BLOCK {
        let within = TAKEN.fetch_add(1, Ordering::Relaxed) % BLOCK;
        let port = u16::try_from(FIRST + std::process::id() % BLOCKS * BLOCK + within)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no free port on loopback")
}
