//! What can be typed, and where each command goes.

use std::future::Future;
use std::time::{Duration, Instant};

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::failure::{Exit, Failure};
use crate::output::{Format, Output};
use crate::{
    bench, cluster, doctor, duration, endpoint, explain, kv, manual, node, operation, playground, rebalance, shard,
    shortener, signals, status,
};

const EXAMPLES: &str = "\
Examples:
  quorate playground                              a cluster on this machine, with a URL shortener
  quorate kv put hello world                      write a key
  quorate kv get hello                            read it, linearizable
  quorate kv get hello --read eventual            read it from the nearest replica, even in a partition
  quorate kv cas hello --expect world there       write it only if it still holds 'world'
  quorate status                                  one screen on the cluster's health
  quorate shard list -o json                      shards, leaders and replicas
  quorate node drain 3                            move everything away from node 3, watched
  quorate node remove 3                           let it go for good
  quorate rebalance plan                          what would make the load even
  quorate op list                                 what runs, how far it is, and what it waits for
  quorate doctor                                  what is not well, and what to do about it
  quorate explain 5                               what an exit code means
  quorate bench kv --op put --clients 64          measure

Exit codes: 0 ok, 1 other failure, 2 usage or confirmation needed, 3 unreachable or no quorum (nothing applied), 4 stopped
watching (it goes on), 5 refused for safety, 6 condition refused or conflict, 8 a check failed, 10 outcome unknown, 11 key
absent, 130 interrupted. `node start`: 65 data format, 73 data directory, 74 disk, 78 configuration.";

/// Quorate: a sharded key-value store, every shard replicated by its own Raft group.
#[derive(Debug, Parser)]
#[command(name = "quorate", version = quorate_node::VERSION, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node; list, drain, remove and replace nodes.
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Make a cluster.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Run the URL shortener, an HTTP front end on a cluster.
    Shortener(shortener::ShortenerArgs),
    /// Run a whole cluster on this machine to try things.
    Playground(playground::PlaygroundArgs),
    /// Read and write keys.
    #[command(subcommand)]
    Kv(kv::KvCommand),
    /// Show the cluster's health on one screen.
    Status(status::StatusArgs),
    /// Inspect, move and verify shards.
    #[command(subcommand)]
    Shard(shard::ShardCommand),
    /// Make the load even.
    #[command(subcommand)]
    Rebalance(rebalance::RebalanceCommand),
    /// Watch and cancel what the cluster was asked for.
    #[command(subcommand)]
    Op(operation::OperationCommand),
    /// Check the cluster, and say what to do about what is not well.
    Doctor(doctor::DoctorArgs),
    /// Measure throughput and latency.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Say what an exit code means, and what to do next.
    Explain(explain::ExplainArgs),
    /// Print completions for a shell.
    Completions(manual::CompletionsArgs),
    /// Print or write man pages.
    Man(manual::ManArgs),
}

/// Which cluster a command speaks to, and for how long it tries.
#[derive(Args, Clone, Debug)]
pub(crate) struct Connect {
    /// Client addresses of any nodes of the cluster; the others are found through them.
    #[arg(
        short = 'e',
        long,
        env = "QUORATE_ENDPOINTS",
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        default_value = endpoint::DEFAULT,
        value_parser = endpoint::parse
    )]
    pub(crate) endpoints: Vec<String>,
    /// How long to try before giving up, such as 500ms, 5s or 1m.
    #[arg(long, env = "QUORATE_DEADLINE", value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    pub(crate) deadline: Duration,
}

/// A question to the cluster: whom to ask, and how to write the answer.
#[derive(Args, Clone, Debug)]
pub(crate) struct Ask {
    #[command(flatten)]
    pub(crate) connect: Connect,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl Ask {
    /// How the answer is written.
    pub(crate) fn format(&self) -> Format {
        self.output.output
    }
}

impl Connect {
    /// A client of that cluster, and what connecting has left of the deadline: a command has one for all it does.
    pub(crate) async fn client(&self) -> Result<(quorate_client::Client, Duration), Failure> {
        let began = Instant::now();
        let builder = quorate_client::Client::builder().endpoints(self.endpoints.clone()).deadline(self.deadline);
        let client = builder.connect().await;
        let client = client.map_err(|error| Failure::from_client("cannot connect to the cluster", error))?;
        Ok((client, self.deadline.saturating_sub(began.elapsed())))
    }
}

impl Cli {
    /// Runs the command to its end.
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Node(command) => on_runtime(command.run()),
            Command::Cluster(command) => on_runtime(signals::or_interrupted(command.run())),
            Command::Shortener(args) => on_runtime(args.run()),
            Command::Playground(args) => on_runtime(args.run()),
            Command::Kv(command) if command.writes() => on_runtime(signals::or_unknown(command.run())),
            Command::Kv(command) => on_runtime(signals::or_interrupted(command.run())),
            Command::Status(args) => on_runtime(signals::or_interrupted(args.run())),
            Command::Shard(command) => on_runtime(command.run()),
            Command::Rebalance(command) => on_runtime(command.run()),
            Command::Op(command) => on_runtime(command.run()),
            Command::Doctor(args) => on_runtime(signals::or_interrupted(args.run())),
            Command::Bench(command) => on_runtime(command.run()),
            Command::Explain(args) => args.run(),
            Command::Completions(args) => manual::completions(&args, Cli::command()),
            Command::Man(args) => manual::man(&args, Cli::command()),
        }
    }
}

/// How long tasks that outlive a command may keep the process: everything that must be awaited has been.
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(200);

fn on_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Other, "cannot start the runtime").cause(error))?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    result
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_of_the_help_parses() {
        for line in EXAMPLES.lines().filter(|line| line.trim_start().starts_with("quorate ")) {
            let command = line.trim().split("   ").next().unwrap().trim();
            parse(command).unwrap_or_else(|error| panic!("{command}: {error}"));
        }
    }

    #[test]
    fn what_is_unknown_is_a_usage_error() {
        for line in [
            "quorate frobnicate",
            "quorate kv get",
            "quorate kv get k --no-such-flag",
            "quorate kv get k --read lease",
            "quorate kv get k --read sometimes",
            "quorate kv get k -o yaml",
            "quorate kv get k --deadline soon",
            "quorate kv get k --endpoints nowhere",
            "quorate kv put k v --if-absent --if-version 3",
            "quorate kv cas k v",
            "quorate kv cas k --expect a --if-version 3 v",
            "quorate node start",
            "quorate bench kv --clients 0",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert!(parse("quorate kv get k --read lease").unwrap_err().to_string().contains("not built yet"));
    }
}
