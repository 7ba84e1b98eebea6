//! The network between the nodes, as far as a playground can cut it: a proxy before each node's peer port.
//!
//! ```text
//!   node 1 ──┐                ┌─ P+1  proxy ── P+3  node 1
//!   node 2 ──┼─ peer address ─┼─ P+11 proxy ── P+13 node 2      a proxy knows by the connection's owner who calls,
//!   node 3 ──┘                └─ P+21 proxy ── P+23 node 3      and so whether the cut lies between the two
//! ```
//!
//! A cut is silent, as in a real network: bytes stay where they are and nobody is told. What stood still for a short time goes on
//! when the cut is healed. Clients reach the nodes without a proxy, so they keep reaching both sides.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::layout::NodePlan;
use super::owner::{Owner, owner};
use crate::failure::{Exit, Failure};

/// Read at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// A connection that stood still for so long is given up; whoever waits at its ends has given it up before.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Connections through one proxy at a time. Nine nodes need fewer than a hundred; more wait to be accepted.
const CONNECTIONS_MAX: usize = 512;

/// What all proxies look at.
#[derive(Clone, Debug, Default)]
struct Network {
    /// The nodes on one side of the cut, by their places in the layout; the others are on the other side.
    side: BTreeSet<usize>,
    /// The process of each node, by its place.
    processes: Vec<Option<u32>>,
}

impl Network {
    fn is_cut(&self, from: Option<usize>, to: usize) -> bool {
        // Whoever is no node is not of this network.
        from.is_some_and(|from| self.side.contains(&from) != self.side.contains(&to))
    }
}

/// The proxies. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Links {
    network: watch::Sender<Network>,
    proxies: Vec<AbortOnDropHandle<()>>,
}

impl Links {
    /// A network without nodes.
    pub(super) fn new() -> Self {
        Links { network: watch::Sender::new(Network::default()), proxies: Vec::new() }
    }

    /// Starts the proxy before the next node of the layout.
    pub(super) async fn add(&mut self, node: &NodePlan) -> Result<(), Failure> {
        let listener = TcpListener::bind(&node.peer).await.map_err(|error| {
            Failure::new(Exit::Other, format!("cannot listen on {}", node.peer))
                .cause(error)
                .hint("is another playground running? or give another --port-base")
        })?;
        let place = self.proxies.len();
        let proxy = Proxy { place, target: node.peer_listen.clone(), network: self.network.subscribe() };
        self.proxies.push(AbortOnDropHandle::new(tokio::spawn(proxy.run(listener))));
        Ok(())
    }

    /// Takes note of the process of a node; calls are told apart by it.
    pub(super) fn runs_as(&self, place: usize, process: Option<u32>) {
        self.network.send_modify(|network| {
            network.processes.resize(network.processes.len().max(place + 1), None);
            network.processes[place] = process;
        });
    }

    /// Cuts these nodes from the others; an empty set heals.
    pub(super) fn cut(&self, side: BTreeSet<usize>) {
        self.network.send_modify(|network| network.side = side);
    }

    /// The nodes on one side of the cut; empty: there is none.
    pub(super) fn side(&self) -> BTreeSet<usize> {
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
        // Connections end with the proxy: the set aborts what it holds when it is dropped.
        let mut connections = JoinSet::new();
        loop {
            while connections.len() >= CONNECTIONS_MAX {
                connections.join_next().await;
            }
            match listener.accept().await {
                Ok((caller, address)) => drop(connections.spawn(self.clone().carry(caller, address))),
                // Out of file descriptors, or the caller is gone already: a pause, and on.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            while connections.try_join_next().is_some() {}
        }
    }

    /// Carries one connection until an end closes it, or a cut stalls it for too long.
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
        // Failing to switch the delay off only makes it slower.
        let _ = (caller.set_nodelay(true), node.set_nodelay(true));
        let (from_caller, to_caller) = caller.into_split();
        let (from_node, to_node) = node.into_split();
        tokio::select! {
            () = copy(from_caller, to_node, gate.clone()) => {}
            () = copy(from_node, to_caller, gate) => {}
        }
    }
}

/// Open while no cut lies between the two.
#[derive(Clone)]
struct Gate {
    from: Option<usize>,
    to: usize,
    network: watch::Receiver<Network>,
}

/// The cut lasted too long.
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

    /// This process plays node 0, which calls node 1: a cut stops both directions, also of a connection that is open, and
    /// what stood still goes on afterwards. A cut on whose one side both are does nothing.
    #[tokio::test]
    async fn a_cut_stops_both_directions_and_heals() {
        let (listener, target) = echo().await;
        let mut links = Links::new();
        let plan = |peer: String, peer_listen: String| NodePlan { peer, peer_listen, ..NodePlan::default() };
        links.add(&plan(free_address().await, free_address().await)).await.unwrap();
        let peer = free_address().await;
        links.add(&plan(peer.clone(), target)).await.unwrap();
        links.runs_as(0, Some(std::process::id()));

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
        assert!(timeout(silence, node.read_exact(&mut byte)).await.is_err(), "a request passed the cut");
        assert!(timeout(silence, caller.read_exact(&mut byte)).await.is_err(), "a reply passed the cut");
        let _other = TcpStream::connect(&peer).await.unwrap();
        assert!(timeout(silence, listener.accept()).await.is_err(), "a new connection passed the cut");

        links.cut(BTreeSet::new());
        node.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"c");
        caller.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"d");
        listener.accept().await.unwrap();
    }

    /// Whoever is no node of the playground is not cut off.
    #[tokio::test]
    async fn other_processes_are_not_of_the_network() {
        let (listener, target) = echo().await;
        let mut links = Links::new();
        let peer = free_address().await;
        links.add(&NodePlan { peer: peer.clone(), peer_listen: target, ..NodePlan::default() }).await.unwrap();
        links.runs_as(0, None);
        links.cut(BTreeSet::from([0]));
        let _caller = TcpStream::connect(&peer).await.unwrap();
        listener.accept().await.unwrap();
    }
}
