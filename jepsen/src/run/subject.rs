//! What a run tests: a cluster that it starts itself, or one that is running already.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use quorate_client::Client;
use tokio::process::Command;
use tokio::runtime::{Builder, Handle};

use super::faults;
use super::options::{NetworkChoice, Options};
use crate::cluster::{self, Abilities, ClientRuntime, Clocks, Cluster, Disks, Network};
use crate::nemesis::{Class, Fault};

/// Threads of the clients: the nodes need the others.
const CLIENT_THREADS: usize = 2;
/// How long a running cluster may take to tell its map.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What is tested.
pub(super) struct Subject {
    /// The cluster, if it is ours.
    pub(super) cluster: Option<Arc<Cluster>>,
    /// The nodes' client addresses.
    pub(super) endpoints: Vec<String>,
    /// Their ops addresses.
    pub(super) ops: Vec<String>,
    /// Their logs, if they are ours.
    pub(super) logs: Vec<PathBuf>,
    /// The binary, for shorteners and operators' commands; none where there is none beside a cluster that is not ours.
    binary: Option<PathBuf>,
    /// Its threads are where the clients are.
    clients: ClientRuntime,
}

impl Subject {
    /// Starts a cluster as the options say, with logs in `logs`; or finds the one that is running.
    pub(super) async fn start(options: &Options, logs: &Path) -> anyhow::Result<Self> {
        if !options.endpoints.is_empty() {
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
        let given = options.endpoints.clone();
        let map = clients.spawn(async move {
            let client = Client::builder().endpoints(given).deadline(CONNECT_MAX).connect().await?;
            client.router().refresh(CONNECT_MAX).await
        });
        let map = map.await?.with_context(|| {
            let named = options.endpoints.join(",");
            format!(
                "cannot connect to {named} (is a cluster running there, and are these its nodes' client addresses?)"
            )
        })?;
        let live =
            || map.nodes.iter().filter(|node| !matches!(node.state, quorate_types::topology::NodeState::Removed));
        Ok(Subject {
            cluster: None,
            endpoints: live().map(|node| node.addresses.client.clone()).collect(),
            ops: live().map(|node| node.addresses.ops.clone()).collect(),
            logs: Vec::new(),
            binary: cluster::binary().ok(),
            clients,
        })
    }

    /// Where what is spawned talks to the cluster as clients do.
    pub(super) fn clients(&self) -> &Handle {
        self.clients.handle()
    }

    /// A command of the binary that runs where the clients do.
    pub(super) fn command(&self) -> anyhow::Result<Command> {
        match &self.cluster {
            Some(cluster) => cluster.client_command(),
            None => Ok(Command::new(self.binary()?)),
        }
    }

    /// The binary.
    pub(super) fn binary(&self) -> anyhow::Result<&Path> {
        self.binary.as_deref().context("the binary 'quorate' is needed beside this program, or named by QUORATE_BIN")
    }

    /// How the nodes are connected, in a word.
    pub(super) fn network(&self) -> String {
        let Some(cluster) = &self.cluster else { return "a running cluster".to_owned() };
        let options = cluster.options();
        let network = match options.network {
            Network::Namespaces => "namespaces",
            Network::Loopback => "loopback",
        };
        let disks = match options.disks {
            Disks::Images { .. } => "disk images",
            Disks::Directories => "directories",
        };
        format!("{network}, {disks}")
    }

    /// Nodes that ended though nobody ended them.
    pub(super) fn died(&self) -> Vec<String> {
        let nodes = self.cluster.iter().flat_map(|cluster| cluster.nodes());
        nodes.filter_map(|node| Some(format!("node {} ended with {}", node.number(), node.died()?))).collect()
    }

    /// Takes the cluster away, if it is ours.
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
    chosen.nodes = options.nodes;
    chosen.shards = options.shards;
    chosen.replicas = u32::try_from(options.nodes.min(3))?;
    match options.network {
        NetworkChoice::Auto => {}
        NetworkChoice::Namespaces => {
            chosen.network = Network::Namespaces;
            if !matches!(chosen.disks, Disks::Images { .. }) {
                anyhow::bail!("no disk images: {}", able.images.err().unwrap_or_default());
            }
        }
        NetworkChoice::Loopback => (chosen.network, chosen.disks) = (Network::Loopback, Disks::Directories),
    }
    let faults: Vec<_> = faults::named(&options.nemesis)?.into_iter().flat_map(|(_, faults)| faults).collect();
    if able.clocks.is_ok() && faults.iter().any(|fault| fault.class() == Class::Clock) {
        chosen.clocks = if faults.contains(&Fault::ClockDrift) { Clocks::WallAndMonotonic } else { Clocks::Wall };
    }
    if let Some(bytes) = options.log_retained_bytes {
        chosen.environment.push(("QUORATE_LOG_RETAINED_BYTES".to_owned(), bytes.to_string()));
    }
    if let Some(bug) = &options.bug {
        chosen.environment.push(("QUORATE_BUG".to_owned(), bug.clone()));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runtime of the clients was dropped where it must not be, and the panic hid why.
    #[tokio::test]
    async fn a_cluster_that_was_not_there_was_a_panic() {
        let options = Options { endpoints: vec!["127.0.0.1:1".to_owned()], ..Options::default() };
        let Err(error) = Subject::find(&options).await else { panic!("nobody listens there") };
        let said = format!("{error:#}");
        assert!(said.contains("cannot connect to 127.0.0.1:1") && error.chain().count() > 1, "{said}");
    }
}
