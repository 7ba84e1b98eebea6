//! `playground`: parses the arguments and calls `quorate_playground`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quorate_playground::{NODES_MAX, Options, Request, Terminal, Which};

use crate::failure::Failure;
use crate::{output, signals};

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct PlaygroundArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Args, Debug)]
struct RunArgs {
    /// Nodes to start; 3 by default. With 3 or more nodes, shards have 3 replicas; otherwise 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    nodes: Option<u32>,
    /// Shards of the cluster; 16 by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    shards: Option<u32>,
    /// Keep the data here, and restart the cluster if there is one. Without it, the data is
    /// temporary.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The first port, 7100 by default. Node i uses port P+10(i-1) for clients and the next three
    /// for peers and operators.
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    port_base: Option<u16>,
    /// Connect the nodes without proxies: somewhat faster, but `partition` is refused.
    #[arg(long)]
    direct: bool,
    /// Do not start the shortener.
    #[arg(long)]
    no_shortener: bool,
    /// The shortener's port.
    #[arg(long, value_name = "P", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    shortener_port: u16,
    /// Write all addresses to this file, as JSON, once everything serves.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Inject faults into a running playground.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Start another node, which joins the cluster and receives its share of the replicas.
    Add(WhichArgs),
    /// Kill a node (SIGKILL).
    Kill(NodeArgs),
    /// Restart a killed node.
    Start(NodeArgs),
    /// Suspend a node (SIGSTOP): its connections stay open, but it does not respond.
    Pause(NodeArgs),
    /// Resume a paused node (SIGCONT).
    Resume(NodeArgs),
    /// Partition nodes from all others, in both directions. Clients still reach both sides.
    Partition(PartitionArgs),
    /// End the partition.
    Heal(WhichArgs),
}

/// Selects a playground; by default the only one that runs.
#[derive(Args, Debug)]
struct WhichArgs {
    /// The playground with this first port.
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    port_base: Option<u16>,
    /// The playground with this directory.
    #[arg(long, value_name = "DIR", conflicts_with = "port_base")]
    dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct NodeArgs {
    /// The node's id, as in `quorate status`.
    node: u64,
    #[command(flatten)]
    which: WhichArgs,
}

#[derive(Args, Debug)]
struct PartitionArgs {
    /// The ids of the nodes on one side; all others are on the other side.
    #[arg(required = true, value_name = "NODE,…", value_delimiter = ',')]
    nodes: Vec<u64>,
    #[command(flatten)]
    which: WhichArgs,
}

/// Shows text on stderr.
fn show(text: &str) {
    tell_part!("{text}");
}

impl PlaygroundArgs {
    /// Runs a playground until Ctrl-C or SIGTERM, or sends a request to a running one.
    ///
    /// Must be called on the main thread: children die with the *thread* that started them.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self.verb {
            Some(verb) => signals::or_interrupted(verb.run()).await,
            None => {
                let terminal = Terminal { show, stops: signals::stop_requests()? };
                Ok(quorate_playground::run(self.run.options(), terminal).await?)
            }
        }
    }
}

impl RunArgs {
    fn options(self) -> Options {
        Options {
            nodes: self.nodes,
            shards: self.shards,
            port_base: self.port_base,
            dir: self.dir,
            direct: self.direct,
            shortener_port: (!self.no_shortener).then_some(self.shortener_port),
            ready_file: self.ready_file,
        }
    }
}

impl Verb {
    async fn run(self) -> Result<(), Failure> {
        let (request, which) = match self {
            Verb::Add(which) => (Request::Add, which),
            Verb::Kill(NodeArgs { node, which }) => (Request::Kill(node), which),
            Verb::Start(NodeArgs { node, which }) => (Request::Start(node), which),
            Verb::Pause(NodeArgs { node, which }) => (Request::Pause(node), which),
            Verb::Resume(NodeArgs { node, which }) => (Request::Resume(node), which),
            Verb::Partition(PartitionArgs { nodes, which }) => (Request::Partition(nodes), which),
            Verb::Heal(which) => (Request::Heal, which),
        };
        let done = quorate_playground::send(which.into(), &request, show).await?;
        output::print(format!("✓ {done}\n"))
    }
}

impl From<WhichArgs> for Which {
    fn from(WhichArgs { port_base, dir }: WhichArgs) -> Self {
        match (port_base, dir) {
            (Some(base), _) => Which::PortBase(base),
            (None, Some(dir)) => Which::Dir(dir),
            (None, None) => Which::Running,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::args::tests::parse;

    #[test]
    fn verbs_parse_and_do_not_mix_with_a_start() {
        for line in [
            "quorate playground add",
            "quorate playground kill 2 --port-base 9000",
            "quorate playground partition 1,2 --dir /p",
            "quorate playground heal",
            "quorate playground --nodes 5 --direct",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "quorate playground kill",
            "quorate playground kill two",
            "quorate playground partition",
            "quorate playground --nodes 5 kill 2",
            "quorate playground heal --dir /p --port-base 9000",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    /// The lines that `quorate_playground` starts its children with, as its own tests state them.
    #[test]
    fn the_commands_of_the_children_parse() {
        for line in [
            "quorate node start --data-dir /p/node-2 --client-listen 127.0.0.1:7110 --peer-listen 127.0.0.1:7113 \
             --ops-listen 127.0.0.1:7112 --advertise-peer 127.0.0.1:7111 --join 127.0.0.1:7100,127.0.0.1:7120 \
             --log-format text",
            "quorate shortener --listen 127.0.0.1:8080 --endpoints 127.0.0.1:7100,127.0.0.1:7110 --log-format text",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}
