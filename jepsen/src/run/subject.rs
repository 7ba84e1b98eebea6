//! The subject of a run: a cluster that the run starts, or one that is already running.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use quorate_client::Client;
use quorate_types::topology::NodeState;
use tokio::process::Command;
use tokio::runtime::{Builder, Handle};

use super::faults;
use super::options::{NetworkChoice, Options};
use crate::cluster::{self, Abilities, ClientRuntime, Cluster};
use crate::nemesis::{Class, Fault};

/// The threads of the clients: few, because the nodes need the other cores.
const CLIENT_THREADS: usize = 2;
/// The time-out of connecting to a running cluster and fetching its map.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The cluster under test, and the runtime of its clients.
pub(super) struct Subject {
    /// The cluster, if the run started it.
    pub(super) cluster: Option<Arc<Cluster>>,
    /// The nodes' client addresses.
    pub(super) endpoints: Vec<String>,
    /// The nodes' ops addresses.
    pub(super) ops: Vec<String>,
    /// The nodes' log files, if the run started them.
    pub(super) logs: Vec<PathBuf>,
    /// The binary, for shorteners and operators' commands. May be missing when the cluster was
    /// already running.
    binary: Option<PathBuf>,
    /// A runtime in the clients' namespace.
    clients: ClientRuntime,
}

impl Subject {
    /// Starts a cluster with logs in `logs`, or connects to the running one that the options name.
    pub(super) async fn start(options: &Options, logs: &Path) -> anyhow::Result<Self> {
        if !options.cluster.endpoints.is_empty() {
            return Self::find(options).await;
        }
        let cluster = Arc::new(Cluster::start(cluster_options(options, logs)?).await.context("starting the cluster")?);
        let clients = cluster.client_runtime(CLIENT_THREADS)?;
        let nodes = cluster.nodes();
        Ok(Subject {
            endpoints: cluster.endpoints(),
            ops: nodes.iter().map(|node| node.ops_address().to_owned()).collect(),
            logs: nodes.iter().map(|node| node.log().to_owned()).collect(),
            binary: Some(cluster.options().binary.clone()),
            cluster: Some(cluster),
            clients,
        })
    }

    async fn find(options: &Options) -> anyhow::Result<Self> {
        let clients =
            Builder::new_multi_thread().worker_threads(CLIENT_THREADS).thread_name("clients").enable_all().build()?;
        let clients = ClientRuntime::new(clients);
        let given = options.cluster.endpoints.clone();
        let map = clients.spawn(async move {
            let client = Client::builder().endpoints(given).deadline(CONNECT_MAX).connect().await?;
            client.router().refresh(CONNECT_MAX).await
        });
        let map = map.await?.with_context(|| {
            let named = options.cluster.endpoints.join(",");
            format!(
                "cannot connect to {named} (is a cluster running there, and are these its nodes' client addresses?)"
            )
        })?;
        let live = || map.nodes.iter().filter(|node| !matches!(node.state, NodeState::Removed));
        Ok(Subject {
            cluster: None,
            endpoints: live().map(|node| node.addresses.client.clone()).collect(),
            ops: live().map(|node| node.addresses.ops.clone()).collect(),
            logs: Vec::new(),
            binary: cluster::binary().ok(),
            clients,
        })
    }

    /// The runtime for everything that acts as a client.
    pub(super) fn clients(&self) -> &Handle {
        self.clients.handle()
    }

    /// A command of the binary in the clients' namespace.
    pub(super) fn command(&self) -> anyhow::Result<Command> {
        match &self.cluster {
            Some(cluster) => Ok(cluster.client_command()),
            None => Ok(Command::new(self.binary()?)),
        }
    }

    /// The binary.
    pub(super) fn binary(&self) -> anyhow::Result<&Path> {
        self.binary
            .as_deref()
            .context("the binary 'quorate' is missing: place it beside this program, or set QUORATE_BIN")
    }

    /// The kinds of network and disks, for the report.
    pub(super) fn network(&self) -> String {
        let Some(cluster) = &self.cluster else { return "a running cluster".to_owned() };
        let options = cluster.options();
        let network = match options.network {
            cluster::NetworkKind::Namespaces => "namespaces",
            cluster::NetworkKind::Loopback => "loopback",
        };
        let disks = match options.disks {
            cluster::DiskKind::Images { .. } => "disk images",
            cluster::DiskKind::Directories => "directories",
        };
        format!("{network}, {disks}")
    }

    /// Nodes that ended by themselves.
    pub(super) fn died(&self) -> Vec<String> {
        let nodes = self.cluster.iter().flat_map(|cluster| cluster.nodes());
        nodes.filter_map(|node| Some(format!("node {} ended with {}", node.number(), node.died()?))).collect()
    }

    /// Dismantles the cluster, if the run started it.
    pub(super) async fn dismantle(&self) -> anyhow::Result<()> {
        match &self.cluster {
            Some(cluster) => cluster.dismantle().await,
            None => Ok(()),
        }
    }
}

fn cluster_options(options: &Options, logs: &Path) -> anyhow::Result<cluster::Options> {
    let able = Abilities::of_this_machine();
    let mut chosen = cluster::Options::new(logs)?;
    chosen.nodes = options.cluster.nodes;
    chosen.shards = options.cluster.shards;
    chosen.replicas = u32::try_from(options.cluster.nodes.min(3))?;
    match options.cluster.network {
        NetworkChoice::Auto => {}
        NetworkChoice::Namespaces => {
            chosen.network = cluster::NetworkKind::Namespaces;
            if !matches!(chosen.disks, cluster::DiskKind::Images { .. }) {
                able.images.context("no disk images")?;
            }
        }
        NetworkChoice::Loopback => {
            (chosen.network, chosen.disks) = (cluster::NetworkKind::Loopback, cluster::DiskKind::Directories)
        }
    }
    let faults: Vec<_> = faults::named(&options.faults.nemesis)?.into_iter().flat_map(|(_, faults)| faults).collect();
    if able.clocks.is_ok() && faults.iter().any(|fault| fault.class() == Class::Clock) {
        chosen.clocks =
            if faults.contains(&Fault::ClockDrift) { cluster::Clocks::WallAndMonotonic } else { cluster::Clocks::Wall };
    }
    if let Some(bytes) = options.cluster.log_retained_bytes {
        chosen.environment.push(("QUORATE_LOG_RETAINED_BYTES".to_owned(), bytes.to_string()));
    }
    if let Some(bug) = &options.faults.bug {
        chosen.environment.push(("QUORATE_BUG".to_owned(), bug.clone()));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::super::options::ClusterOptions;
    use super::*;

    /// The clients' runtime was dropped inside another runtime, and that panic hid the error.
    #[tokio::test]
    async fn unreachable_cluster_is_an_error() {
        let cluster = ClusterOptions { endpoints: vec!["127.0.0.1:1".to_owned()], ..ClusterOptions::default() };
        let options = Options { cluster, ..Options::default() };
        let Err(error) = Subject::find(&options).await else { panic!("no process listens there") };
        let said = format!("{error:#}");
        assert!(said.contains("cannot connect to 127.0.0.1:1") && error.chain().count() > 1, "{said}");
    }
}
