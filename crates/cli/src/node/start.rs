//! `node start`: runs a storage node as a process. The only file that uses `quorate_node`.

use std::path::PathBuf;

use clap::Args;
use quorate_node::{Limits, NodeConfig, NodeError};
use quorate_types::topology::NodeAddresses;

use crate::connect::{ENDPOINT_DEFAULT, endpoint};
use crate::failure::{Exit, Failure};
use crate::log::LogArgs;
use crate::signals;

#[derive(Args, Debug)]
pub(crate) struct StartArgs {
    /// Directory of the node's data. Created if missing; from then on it belongs to one node of one
    /// cluster.
    #[arg(long, env = "QUORATE_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Client addresses of nodes of the cluster to join.
    #[arg(long, env = "QUORATE_JOIN", value_name = "HOST:PORT,…", value_delimiter = ',', value_parser = endpoint)]
    join: Vec<String>,
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    advertise: Advertise,
    /// Failure zone of this node. Replicas of a shard are placed in different zones.
    #[arg(long, env = "QUORATE_ZONE", value_name = "NAME", default_value = "", value_parser = zone)]
    zone: String,
    /// The node's share of the replicas, relative to the weights of other nodes.
    #[arg(long, env = "QUORATE_WEIGHT", default_value_t = quorate_node::WEIGHT_DEFAULT)]
    weight: u32,
    /// Log bytes that each shard retains for lagging replicas; beyond this they receive a snapshot.
    #[arg(long, env = "QUORATE_LOG_RETAINED_BYTES", value_name = "BYTES", default_value_t = Limits::default().log_retained_bytes_per_group)]
    log_retained_bytes: u64,
    /// Allow listening beyond loopback. Connections are not encrypted: use only in trusted
    /// networks.
    #[arg(long, env = "QUORATE_INSECURE")]
    insecure: bool,
    #[command(flatten)]
    log: LogArgs,
}

/// A zone name with white space or control characters: a typing mistake, which would silently be
/// another zone.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a zone name has no white space and no control characters")]
struct BadZone;

fn zone(text: &str) -> Result<String, BadZone> {
    match text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => Err(BadZone),
        false => Ok(text.to_owned()),
    }
}

/// Addresses that the node listens on.
#[derive(Args, Debug)]
struct Listen {
    /// Listen address for clients (gRPC).
    #[arg(long, env = "QUORATE_CLIENT_LISTEN", value_name = "HOST:PORT", default_value = ENDPOINT_DEFAULT)]
    client_listen: String,
    /// Listen address for other nodes (gRPC).
    #[arg(long, env = "QUORATE_PEER_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7101")]
    peer_listen: String,
    /// Listen address for operators: /metrics, /livez, /readyz (HTTP).
    #[arg(long, env = "QUORATE_OPS_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7102")]
    ops_listen: String,
}

/// Addresses at which others reach the node, if they differ from the listen addresses.
#[derive(Args, Debug)]
struct Advertise {
    /// Address at which clients reach the node; by default the listen address.
    #[arg(long, env = "QUORATE_ADVERTISE_CLIENT", value_name = "HOST:PORT", value_parser = endpoint)]
    advertise_client: Option<String>,
    /// Address at which other nodes reach it.
    #[arg(long, env = "QUORATE_ADVERTISE_PEER", value_name = "HOST:PORT", value_parser = endpoint)]
    advertise_peer: Option<String>,
    /// Address at which operators reach it.
    #[arg(long, env = "QUORATE_ADVERTISE_OPS", value_name = "HOST:PORT", value_parser = endpoint)]
    advertise_ops: Option<String>,
}

impl StartArgs {
    /// Runs the node until SIGTERM or Ctrl-C.
    pub(super) async fn serve(self) -> Result<(), Failure> {
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

/// A node that stopped with an error. The node chooses the exit code; this finds its name.
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
        assert_eq!(config.advertise, NodeAddresses::default(), "the listen addresses are advertised");
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
