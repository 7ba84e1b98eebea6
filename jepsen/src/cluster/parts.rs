//! The parts that a cluster consists of: places, disks, network, and the scratch directory.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_client::Client;
use tokio::process::Command;
use tokio::runtime::Runtime;
use tokio::task::JoinError;

use super::disks::Disk;
use super::namespaces::Namespaces;
use super::network::Network;
use super::node::Node;
use super::options::Options;
use super::scratch::{MARK, Scratch};
use super::threads::{self, ClientRuntime};

/// A cluster of real processes. Dropping it, even in a panic, removes everything that it created on
/// this machine; [`Cluster::dismantle`] does the same and reports errors. Only a harness that is
/// killed leaves something behind, which the next [`sweep`](super::sweep) removes.
pub struct Cluster {
    pub(super) options: Options,
    pub(super) nodes: Vec<Node>,
    pub(super) disks: Vec<Disk>,
    /// `None` only while the cluster is being prepared.
    pub(super) network: Option<Network>,
    pub(super) scratch: Scratch,
    /// A runtime with one thread in the harness's own namespace. It sends the harness's requests
    /// and is the parent of all node processes.
    pub(super) control: Option<Runtime>,
    dismantled: AtomicBool,
}

impl Cluster {
    /// A cluster without places, disks and network.
    pub(super) fn empty(options: Options, scratch: Scratch) -> Self {
        Cluster {
            options,
            nodes: vec![],
            disks: vec![],
            network: None,
            scratch,
            control: None,
            dismantled: AtomicBool::new(false),
        }
    }

    /// All places, those of the initial nodes first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A place, numbered from 1.
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    /// The number of the place where the node with an id lives.
    pub fn number_of(&self, id: u64) -> Option<usize> {
        self.nodes.iter().find(|node| node.id() == Some(id)).map(Node::number)
    }

    /// The disk of a place, if disks are images.
    pub fn disk(&self, number: usize) -> Option<&Disk> {
        self.disks.get(number - 1)
    }

    /// The network between the nodes.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("set before `Cluster::start` returns")
    }

    /// The options that the cluster was started with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The client addresses of the initial nodes' places, for clients and `--endpoints`.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes[..self.options.nodes].iter().map(|node| node.client.clone()).collect()
    }

    /// A builder of clients that know every endpoint.
    pub(super) fn client(&self) -> quorate_client::ClientBuilder {
        Client::builder().endpoints(self.endpoints())
    }

    /// A runtime whose threads are in the clients' namespace. Only *spawned* tasks run there: the
    /// thread that calls `block_on` stays in its own namespace.
    pub fn client_runtime(&self, threads: usize) -> anyhow::Result<ClientRuntime> {
        let namespace = self.namespaces().map(Namespaces::of_clients);
        Ok(ClientRuntime::new(threads::runtime("clients", threads, namespace)?))
    }

    /// A command of the binary under test in the clients' namespace, such as the shortener.
    pub fn client_command(&self) -> Command {
        self.command(self.namespaces().map(Namespaces::of_clients))
    }

    /// Runs a closure in a node's namespace, on a thread of its own; sockets that it opens stay in
    /// that namespace.
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

    pub(super) fn namespaces(&self) -> Option<&Namespaces> {
        self.network.as_ref().and_then(Network::namespaces)
    }

    /// The file with the clock offset of a place.
    pub(super) fn clock_file(&self, number: usize) -> PathBuf {
        self.scratch.dir.join(format!("n{number}.clock"))
    }

    /// Runs a future on the control runtime, in the harness's own namespace.
    pub(super) async fn on_control<F>(&self, work: F) -> Result<F::Output, JoinError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.control.as_ref().expect("present until the cluster is dropped").spawn(work).await
    }

    /// A command of the binary under test, in a namespace or in the harness's own. It inherits no
    /// `QUORATE_` variable, carries the mark of the run, and dies with the harness.
    pub(super) fn command(&self, namespace: Option<PathBuf>) -> Command {
        let mut command = match namespace {
            Some(path) => {
                let mut enter = Command::new("nsenter");
                enter.arg(format!("--net={}", path.display())).arg(&self.options.binary);
                enter
            }
            None => Command::new(&self.options.binary),
        };
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("QUORATE_")) {
                command.env_remove(name);
            }
        }
        command.env(MARK, &self.scratch.tag).stdin(Stdio::null()).kill_on_drop(true);
        // A Ctrl-C at the terminal is meant for the harness, which then heals and cleans up. Nodes
        // are in a process group of their own and do not receive it.
        command.process_group(0);
        command
    }

    /// Kills every process and removes mounts, loop devices, namespaces, control groups and files.
    /// Logs stay.
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
            // On a thread of its own: this one may be inside a runtime.
            let erased = std::thread::scope(|scope| {
                scope.spawn(|| threads::runtime("dismantle", 1, None)?.block_on(cluster.dismantle())).join()
            });
            if !matches!(erased, Ok(Ok(()))) {
                eprintln!("quorate-jepsen: cannot remove everything of {}: {erased:?}", self.scratch.tag);
            }
        }
        if let Some(control) = self.control.take() {
            control.shutdown_background();
        }
    }
}
