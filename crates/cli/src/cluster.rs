//! `cluster init`: creates a cluster, once.

use std::fmt::Display;
use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_client::{AdminError, AdminErrorKind, admin};
use quorate_proto::admin::{InitClusterRequest, InitClusterResponse};
use serde::Serialize;

use crate::connect::endpoint;
use crate::duration;
use crate::failure::{Exit, Failure};
use crate::output::{self, Output};

/// Replicas of a shard by default.
const REPLICAS_DEFAULT: u32 = 3;
/// Shards of a cluster by default.
const SHARDS_DEFAULT: u32 = 16;

/// Create a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Create a cluster of exactly these running nodes. Repeating the command is harmless; another
    /// set of nodes is refused.
    Init(InitArgs),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct InitArgs {
    /// Client addresses of the initial nodes, all running with empty data directories.
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true, value_parser = endpoint)]
    nodes: Vec<String>,
    /// Replicas of every shard: 1, 3 or 5. Cannot be changed later.
    #[arg(long, default_value_t = REPLICAS_DEFAULT, value_parser = replicas)]
    replicas: u32,
    /// Shards, 1 to 4096. Cannot be changed later.
    #[arg(long, default_value_t = SHARDS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=4096))]
    shards: u32,
    /// How long to try before giving up, such as 5s or 1m.
    #[arg(long, env = "QUORATE_DEADLINE", value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    deadline: Duration,
    #[command(flatten)]
    output: Output,
}

/// A number of replicas that is not supported.
#[derive(Clone, Debug, thiserror::Error)]
#[error("'{0}' replicas: choose 1, 3 or 5 (an even number tolerates no more failures than one less)")]
struct BadReplicas(String);

fn replicas(text: &str) -> Result<u32, BadReplicas> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err(BadReplicas(text.to_owned())),
    }
}

/// A cluster to be created.
#[derive(Clone, Debug)]
struct Bootstrap {
    /// Client addresses, sorted.
    nodes: Vec<String>,
    replicas: u32,
    shards: u32,
}

impl Bootstrap {
    /// Checks the arguments, without connecting.
    fn new(mut nodes: Vec<String>, replicas: u32, shards: u32) -> Result<Self, Failure> {
        nodes.sort();
        if let Some(pair) = nodes.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Failure::new(Exit::Usage, format!("node {} is named twice", pair[0])));
        }
        if nodes.len() < replicas as usize {
            return Err(Failure::new(
                Exit::Usage,
                format!("{replicas} replicas need at least {replicas} nodes; {} given", nodes.len()),
            )
            .hint("add nodes, or use fewer --replicas (1 tolerates no failure)"));
        }
        Ok(Bootstrap { nodes, replicas, shards })
    }

    /// Asks the first node to bootstrap the cluster.
    async fn create(self, within: Duration) -> Result<InitClusterResponse, Failure> {
        let first = self.nodes.first().expect("at least as many nodes as replicas").clone();
        let request = InitClusterRequest { nodes: self.nodes, replicas: self.replicas, shards: self.shards };
        let created = async {
            let node = admin(&first, within).await.map_err(|error| unreached(&error))?;
            node.init_cluster(request, within).await.map_err(|error| refused(&error))
        };
        tokio::time::timeout(within, created).await.unwrap_or_else(|_| {
            Err(failed(Exit::Unknown, &first, format!("no answer within {} ms", within.as_millis())).hint(REPEAT))
        })
    }
}

const REPEAT: &str = "repeating the command is harmless and completes the bootstrap";

fn unreached(error: &AdminError) -> Failure {
    Failure::new(Exit::Unreachable, "cannot reach the first node")
        .cause(error)
        .hint("start all initial nodes first:  quorate node start --data-dir DIR")
}

fn failed(exit: Exit, node: &str, cause: impl Display) -> Failure {
    Failure::new(exit, format!("node {node} did not bootstrap the cluster")).cause(cause)
}

fn refused(error: &AdminError) -> Failure {
    let failure = |exit| failed(exit, &error.endpoint, &error.reason);
    match error.kind {
        AdminErrorKind::Invalid => failure(Exit::Usage),
        AdminErrorKind::Conflict => failure(Exit::Conflict)
            .hint("a cluster is created only once; check the existing one:  quorate status")
            .hint("to start over, stop the nodes and give them new data directories"),
        AdminErrorKind::Refused => failure(Exit::Conflict),
        AdminErrorKind::Unreachable => failure(Exit::Unreachable),
        // The connection broke, or another initial node is unreachable: some nodes may have
        // recorded the bootstrap.
        AdminErrorKind::Unanswered => failure(Exit::Unknown).hint(REPEAT),
        _ => failure(Exit::Other),
    }
}

#[derive(Serialize)]
struct Created<'a> {
    cluster_id: &'a str,
    already: bool,
    replicas: u32,
    shards: u32,
}

impl ClusterCommand {
    /// Creates the cluster and prints its fixed properties.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let ClusterCommand::Init(args) = self;
        let (replicas, shards) = (args.replicas, args.shards);
        let bootstrap = Bootstrap::new(args.nodes, replicas, shards)?;
        let endpoints = bootstrap.nodes.join(",");
        let response = bootstrap.create(args.deadline).await?;
        let created = Created { cluster_id: &response.cluster_id, already: response.already, replicas, shards };
        output::show(args.output.output, "ClusterInit", &created, || match response.already {
            true => {
                format!("nothing to do: cluster {} already exists with the same nodes\n", response.cluster_id)
            }
            false => format!(
                "cluster {} is created: {shards} shards × {replicas} replicas\n\
                 no command changes the number of shards and replicas yet\n\
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
    fn impossible_clusters_are_refused_before_connecting() {
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
    fn the_order_of_the_nodes_does_not_matter() {
        let bootstrap = Bootstrap::new(nodes(&["c", "a", "b"]), 3, 16).unwrap();
        assert_eq!(bootstrap.nodes, nodes(&["a", "b", "c"]));
    }

    #[test]
    fn each_refusal_has_its_exit_code() {
        for (kind, exit) in [
            (AdminErrorKind::Invalid, Exit::Usage),
            (AdminErrorKind::Conflict, Exit::Conflict),
            (AdminErrorKind::Refused, Exit::Conflict),
            (AdminErrorKind::Unreachable, Exit::Unreachable),
            (AdminErrorKind::Unanswered, Exit::Unknown),
            (AdminErrorKind::Failed, Exit::Other),
        ] {
            let error = AdminError { kind, endpoint: "a:1".to_owned(), reason: "m".to_owned() };
            assert_eq!(refused(&error).exit(), exit, "{kind:?}");
        }
    }

    /// The request is sent, and the deadline passes without an answer.
    #[tokio::test]
    async fn a_timed_out_bootstrap_has_an_unknown_outcome() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nodes = vec![listener.local_addr().unwrap().to_string()];
        let bootstrap = Bootstrap::new(nodes, 1, 1).unwrap();
        let failure = bootstrap.create(Duration::from_millis(100)).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Unknown);
    }
}
