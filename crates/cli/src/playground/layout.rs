//! Which process listens where and keeps its data where.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{NODES_DEFAULT, PORT_BASE_DEFAULT, SHARDS_DEFAULT};
use crate::cluster::REPLICAS_DEFAULT;
use crate::failure::{Exit, Failure};

/// Ports from one node to the next.
const PORTS_EACH: u32 = 10;
/// Nodes of a playground: they share a machine.
pub(super) const NODES_MAX: u32 = 9;

/// What the command line asks for; none: as recorded, else the default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish {
    pub(super) nodes: Option<u32>,
    pub(super) shards: Option<u32>,
    pub(super) port_base: Option<u16>,
}

/// What is fixed for a playground's directory when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    pub(super) nodes: u32,
    pub(super) shards: u32,
    pub(super) port_base: u16,
    /// Nodes that were added since.
    #[serde(default)]
    pub(super) added: u32,
}

impl Wish {
    /// The shape of a new playground; of one that is there already, what it has, unless something else is asked for.
    pub(super) fn over(self, recorded: Option<Shape>) -> Result<Shape, Failure> {
        let Some(recorded) = recorded else {
            return Ok(Shape {
                nodes: self.nodes.unwrap_or(NODES_DEFAULT),
                shards: self.shards.unwrap_or(SHARDS_DEFAULT),
                port_base: self.port_base.unwrap_or(PORT_BASE_DEFAULT),
                added: 0,
            });
        };
        let asked = Shape {
            nodes: self.nodes.unwrap_or(recorded.nodes),
            shards: self.shards.unwrap_or(recorded.shards),
            port_base: self.port_base.unwrap_or(recorded.port_base),
            added: recorded.added,
        };
        if asked != recorded {
            let Shape { nodes, shards, port_base, .. } = recorded;
            return Err(Failure::new(Exit::Usage, "the directory holds a cluster of another shape")
                .cause(format!("it has --nodes {nodes} --shards {shards} --port-base {port_base}"))
                .hint("leave these flags away to start it again, or give another --dir"));
        }
        Ok(recorded)
    }
}

/// A node to be started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodePlan {
    pub(super) client: String,
    /// Where other nodes reach it.
    pub(super) peer: String,
    /// Where it listens for them: behind its proxy, if it has one.
    pub(super) peer_listen: String,
    pub(super) ops: String,
    pub(super) data_dir: PathBuf,
}

/// Everything that is to be started.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) nodes: Vec<NodePlan>,
    pub(super) shards: u32,
    pub(super) replicas: u32,
    /// The nodes' peer ports are behind proxies that can cut them from each other.
    pub(super) proxied: bool,
    /// Where the shortener listens; none: it is not wanted.
    pub(super) shortener: Option<String>,
    /// Where the processes' logs go.
    pub(super) logs: PathBuf,
}

impl Layout {
    pub(super) fn new(home: &Path, shape: Shape, shortener_port: Option<u16>, proxied: bool) -> Result<Self, Failure> {
        let nodes = shape.nodes + shape.added;
        let last = u32::from(shape.port_base) + PORTS_EACH * (nodes - 1) + 3;
        if last > u32::from(u16::MAX) {
            return Err(Failure::new(Exit::Usage, format!("{nodes} nodes would need ports up to {last}"))
                .hint("give a smaller --port-base"));
        }
        let address = |port: u32| format!("{}:{port}", Ipv4Addr::LOCALHOST);
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
            // Three where there were nodes for them when the cluster was made.
            replicas: if shape.nodes >= REPLICAS_DEFAULT { REPLICAS_DEFAULT } else { 1 },
            proxied,
            shortener: shortener_port.map(|port| address(port.into())),
            logs: home.join("logs"),
        })
    }

    /// Client addresses of all nodes.
    pub(super) fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    /// Refuses ports that somebody else has, before anything is started.
    pub(super) fn check_ports(&self) -> Result<(), Failure> {
        self.nodes.iter().try_for_each(NodePlan::check_ports)?;
        match &self.shortener {
            Some(address) => {
                free(address).map_err(|failure| failure.hint("give another --shortener-port, or --no-shortener"))
            }
            None => Ok(()),
        }
    }
}

impl NodePlan {
    /// Refuses ports that somebody else has.
    pub(super) fn check_ports(&self) -> Result<(), Failure> {
        [&self.client, &self.peer, &self.peer_listen, &self.ops].into_iter().try_for_each(|address| {
            free(address).map_err(|failure| failure.hint("is another playground running? or give another --port-base"))
        })
    }
}

fn free(address: &str) -> Result<(), Failure> {
    TcpListener::bind(address)
        .map(drop)
        .map_err(|error| Failure::new(Exit::Other, format!("cannot listen on {address}")).cause(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { nodes: 3, shards: 16, port_base: 7100, added: 0 };

    #[test]
    fn three_nodes_have_the_ports_of_the_manual() {
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
    fn nodes_that_were_added_do_not_change_what_the_cluster_was_made_with() {
        let shape = Shape { nodes: 2, added: 2, ..SHAPE };
        let layout = Layout::new(Path::new("/p"), shape, None, true).unwrap();
        assert_eq!((layout.nodes.len(), layout.replicas), (4, 1));
        assert_eq!(Wish { nodes: Some(2), ..Wish::default() }.over(Some(shape)).unwrap(), shape);
    }

    #[test]
    fn ports_beyond_the_last_are_refused() {
        let failure = Layout::new(Path::new("/p"), Shape { port_base: 65_530, ..SHAPE }, None, true).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        assert!(Layout::new(Path::new("/p"), Shape { port_base: 65_512, ..SHAPE }, None, true).is_ok());
    }

    #[test]
    fn a_directory_keeps_its_shape() {
        assert_eq!(Wish::default().over(None).unwrap(), SHAPE);
        let recorded = Shape { nodes: 5, shards: 4, port_base: 9000, added: 0 };
        assert_eq!(Wish::default().over(Some(recorded)).unwrap(), recorded);
        assert_eq!(Wish { nodes: Some(5), ..Wish::default() }.over(Some(recorded)).unwrap(), recorded);
        let failure = Wish { nodes: Some(3), ..Wish::default() }.over(Some(recorded)).unwrap_err();
        assert!(failure.to_string().contains("--nodes 5 --shards 4 --port-base 9000"), "{failure}");
    }

    #[test]
    fn a_busy_port_is_named() {
        let busy = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut layout = Layout::new(Path::new("/p"), SHAPE, None, true).unwrap();
        layout.nodes.truncate(1);
        layout.nodes[0].client = busy.local_addr().unwrap().to_string();
        let failure = layout.check_ports().unwrap_err();
        assert!(failure.to_string().contains(&layout.nodes[0].client), "{failure}");
        assert!(failure.to_string().contains("--port-base"), "{failure}");
    }
}
