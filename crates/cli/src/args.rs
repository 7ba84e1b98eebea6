//! The command line: all commands, and the function that runs each.

use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::failure::{Exit, Failure};
use crate::{
    bench, cluster, doctor, explain, kv, manual, node, operation, playground, rebalance, shard, shortener, signals,
    status,
};

const EXAMPLES: &str = "\
Examples:
  quorate playground                              run a cluster on this machine, with a URL shortener
  quorate kv put hello world                      write a key
  quorate kv get hello                            read it (linearizable)
  quorate kv get hello --read eventual            read it from the nearest replica, even in a partition
  quorate kv cas hello --expect world there       write it only if it still has the value 'world'
  quorate status                                  show the cluster's health on one screen
  quorate shard list -o json                      list shards, leaders and replicas as JSON
  quorate node drain 3                            move all replicas away from node 3, and watch
  quorate node remove 3                           remove it permanently
  quorate rebalance plan                          show the moves that would balance the cluster
  quorate op list                                 list running operations, their progress and wait reasons
  quorate doctor                                  check the cluster, with a fix for each problem
  quorate explain 5                               explain an exit code
  quorate bench kv --op put --clients 64          measure throughput and latency

Exit codes: 0 ok, 1 other failure, 2 usage or confirmation needed, 3 unreachable, no quorum or too early (nothing
applied, try again), 4 timed out (still running), 5 refused for safety, 6 condition refused or conflict, 8 a check
failed, 10 outcome unknown, 11 key absent, 101 a bug (panic), 130 interrupted. `node start`: 65 data foreign, newer or
corrupt, 73 data directory, 74 disk, 78 configuration.";

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
    /// Create a cluster.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Run the URL shortener, an HTTP front end on a cluster.
    Shortener(shortener::ShortenerArgs),
    /// Run a cluster on this machine, and inject faults.
    Playground(playground::PlaygroundArgs),
    /// Read and write keys.
    #[command(subcommand)]
    Kv(kv::KvCommand),
    /// Show the cluster's health on one screen.
    Status(status::StatusArgs),
    /// Inspect, move and verify shards.
    #[command(subcommand)]
    Shard(shard::ShardCommand),
    /// Rebalance replicas across nodes.
    #[command(subcommand)]
    Rebalance(rebalance::RebalanceCommand),
    /// List, watch and cancel operations.
    #[command(subcommand)]
    Op(operation::OperationCommand),
    /// Check the cluster, and print a fix for each problem.
    Doctor(doctor::DoctorArgs),
    /// Measure throughput and latency.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Explain an exit code and the next step.
    Explain(explain::ExplainArgs),
    /// Print completions for a shell.
    Completions(manual::CompletionsArgs),
    /// Print or write man pages.
    Man(manual::ManArgs),
}

impl Cli {
    /// Runs the command.
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

/// How long the process waits for tasks that are still running after a command; none of them
/// matters.
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
    fn invalid_arguments_are_usage_errors() {
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
