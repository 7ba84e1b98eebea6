//! The network between the nodes: a proxy before each node's peer port, which partitions close.
//!
//! ```text
//!   node 1 ──┐                ┌─ P+1  proxy ── P+3  node 1
//!   node 2 ──┼─ peer address ─┼─ P+11 proxy ── P+13 node 2
//!   node 3 ──┘                └─ P+21 proxy ── P+23 node 3
//! ```
//!
//! A proxy finds the process that connects, and thus the node at the other end, through `owner`.
//!
//! A partition is silent, as in a real network: bytes are held back and neither end is notified.
//! Connections that were held back for less than [`STALL_MAX`] resume when the partition heals.
//! Clients connect without a proxy, so they reach the nodes on both sides.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::error::{Error, Kind};
use crate::layout::NodePlan;
use crate::owner::{Owner, owner};

/// Bytes of one read.
const CHUNK_BYTES: usize = 64 << 10;
/// A connection that was held back for this long is closed. The nodes at its ends time out earlier.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Concurrent connections of one proxy; further ones wait to be accepted. Nine nodes need fewer
/// than a hundred.
const CONNECTIONS_MAX: usize = 512;

/// The state that all proxies share.
#[derive(Clone, Debug, Default)]
struct Network {
    /// The nodes on one side of the partition, by place in the layout. Empty: no partition.
    side: BTreeSet<usize>,
    /// The process of each node, by its place.
    processes: Vec<Option<u32>>,
}

impl Network {
    fn is_cut(&self, from: Option<usize>, to: usize) -> bool {
        // Processes that are not nodes are not part of this network.
        from.is_some_and(|from| self.side.contains(&from) != self.side.contains(&to))
    }
}

/// The proxies. They stop when this is dropped.
#[derive(Debug)]
pub(crate) struct Links {
    network: watch::Sender<Network>,
    proxies: Vec<AbortOnDropHandle<()>>,
}

impl Links {
    /// A network without nodes.
    pub(crate) fn new() -> Self {
        Links { network: watch::Sender::new(Network::default()), proxies: Vec::new() }
    }

    /// Starts the proxy before the next node of the layout.
    pub(crate) async fn add(&mut self, node: &NodePlan) -> Result<(), Error> {
        let listener = TcpListener::bind(&node.peer).await.map_err(|error| {
            Error::new(Kind::Failed, format!("cannot listen on {}", node.peer))
                .why(error)
                .next("stop the other playground, or choose another --port-base")
        })?;
        let place = self.proxies.len();
        let proxy = Proxy { place, target: node.peer_listen.clone(), network: self.network.subscribe() };
        self.proxies.push(AbortOnDropHandle::new(tokio::spawn(proxy.run(listener))));
        Ok(())
    }

    /// Sets the process of a node, by which proxies recognize its connections.
    pub(crate) fn set_process(&self, place: usize, process: Option<u32>) {
        self.network.send_modify(|network| {
            network.processes.resize(network.processes.len().max(place + 1), None);
            network.processes[place] = process;
        });
    }

    /// Partitions these nodes from the others; an empty set heals.
    pub(crate) fn cut(&self, side: BTreeSet<usize>) {
        self.network.send_modify(|network| network.side = side);
    }

    /// The nodes on one side of the partition; empty: there is none.
    pub(crate) fn side(&self) -> BTreeSet<usize> {
        self.network.borrow().side.clone()
    }
}

/// One node's proxy.
#[derive(Clone)]
struct Proxy {
    place: usize,
    target: String,
    network: watch::Receiver<Network>,
}

