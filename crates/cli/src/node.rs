//! `node`: `start` runs a storage node as a process (the one file that touches `quorate_node`); the other verbs are in `nodes`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quorate_node::{Limits, NodeConfig, NodeError};
use quorate_types::topology::NodeAddresses;

use crate::failure::{Exit, Failure};
use crate::log::LogArgs;
use crate::{endpoint, nodes, signals};

/// Run a node; list, drain, remove and replace nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Start a node and serve until SIGTERM or Ctrl-C. It waits until `cluster init` names it or a cluster lets it join.
    Start(Box<StartArgs>),
    /// List the nodes, their state, and what they hold.
    List(nodes::ListArgs),
    /// Show one node.
    Show(nodes::ShowArgs),
    /// Move everything away from a node, so that it can be stopped or removed.
    Drain(Box<nodes::OneArgs>),
    /// Let a node that was draining keep what it has and take replicas again.
    Undrain(Box<nodes::OneArgs>),
    /// Remove a node for good: a drained one, or with --dead one that will never come back.
    Remove(Box<nodes::RemoveArgs>),
    /// Put one node in the place of another: its replicas move there, and it is removed.
    Replace(Box<nodes::ReplaceArgs>),
}

#[derive(Args, Debug)]
pub(crate) struct StartArgs {
    /// Where the node keeps its data. Made if it is not there; belongs to one node of one cluster from then on.
    #[arg(long, env = "QUORATE_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Client addresses of nodes of the cluster to join.
    #[arg(long, env = "QUORATE_JOIN", value_name = "HOST:PORT,…", value_delimiter = ',', value_parser = endpoint::parse)]
    join: Vec<String>,
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    advertise: Advertise,
    /// The part of the world that fails together with this node: replicas of a shard go to different zones.
    #[arg(long, env = "QUORATE_ZONE", value_name = "NAME", default_value = "", value_parser = zone)]
    zone: String,
    /// The node's share of the replicas relative to others.
    #[arg(long, env = "QUORATE_WEIGHT", default_value_t = quorate_node::WEIGHT_DEFAULT)]
    weight: u32,
    /// How much log each shard keeps for replicas that fall behind, in bytes: beyond it they get a snapshot.
    #[arg(long, env = "QUORATE_LOG_RETAINED_BYTES", value_name = "BYTES", default_value_t = Limits::default().log_retained_bytes_per_group)]
    log_retained_bytes: u64,
    /// Listen beyond loopback although connections are not encrypted: only where the network is trusted.
    #[arg(long, env = "QUORATE_INSECURE")]
    insecure: bool,
    #[command(flatten)]
    log: LogArgs,
}

/// The name of a zone. One with a blank in it is a slip of the keyboard, and would be another zone.
fn zone(text: &str) -> Result<String, String> {
    match text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => Err("a zone's name has no white space and no control characters".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// Where the node listens.
#[derive(Args, Debug)]
struct Listen {
    /// Where to listen for clients (gRPC).
    #[arg(long, env = "QUORATE_CLIENT_LISTEN", value_name = "HOST:PORT", default_value = endpoint::DEFAULT)]
    client_listen: String,
    /// Where to listen for other nodes (gRPC).
    #[arg(long, env = "QUORATE_PEER_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7101")]
    peer_listen: String,
    /// Where to listen for operators: /metrics, /livez, /readyz (HTTP).
    #[arg(long, env = "QUORATE_OPS_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7102")]
    ops_listen: String,
}

/// Where others reach the node, if not where it listens.
#[derive(Args, Debug)]
struct Advertise {
    /// Where clients reach the node; without it, where it listens.
    #[arg(long, env = "QUORATE_ADVERTISE_CLIENT", value_name = "HOST:PORT", value_parser = endpoint::parse)]
    advertise_client: Option<String>,
    /// Where other nodes reach it.
    #[arg(long, env = "QUORATE_ADVERTISE_PEER", value_name = "HOST:PORT", value_parser = endpoint::parse)]
    advertise_peer: Option<String>,
    /// Where operators reach it.
    #[arg(long, env = "QUORATE_ADVERTISE_OPS", value_name = "HOST:PORT", value_parser = endpoint::parse)]
    advertise_ops: Option<String>,
}

impl NodeCommand {
    /// Runs the node to its end, or asks the cluster about its nodes.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            NodeCommand::Start(args) => args.serve().await,
            NodeCommand::List(args) => signals::or_interrupted(nodes::list(args)).await,
            NodeCommand::Show(args) => signals::or_interrupted(nodes::show(args)).await,
            NodeCommand::Drain(args) => nodes::drain(*args).await,
            NodeCommand::Undrain(args) => nodes::undrain(*args).await,
            NodeCommand::Remove(args) => nodes::remove(*args).await,
            NodeCommand::Replace(args) => nodes::replace(*args).await,
        }
    }
}

