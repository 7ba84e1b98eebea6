//! Ports and directories of every process. Pure.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};
use crate::options::Options;

/// Nodes of a new playground unless the options say otherwise.
pub const NODES_DEFAULT: u32 = 3;
/// Shards of a new playground unless the options say otherwise.
pub const SHARDS_DEFAULT: u32 = 16;
/// The first port of a new playground unless the options say otherwise.
pub const PORT_BASE_DEFAULT: u16 = 7100;
/// The most nodes of a playground: they share one machine.
pub const NODES_MAX: u32 = 9;

/// Distance between the first ports of neighbouring nodes.
const PORTS_EACH: u32 = 10;
/// Replicas of a shard where there are enough nodes for them.
const REPLICAS: u32 = 3;

/// The properties of a playground's directory that are fixed when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) nodes: u32,
    pub(crate) shards: u32,
    pub(crate) port_base: u16,
    /// Nodes that were added later.
    #[serde(default)]
    pub(crate) added: u32,
}

impl Shape {
    /// The recorded shape, or for a new playground the shape that the options ask for. Refuses
    /// options that contradict the record.
    pub(crate) fn choose(options: &Options, recorded: Option<Shape>) -> Result<Shape, Error> {
        let Some(recorded) = recorded else {
            return Ok(Shape {
                nodes: options.nodes.unwrap_or(NODES_DEFAULT),
                shards: options.shards.unwrap_or(SHARDS_DEFAULT),
                port_base: options.port_base.unwrap_or(PORT_BASE_DEFAULT),
                added: 0,
            });
        };
        let asked = Shape {
            nodes: options.nodes.unwrap_or(recorded.nodes),
            shards: options.shards.unwrap_or(recorded.shards),
            port_base: options.port_base.unwrap_or(recorded.port_base),
            added: recorded.added,
        };
        if asked != recorded {
            let Shape { nodes, shards, port_base, .. } = recorded;
            return Err(Error::new(Kind::Usage, "the directory holds a cluster of another shape")
                .why(format!("it has --nodes {nodes} --shards {shards} --port-base {port_base}"))
                .next("omit these flags to start it again, or choose another --dir"));
        }
        Ok(recorded)
    }
}

/// The addresses and the directory of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodePlan {
    pub(crate) client: String,
    /// The address at which other nodes reach it.
    pub(crate) peer: String,
    /// The address at which it listens for other nodes: behind its proxy, if there is one.
    pub(crate) peer_listen: String,
    pub(crate) ops: String,
    pub(crate) data_dir: PathBuf,
}

/// All processes of a playground.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) nodes: Vec<NodePlan>,
    pub(crate) shards: u32,
    pub(crate) replicas: u32,
    /// Whether the peer ports are behind proxies that can partition the nodes.
    pub(crate) proxied: bool,
    /// The shortener's address; none: no shortener.
    pub(crate) shortener: Option<String>,
    /// The directory of the processes' logs.
    pub(crate) logs: PathBuf,
}

impl Layout {
    pub(crate) fn new(home: &Path, shape: Shape, shortener_port: Option<u16>, proxied: bool) -> Result<Self, Error> {
        let nodes = shape.nodes + shape.added;
        let last = u32::from(shape.port_base) + PORTS_EACH * (nodes - 1) + 3;
        if last > u32::from(u16::MAX) {
            return Err(Error::new(Kind::Usage, format!("{nodes} nodes need ports up to {last}"))
                .next("choose a smaller --port-base"));
        }
        let node = |number: u32| {
            let port = u32::from(shape.port_base) + PORTS_EACH * number;
            NodePlan {
                client: address(port),
                peer: address(port + 1),
                peer_listen: address(if proxied { port + 3 } else { port + 1 }),
                ops: address(port + 2),
                data_dir: home.join(format!("node-{}", number + 1)),
            }
        };
        Ok(Layout {
            nodes: (0..nodes).map(node).collect(),
            shards: shape.shards,
            // Nodes that were added later do not change the replicas of the existing cluster.
            replicas: if shape.nodes >= REPLICAS { REPLICAS } else { 1 },
            proxied,
            shortener: shortener_port.map(|port| address(port.into())),
            logs: home.join("logs"),
        })
    }

    /// Client addresses of all nodes.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    /// Whether clients find the cluster without being told an endpoint.
    pub(crate) fn has_default_ports(&self) -> bool {
        self.nodes[0].client == address(PORT_BASE_DEFAULT.into())
    }