impl Proxy {
    async fn run(self, listener: TcpListener) {
        // Connections end with the proxy: a dropped set aborts its tasks.
        let mut connections = JoinSet::new();
        loop {
            while connections.len() >= CONNECTIONS_MAX {
                connections.join_next().await;
            }
            match listener.accept().await {
                Ok((caller, address)) => drop(connections.spawn(self.clone().carry(caller, address))),
                // Out of file descriptors, or the caller is gone already. Both pass.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            while connections.try_join_next().is_some() {}
        }
    }

    /// Forwards one connection until either end closes it, or a partition stalls it for too long.
    async fn carry(self, caller: TcpStream, address: SocketAddr) {
        let processes = self.network.borrow().processes.clone();
        let Ok(listening) = caller.local_addr() else { return };
        let found = tokio::task::spawn_blocking(move || owner(address, listening, &processes)).await;
        let from = match found {
            Ok(Owner::Node(place)) => Some(place),
            Ok(Owner::Other) => None,
            Ok(Owner::Gone) | Err(_) => return,
        };
        let gate = Gate { from, to: self.place, network: self.network };
        if gate.clone().open().await.is_err() {
            return;
        }
        let Ok(node) = TcpStream::connect(&self.target).await else { return };
        // With Nagle's delay the proxy is only slower, so errors are ignored.
        let _ = (caller.set_nodelay(true), node.set_nodelay(true));
        let (from_caller, to_caller) = caller.into_split();
        let (from_node, to_node) = node.into_split();
        tokio::select! {
            () = copy(from_caller, to_node, gate.clone()) => {}
            () = copy(from_node, to_caller, gate) => {}
        }
    }
}

/// Between two nodes: open while no partition separates them.
#[derive(Clone)]
struct Gate {
    from: Option<usize>,
    to: usize,
    network: watch::Receiver<Network>,
}

/// The partition lasted longer than [`STALL_MAX`].
struct Stalled;

impl Gate {
    async fn open(mut self) -> Result<(), Stalled> {
        let Gate { from, to, network } = &mut self;
        let opened = network.wait_for(|network| !network.is_cut(*from, *to));
        match timeout(STALL_MAX, opened).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Stalled),
        }
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, gate: Gate) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = match from.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        if gate.clone().open().await.is_err() || to.write_all(&chunk[..read]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    async fn free_address() -> String {
        echo().await.1
    }

    /// This process plays node 0, which connects to node 1. A partition holds back both directions,
    /// also on an open connection, and healing releases the bytes. A partition with both nodes on
    /// one side has no effect.
    #[tokio::test]
    async fn a_partition_holds_back_both_directions_and_heals() {
        let (listener, target) = echo().await;
        let mut links = Links::new();
        let plan = |peer: String, peer_listen: String| NodePlan { peer, peer_listen, ..NodePlan::default() };
        links.add(&plan(free_address().await, free_address().await)).await.unwrap();
        let peer = free_address().await;
        links.add(&plan(peer.clone(), target)).await.unwrap();
        links.set_process(0, Some(std::process::id()));

        let mut caller = TcpStream::connect(&peer).await.unwrap();
        let (mut node, _) = listener.accept().await.unwrap();
        let mut byte = [0];
        caller.write_all(b"a").await.unwrap();
        node.read_exact(&mut byte).await.unwrap();
        links.cut(BTreeSet::from([0, 1]));
        node.write_all(b"b").await.unwrap();
        caller.read_exact(&mut byte).await.unwrap();

        links.cut(BTreeSet::from([1]));
        caller.write_all(b"c").await.unwrap();
        node.write_all(b"d").await.unwrap();
        let silence = Duration::from_millis(300);
        assert!(timeout(silence, node.read_exact(&mut byte)).await.is_err(), "a request crossed the partition");
        assert!(timeout(silence, caller.read_exact(&mut byte)).await.is_err(), "a reply crossed the partition");
        let _other = TcpStream::connect(&peer).await.unwrap();
        assert!(timeout(silence, listener.accept()).await.is_err(), "a new connection crossed the partition");

        links.cut(BTreeSet::new());
        node.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"c");
        caller.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"d");
        listener.accept().await.unwrap();
    }

    /// A partition does not affect processes that are not nodes of the playground.
    #[tokio::test]
    async fn other_processes_cross_a_partition() {
        let (listener, target) = echo().await;
        let mut links = Links::new();
        let peer = free_address().await;
        links.add(&NodePlan { peer: peer.clone(), peer_listen: target, ..NodePlan::default() }).await.unwrap();
        links.set_process(0, None);
        links.cut(BTreeSet::from([0]));
        let _caller = TcpStream::connect(&peer).await.unwrap();
        listener.accept().await.unwrap();
    }
}