impl StartArgs {
    /// Runs the node to its end.
    async fn serve(self) -> Result<(), Failure> {
        quorate_node::stop_on_panic();
        self.log.start()?;
        let shutdown = signals::shutdown()?;
        quorate_node::run(self.config(), shutdown).await.map_err(|error| stopped(&error))
    }

    fn config(self) -> NodeConfig {
        let Listen { client_listen: client, peer_listen: peer, ops_listen: ops } = self.listen;
        let Advertise { advertise_client, advertise_peer, advertise_ops } = self.advertise;
        NodeConfig {
            listen: NodeAddresses { client, peer, ops },
            advertise: NodeAddresses {
                client: advertise_client.unwrap_or_default(),
                peer: advertise_peer.unwrap_or_default(),
                ops: advertise_ops.unwrap_or_default(),
            },
            join: self.join,
            zone: self.zone,
            weight: self.weight,
            insecure: self.insecure,
            limits: Limits { log_retained_bytes_per_group: self.log_retained_bytes, ..Limits::default() },
            ..NodeConfig::new(self.data_dir)
        }
    }
}

/// The node knows its exit codes; here they get their names.
fn stopped(error: &NodeError) -> Failure {
    Failure::new(exit(error.exit_code()), "the node stopped").chain(error)
}

fn exit(code: u8) -> Exit {
    [Exit::DataFormat, Exit::DataDir, Exit::DiskIo, Exit::Config]
        .into_iter()
        .find(|exit| *exit as u8 == code)
        .unwrap_or(Exit::Other)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Only {
        #[command(flatten)]
        start: StartArgs,
    }

    fn config(line: &str) -> NodeConfig {
        Only::try_parse_from(line.split(' ')).unwrap().start.config()
    }

    #[test]
    fn a_node_needs_only_a_data_directory() {
        let config = config("start --data-dir /d");
        assert_eq!(config.data_dir, PathBuf::from("/d"));
        assert_eq!(config.listen.client, "127.0.0.1:7100");
        assert_eq!((config.listen.peer.as_str(), config.listen.ops.as_str()), ("127.0.0.1:7101", "127.0.0.1:7102"));
        assert_eq!(config.advertise, NodeAddresses::default(), "advertised is what is listened on");
        assert_eq!((config.weight, config.insecure, config.join.len()), (100, false, 0));
    }

    #[test]
    fn every_flag_reaches_the_node() {
        let config = config(
            "start --data-dir /d --join a:1,b:2 --client-listen 0.0.0.0:1 --advertise-client h:1 --advertise-peer h:2 \
             --zone z --weight 50 --insecure",
        );
        assert_eq!(config.join, ["a:1", "b:2"]);
        assert_eq!((config.listen.client.as_str(), config.advertise.client.as_str()), ("0.0.0.0:1", "h:1"));
        assert_eq!((config.advertise.peer.as_str(), config.advertise.ops.as_str()), ("h:2", ""));
        assert_eq!((config.zone.as_str(), config.weight, config.insecure), ("z", 50, true));
    }

    #[test]
    fn the_node_decides_its_exit_code() {
        for (code, name) in [(65, Exit::DataFormat), (73, Exit::DataDir), (74, Exit::DiskIo), (78, Exit::Config)] {
            assert_eq!(exit(code), name);
        }
        assert_eq!(exit(1), Exit::Other);
        let failure = stopped(&NodeError::Config(quorate_node::ConfigError::Weight(0)));
        assert_eq!(
            failure.to_string(),
            "error: the node stopped\n  cause: the weight is 0; a weight is 1 to 10000, 100 is usual\n"
        );
        assert_eq!(failure.exit(), Exit::Config);
    }
}
