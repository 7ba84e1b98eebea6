//! The cluster under test: five nodes (or any number) as separate processes with their own addresses and disks, which can be
//! killed, paused, cut off, and have their power cut.
//!
//! Nodes are numbered from 1 by their *place*: address, disk and log of a place stay, whoever lives there. Methods take `&self`,
//! so that a nemesis and a workload share one cluster.
//!
//! ```text
//!   Cluster ──► Node       a process, its signals, how it ended          node
//!           ──► network    namespaces + nftables | proxies on loopback    namespaces, proxies; what it is to do: links
//!           ──► Disk       an ext4 image: power, space, freezing          disks
//!           ──► Scratch    everything that must be taken away again       scratch
//! ```
//!
//! Faults are made of these parts in `nemesis`. Read `node` next.

mod admin;
pub(crate) mod clock;
mod delays;
mod disks;
mod life;
mod links;
mod namespaces;
mod node;
mod options;
mod proxies;
mod scratch;
mod threads;
mod tool;
mod wires;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use quorate_client::Client;
use tokio::runtime::Runtime;
use tokio::task::JoinError;

pub(crate) use admin::leaders_of;
pub use admin::{Said, Verified};
pub(crate) use disks::Ballast;
pub use disks::Disk;
pub use links::{Delay, Link, Rules};
use namespaces::{Namespaces, node_address};
pub use node::{Ended, Node};
pub use options::{Abilities, Clocks, Disks, Network, Options, binary};
use proxies::Proxies;
use scratch::Scratch;
pub use scratch::sweep;
pub use threads::ClientRuntime;
use wires::Wires;

/// How long a whole cluster may take to serve after a start: ten times what it should.
const SERVING_MAX: Duration = Duration::from_secs(60);
/// The ports of a node that has an address of its own.
const PORTS: [u16; 3] = [7100, 7101, 7102];
/// Keys written per shard to see that all serve: enough that each surely gets one.
const PROBES_PER_SHARD: u32 = 8;

/// A cluster of real processes. Whatever it made on the machine goes when it is dropped, also in a panic; [`Cluster::dismantle`]
/// does the same and reports what went wrong. Only a process that is killed leaves something, for the next [`sweep`].
pub struct Cluster {
    options: Options,
    nodes: Vec<Node>,
    disks: Vec<Disk>,
    /// There once the cluster is prepared.
    network: Option<Wires>,
    scratch: Scratch,
    /// Its one thread lives in the harness's namespace, asks the nodes, and is the parent of all their processes.
    control: Option<Runtime>,
    dismantled: AtomicBool,
}

