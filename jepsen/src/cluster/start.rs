//! Starting a cluster: addresses, disks and network first, then the processes, then the bootstrap.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::disks::{self, Disk};
use super::namespaces::{Namespaces, node_address};
use super::network::Network;
use super::node::Node;
use super::options::{DiskKind, NetworkKind, Options};
use super::parts::Cluster;
use super::proxies::Proxies;
use super::scratch::{Scratch, sweep};
use super::threads;

/// The longest time from the start of a whole cluster until every shard serves: ten times the
/// usual.
const SERVING_MAX: Duration = Duration::from_secs(60);
/// The ports of a node that has an address of its own.
const PORTS: [u16; 3] = [7100, 7101, 7102];
/// Keys written per shard to see that all shards serve: enough that every shard gets at least one.
const PROBES_PER_SHARD: u32 = 8;

impl Cluster {
    /// Starts the nodes and bootstraps the cluster; returns when every shard accepts writes. First
    /// sweeps the leftovers of dead runs.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        options.check()?;
        sweep().await?;
        let cluster = Self::prepare(options).await?;
        let initial: Vec<usize> = (1..=cluster.options.nodes).collect();
        cluster.processes().start_all(&initial).await?;
        cluster.bootstrap().await?;
        Ok(cluster)
    }

    /// Creates addresses and disks; starts no process.
    async fn prepare(options: Options) -> anyhow::Result<Self> {
        let places = options.nodes + options.spares;
        // From here on the scratch directory must be erased, even if a later step fails: the drop
        // of `cluster` does it.
        let mut cluster = Cluster::empty(options, Scratch::claim()?);
        let namespaces = match cluster.options.network {
            NetworkKind::Namespaces => Some(Namespaces::create(&cluster.scratch.tag, places).await?),
            NetworkKind::Loopback => None,
        };
        let control = namespaces.as_ref().map(Namespaces::of_control);
        cluster.control = Some(threads::runtime("control", 1, control)?);
        if let DiskKind::Images { mib } = cluster.options.disks {
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
            Some(namespaces) => Network::of_namespaces(namespaces),
            None => {
                let targets = cluster.nodes.iter().map(|node| node.peer.clone()).collect();
                let proxies = cluster.on_control(Proxies::start(targets)).await??;
                for node in &mut cluster.nodes {
                    node.advertised_peer = proxies.address(node.number);
                }
                Network::of_proxies(proxies)
            }
        });
        Ok(cluster)
    }

    fn place(&self, number: usize) -> anyhow::Result<Node> {
        let [client, peer, ops] = match self.options.network {
            NetworkKind::Namespaces => PORTS.map(|port| format!("{}:{port}", node_address(number))),
            NetworkKind::Loopback => free_ports()?.map(|port| format!("127.0.0.1:{port}")),
        };
        let data_dir = match self.disk(number) {
            Some(disk) => disk.mount_point().join("data"),
            None => self.scratch.dir.join(format!("n{number}")),
        };
        let log = self.options.dir.join(format!("n{number}.log"));
        let advertised_peer = peer.clone();
        Ok(Node { number, client, peer, advertised_peer, ops, data_dir, log, state: Default::default() })
    }

    async fn bootstrap(&self) -> anyhow::Result<()> {
        let nodes = self.endpoints().join(",");
        let (replicas, shards) = (self.options.replicas.to_string(), self.options.shards.to_string());
        let init = ["cluster", "init", "--nodes", &nodes, "--replicas", &replicas, "--shards", &shards];
        let output = self.admin().run(&init).await?;
        ensure!(output.code == Some(0), "cluster init: {}", output.stderr.trim());
        self.wait_until_serving(SERVING_MAX).await?;
        // Learns the ids of the nodes.
        self.admin().statuses().await;
        Ok(())
    }

    /// Waits until every shard accepts writes, by writing keys that begin with `jepsen-probe-`.
    pub async fn wait_until_serving(&self, within: Duration) -> anyhow::Result<()> {
        let (client, probes) = (self.client(), self.options.shards * PROBES_PER_SHARD);
        let probe = async move {
            let client = client.deadline(within).connect().await?;
            for number in 0..probes {
                client.put(format!("jepsen-probe-{number}"), "serving").await?;
            }
            anyhow::Ok(())
        };
        let probed = self.on_control(async move { tokio::time::timeout(within, probe).await }).await?;
        let probed = probed.context("timed out").and_then(|probed| probed);
        probed.context("the cluster does not serve").with_context(|| self.node(1).log_tail())
    }
}

/// Three loopback ports that were free a moment ago, below the range of outgoing connections. Ports
/// are handed out in sequence, from an offset that depends on this process's id: random draws
/// sometimes gave two nodes the same port.
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