    /// Refuses ports that are in use, before anything is started.
    pub(crate) fn check_ports(&self) -> Result<(), Error> {
        self.nodes.iter().try_for_each(NodePlan::check_ports)?;
        match &self.shortener {
            Some(address) => {
                check_free(address).map_err(|error| error.next("choose another --shortener-port, or --no-shortener"))
            }
            None => Ok(()),
        }
    }
}

impl NodePlan {
    /// Refuses ports that are in use.
    pub(crate) fn check_ports(&self) -> Result<(), Error> {
        [&self.client, &self.peer, &self.peer_listen, &self.ops].into_iter().try_for_each(|address| {
            check_free(address).map_err(|error| error.next("stop the other playground, or choose another --port-base"))
        })
    }
}

fn address(port: u32) -> String {
    format!("{}:{port}", Ipv4Addr::LOCALHOST)
}

fn check_free(address: &str) -> Result<(), Error> {
    TcpListener::bind(address)
        .map(drop)
        .map_err(|error| Error::new(Kind::Failed, format!("cannot listen on {address}")).why(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { nodes: 3, shards: 16, port_base: 7100, added: 0 };

    #[test]
    fn three_nodes_have_the_documented_ports() {
        let layout = Layout::new(Path::new("/p"), SHAPE, Some(8080), true).unwrap();
        assert_eq!(layout.endpoints(), ["127.0.0.1:7100", "127.0.0.1:7110", "127.0.0.1:7120"]);
        assert_eq!((layout.nodes[1].peer.as_str(), layout.nodes[1].ops.as_str()), ("127.0.0.1:7111", "127.0.0.1:7112"));
        assert_eq!(layout.nodes[1].peer_listen, "127.0.0.1:7113", "behind its proxy");
        let direct = Layout::new(Path::new("/p"), SHAPE, None, false).unwrap();
        assert_eq!(direct.nodes[1].peer_listen, direct.nodes[1].peer);
        assert_eq!(layout.nodes[2].data_dir, Path::new("/p/node-3"));
        assert_eq!(layout.shortener.as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(layout.replicas, 3);
    }

    #[test]
    fn fewer_than_three_nodes_have_one_replica() {
        let layout = Layout::new(Path::new("/p"), Shape { nodes: 2, ..SHAPE }, None, true).unwrap();
        assert_eq!((layout.replicas, layout.shortener), (1, None));
    }

    #[test]
    fn added_nodes_do_not_change_the_replicas_of_the_cluster() {
        let shape = Shape { nodes: 2, added: 2, ..SHAPE };
        let layout = Layout::new(Path::new("/p"), shape, None, true).unwrap();
        assert_eq!((layout.nodes.len(), layout.replicas), (4, 1));
        assert_eq!(Shape::choose(&Options { nodes: Some(2), ..Options::default() }, Some(shape)).unwrap(), shape);
    }

    #[test]
    fn ports_beyond_the_last_are_refused() {
        let error = Layout::new(Path::new("/p"), Shape { port_base: 65_530, ..SHAPE }, None, true).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        assert!(Layout::new(Path::new("/p"), Shape { port_base: 65_512, ..SHAPE }, None, true).is_ok());
    }

    #[test]
    fn a_directory_keeps_its_shape() {
        assert_eq!(Shape::choose(&Options::default(), None).unwrap(), SHAPE);
        let recorded = Shape { nodes: 5, shards: 4, port_base: 9000, added: 0 };
        assert_eq!(Shape::choose(&Options::default(), Some(recorded)).unwrap(), recorded);
        let five = Options { nodes: Some(5), ..Options::default() };
        assert_eq!(Shape::choose(&five, Some(recorded)).unwrap(), recorded);
        let three = Options { nodes: Some(3), ..Options::default() };
        let error = Shape::choose(&three, Some(recorded)).unwrap_err();
        assert!(error.why[0].contains("--nodes 5 --shards 4 --port-base 9000"), "{error:?}");
    }

    #[test]
    fn a_busy_port_is_named() {
        let busy = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut layout = Layout::new(Path::new("/p"), SHAPE, None, true).unwrap();
        layout.nodes.truncate(1);
        layout.nodes[0].client = busy.local_addr().unwrap().to_string();
        let error = layout.check_ports().unwrap_err();
        assert!(error.what.contains(&layout.nodes[0].client), "{error}");
        assert!(error.next[0].contains("--port-base"), "{error:?}");
    }
}