impl Cluster {
    /// Starts the nodes and founds the cluster; returns when every shard takes writes. Sweeps first what dead runs left.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        options.check()?;
        sweep().await?;
        let cluster = Self::prepare(options).await?;
        let initial_replicas: Vec<usize> = (1..=cluster.options.nodes).collect();
        cluster.start_all(&initial_replicas).await?;
        cluster.found().await?;
        Ok(cluster)
    }

    /// Makes addresses and disks; starts nothing.
    async fn prepare(options: Options) -> anyhow::Result<Self> {
        let scratch = Scratch::claim()?;
        let places = options.nodes + options.spares;
        // From here on there is something to take away, whatever goes wrong.
        let mut cluster = Cluster {
            nodes: vec![],
            disks: vec![],
            network: None,
            scratch,
            control: None,
            dismantled: AtomicBool::new(false),
            options,
        };
        let namespaces = match cluster.options.network {
            Network::Namespaces => Some(Namespaces::create(&cluster.scratch.tag, places).await?),
            Network::Loopback => None,
        };
        let control = namespaces.as_ref().map(Namespaces::of_control);
        cluster.control = Some(threads::runtime("control", 1, control)?);
        if let Disks::Images { mib } = cluster.options.disks {
            let template = disks::template(&cluster.scratch.dir, mib).await?;
            for number in 1..=places {
                let disk = Disk::create(&cluster.scratch.dir, &cluster.scratch.tag, number, &template).await?;
                cluster.disks.push(disk);
            }
            std::fs::remove_file(template)?;
        }
        for number in 1..=places {
            let node = cluster.place(number)?;
            cluster.nodes.push(node);
        }
        cluster.network = Some(match namespaces {
            Some(namespaces) => Wires::Namespaces(namespaces),
            None => {
                let targets = cluster.nodes.iter().map(|node| node.peer.clone()).collect();
                let proxies = cluster.on_control(Proxies::start(targets)).await??;
                for node in &mut cluster.nodes {
                    node.advertised_peer = proxies.address(node.number);
                }
                Wires::Loopback(proxies)
            }
        });
        Ok(cluster)
    }

    fn place(&self, number: usize) -> anyhow::Result<Node> {
        let [client, peer, ops] = match self.options.network {
            Network::Namespaces => PORTS.map(|port| format!("{}:{port}", node_address(number))),
            Network::Loopback => free_ports()?.map(|port| format!("127.0.0.1:{port}")),
        };
        let data_dir = match self.disks.get(number - 1) {
            Some(disk) => disk.mount_point().join("data"),
            None => self.scratch.dir.join(format!("n{number}")),
        };
        let log = self.options.dir.join(format!("n{number}.log"));
        let advertised_peer = peer.clone();
        Ok(Node { number, client, peer, advertised_peer, ops, data_dir, log, state: Default::default() })
    }

    async fn found(&self) -> anyhow::Result<()> {
        let nodes = self.endpoints().join(",");
        let (replicas, shards) = (self.options.replicas.to_string(), self.options.shards.to_string());
        let init = ["cluster", "init", "--nodes", &nodes, "--replicas", &replicas, "--shards", &shards];
        let said = self.run(&init).await?;
        ensure!(said.code == Some(0), "cluster init: {}", said.error.trim());
        self.wait_until_serving(SERVING_MAX).await?;
        self.statuses().await;
        Ok(())
    }

    /// Waits until every shard takes writes, by writing keys that begin with `jepsen-probe-`.
    pub async fn wait_until_serving(&self, within: Duration) -> anyhow::Result<()> {
        let (endpoints, probes) = (self.endpoints(), self.options.shards * PROBES_PER_SHARD);
        let probe = async move {
            let client = Client::builder().endpoints(endpoints).deadline(within).connect().await?;
            for number in 0..probes {
                client.put(format!("jepsen-probe-{number}"), "serving").await?;
            }
            anyhow::Ok(())
        };
        let probed = self.on_control(async move { tokio::time::timeout(within, probe).await }).await?;
        let probed = probed.context("no time left").and_then(|probed| probed);
        probed.context("the cluster does not serve").with_context(|| self.node(1).log_tail())
    }

    /// All places, those of the initial nodes first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A place (numbered from 1).
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    /// The disk of a place, where disks are images.
    pub fn disk(&self, number: usize) -> Option<&Disk> {
        self.disks.get(number - 1)
    }

    /// What the cluster was started with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The client addresses of the initial nodes' places, for clients and `--endpoints`.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes[..self.options.nodes].iter().map(|node| node.client.clone()).collect()
    }

    /// A runtime whose threads live where the clients do. Only what is *spawned* on it does: the thread that calls `block_on`
    /// stays where it is.
    pub fn client_runtime(&self, threads: usize) -> anyhow::Result<ClientRuntime> {
        let namespace = self.namespaces().map(Namespaces::of_clients);
        Ok(ClientRuntime::new(threads::runtime("clients", threads, namespace)?))
    }

    /// A command that runs where the clients do, such as the shortener.
    pub fn client_command(&self) -> anyhow::Result<tokio::process::Command> {
        self.command(self.namespaces().map(Namespaces::of_clients))
    }

    /// Runs something where a node lives, on a thread of its own: its sockets are in the node's namespace.
    pub async fn at_node<T, F>(&self, number: usize, work: F) -> anyhow::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        match self.namespaces() {
            Some(namespaces) => threads::visit(namespaces.of_node(number), work).await,
            None => Ok(tokio::task::spawn_blocking(work).await?),
        }
    }

    pub(crate) fn namespaces(&self) -> Option<&Namespaces> {
        match &self.network {
            Some(Wires::Namespaces(namespaces)) => Some(namespaces),
            _ => None,
        }
    }

    /// The file that says how wrong the clock of a place is.
    pub(crate) fn clock_file(&self, number: usize) -> PathBuf {
        self.scratch.dir.join(format!("n{number}.clock"))
    }

    /// Runs something where the harness's own questions come from.
    pub(crate) async fn on_control<F>(&self, work: F) -> Result<F::Output, JoinError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.control.as_ref().expect("there until the cluster is dropped").spawn(work).await
    }

    /// Kills everything and takes away what was made: mounts, loop devices, namespaces, control groups, files. Logs stay.
    pub async fn dismantle(&self) -> anyhow::Result<()> {
        if self.dismantled.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.scratch.erase().await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.dismantled.load(Ordering::SeqCst) {
            let cluster = &*self;
            // A thread of its own: this one may be in the middle of a runtime.
            let erased = std::thread::scope(|scope| {
                scope.spawn(|| threads::runtime("dismantle", 1, None)?.block_on(cluster.dismantle())).join()
            });
            if !matches!(erased, Ok(Ok(()))) {
                eprintln!("quorate-jepsen: not everything of {} could be taken away: {erased:?}", self.scratch.tag);
            }
        }
        if let Some(control) = self.control.take() {
            control.shutdown_background();
        }
    }
}

/// Three ports of loopback that were free a moment ago, below the range that outgoing connections use. Given out one after the
/// other, from where this process begins: of ports drawn at random, two nodes sometimes had the same one.
fn free_ports() -> anyhow::Result<[u16; 3]> {
    const TRIES: usize = 1000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let mut ports = Vec::new();
    for _ in 0..TRIES {
        let taken = std::process::id().wrapping_mul(100).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(10_000 + taken % 20_000)?;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            ports.push(port);
        }
        if let [client, peer, ops] = ports[..] {
            return Ok([client, peer, ops]);
        }
    }
    anyhow::bail!("no free ports on loopback")
}
