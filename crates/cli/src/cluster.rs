//! `cluster init`: making a cluster, once.

use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_proto::admin::{InitClusterRequest, InitClusterResponse};
use quorate_proto::{WRONG_PORT, at_client_port};
use serde::Serialize;
use tonic::{Code, Request, Status};

use crate::failure::{Exit, Failure};
use crate::output::{self, Output};
use crate::{admin, duration, endpoint};

/// Replicas of a shard when nothing else is said.
pub(crate) const REPLICAS_DEFAULT: u32 = 3;
/// Shards of a cluster when nothing else is said.
pub(crate) const SHARDS_DEFAULT: u32 = 16;

/// Make a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make a cluster of exactly these running nodes. The same call again is harmless; another set of nodes is refused.
    Init(InitArgs),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct InitArgs {
    /// Client addresses of the bootstrap nodes, all of them running with empty data directories.
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true, value_parser = endpoint::parse)]
    nodes: Vec<String>,
    /// Replicas of every shard: 1, 3 or 5. Fixed from now on.
    #[arg(long, default_value_t = REPLICAS_DEFAULT, value_parser = replicas)]
    replicas: u32,
    /// Shards, 1 to 4096. Fixed from now on.
    #[arg(long, default_value_t = SHARDS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=4096))]
    shards: u32,
    /// How long to try before giving up, such as 5s or 1m.
    #[arg(long, env = "QUORATE_DEADLINE", value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    deadline: Duration,
    #[command(flatten)]
    output: Output,
}

fn replicas(text: &str) -> Result<u32, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => {
            Err(format!("'{text}' replicas: choose 1, 3 or 5 (an even number survives no more failures than one less)"))
        }
    }
}

/// A cluster to be made.
#[derive(Clone, Debug)]
pub(crate) struct Bootstrap {
    /// Client addresses, sorted.
    nodes: Vec<String>,
    replicas: u32,
    shards: u32,
}

impl Bootstrap {
    /// Checks what can be checked without asking anybody.
    pub(crate) fn new(mut nodes: Vec<String>, replicas: u32, shards: u32) -> Result<Self, Failure> {
        nodes.sort();
        if let Some(pair) = nodes.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Failure::new(Exit::Usage, format!("node {} is named twice", pair[0])));
        }
        if nodes.len() < replicas as usize {
            return Err(Failure::new(
                Exit::Usage,
                format!("{replicas} replicas need at least {replicas} nodes; {} given", nodes.len()),
            )
            .hint("name more nodes, or ask for fewer --replicas (1 survives no failure)"));
        }
        Ok(Bootstrap { nodes, replicas, shards })
    }

    /// Asks the first of the nodes to make the cluster.
    pub(crate) async fn make(self, within: Duration) -> Result<InitClusterResponse, Failure> {
        let first = self.nodes.first().expect("at least as many nodes as replicas").clone();
        let request = InitClusterRequest { nodes: self.nodes, replicas: self.replicas, shards: self.shards };
        let made = async {
            let mut admin = admin::connect(&first, within).await.map_err(|status| unreached(&status))?;
            admin.init_cluster(Request::new(request)).await.map_err(|status| refused(&first, &at_client_port(status)))
        };
        match tokio::time::timeout(within, made).await {
            Ok(response) => Ok(response?.into_inner()),
            Err(_) => {
                Err(refused(&first, &Status::deadline_exceeded(format!("no answer within {} ms", within.as_millis()))))
            }
        }
    }
}

const AGAIN: &str = "the same call again is harmless and finishes what was begun";

fn unreached(status: &Status) -> Failure {
    Failure::new(Exit::Unreachable, "cannot reach the first node")
        .cause(status.message())
        .hint("start every bootstrap node first:  quorate node start --data-dir DIR")
}

fn refused(node: &str, status: &Status) -> Failure {
    let failure = |exit| Failure::new(exit, format!("node {node} did not make the cluster")).cause(status.message());
    match status.code() {
        Code::InvalidArgument => failure(Exit::Usage),
        Code::AlreadyExists => failure(Exit::Conflict)
            .hint("a cluster is made once; see the one that is there:  quorate status")
            .hint("to start afresh, stop the nodes and give them new data directories"),
        Code::FailedPrecondition => failure(Exit::Conflict),
        Code::Unavailable if status.message() == WRONG_PORT => failure(Exit::Unreachable),
        Code::Unavailable => failure(Exit::Unreachable).hint(AGAIN),
        Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => failure(Exit::Unknown).hint(AGAIN),
        _ => failure(Exit::Other),
    }
}

#[derive(Serialize)]
struct Made<'a> {
    cluster_id: &'a str,
    already: bool,
    replicas: u32,
    shards: u32,
}

impl ClusterCommand {
    /// Makes the cluster and says what is fixed from now on.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let ClusterCommand::Init(args) = self;
        let (replicas, shards) = (args.replicas, args.shards);
        let bootstrap = Bootstrap::new(args.nodes, replicas, shards)?;
        let endpoints = bootstrap.nodes.join(",");
        let response = bootstrap.make(args.deadline).await?;
        let made = Made { cluster_id: &response.cluster_id, already: response.already, replicas, shards };
        output::show(args.output.output, "ClusterInit", &made, || match response.already {
            true => {
                format!("cluster {} is there already, of the same nodes; nothing was changed\n", response.cluster_id)
            }
            false => format!(
                "cluster {} is made: {shards} shards × {replicas} replicas\n\
                 replicas and shards are fixed from now on; no command changes them yet\n\
                 try:  export QUORATE_ENDPOINTS={endpoints}\n      quorate status\n",
                response.cluster_id
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::tests::parse;

    fn nodes(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| format!("{name}:7100")).collect()
    }

    #[test]
    fn impossible_clusters_are_refused_before_anybody_is_asked() {
        let failure = Bootstrap::new(nodes(&["a", "b"]), 3, 16).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        assert!(failure.to_string().starts_with("error: 3 replicas need at least 3 nodes; 2 given"), "{failure}");
        let failure = Bootstrap::new(nodes(&["a", "b", "a"]), 3, 16).unwrap_err();
        assert!(failure.to_string().contains("node a:7100 is named twice"));
        for line in ["--replicas 2", "--replicas 0", "--shards 0", "--shards 5000", "--shards many"] {
            assert!(parse(&format!("quorate cluster init --nodes a:1,b:1,c:1 {line}")).is_err(), "{line}");
        }
        assert!(parse("quorate cluster init").is_err());
    }

    #[test]
    fn the_nodes_are_asked_in_the_same_order_whoever_calls() {
        let bootstrap = Bootstrap::new(nodes(&["c", "a", "b"]), 3, 16).unwrap();
        assert_eq!(bootstrap.nodes, nodes(&["a", "b", "c"]));
    }

    #[test]
    fn each_refusal_has_its_exit_code() {
        for (code, exit) in [
            (Code::InvalidArgument, Exit::Usage),
            (Code::AlreadyExists, Exit::Conflict),
            (Code::FailedPrecondition, Exit::Conflict),
            (Code::Unavailable, Exit::Unreachable),
            (Code::DeadlineExceeded, Exit::Unknown),
            (Code::Internal, Exit::Other),
        ] {
            assert_eq!(refused("a:1", &Status::new(code, "m")).exit(), exit, "{code:?}");
        }
    }
}
