//! The network between clients and nodes: the router's `Network` and `Connection`, simulated.
//!
//! ```text
//!   attempt ─→ open ─→ request ─→ served by the node ─→ reply ─→ Attempt
//!               │        │                                │
//!               │        │                                └ lost, or the connection ends
//!               │        └ lost, delivered late, or the connection ends
//!               └ refused while the node is down
//! ```
//!
//! A node completes a request even if the client no longer waits. A connection belongs to one life
//! of a node: its requests never reach a later life.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use quorate_control::Server;
use quorate_router::{Attempt, Connection, Health, Network, Router, RouterConfig, Target, TopologyUnavailable};
use quorate_types::topology::Topology;
use quorate_types::{HostPort, KvRequest, NodeId};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::disk::Life;
use crate::scenario::Stream;
use crate::world::World;

/// `Scenario::losses` of this many trips lose their message.
const TRIPS: u32 = 20_000;
/// How many of [`TRIPS`] end the connection, in scenarios with network faults.
const ENDS: u32 = 100;
/// How late a request may still arrive after its connection ended.
const LATE_MS_MAX: u64 = 3_000;

/// The router of one client. Clients are numbered from 0 in the order of their start: one beside
/// each node, and then clients that no cut between nodes affects.
pub(crate) fn router(world: &Arc<World>, client: u64) -> Router {
    let mut rng = Stream::Client(client).rng(world.scenario.seed);
    let endpoint = |address: &str| address.parse::<HostPort>().expect("the addresses of the world are valid");
    let endpoints = world.bootstrap.nodes.iter().map(|node| endpoint(&node.addresses.client)).collect();
    let seed = rng.random();
    let home = (client < world.scenario.shape.nodes).then_some(NodeId(1 + client));
    let network = ClientNetwork { world: world.clone(), home, rng: Arc::new(Mutex::new(rng)) };
    Router::new(RouterConfig::new(endpoints), Arc::new(network), seed).expect("the world has nodes")
}

/// The network as one client uses it.
#[derive(Clone)]
struct ClientNetwork {
    world: Arc<World>,
    /// The node beside the client, if any. A cut between this node and another one also cuts off
    /// the client.
    home: Option<NodeId>,
    rng: Arc<Mutex<StdRng>>,
}

/// The fate of a request and its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Arrives,
    /// The request is lost, and the connection stays silent.
    RequestLost,
    /// The reply is lost, and the connection stays silent.
    ReplyLost,
    /// The connection ends while the request travels. With a duration, the request still arrives,
    /// later by it.
    EndsBefore(Option<Duration>),
    /// The connection ends while the reply travels.
    EndsAfter,
}

/// The delays and the fate of a request and its reply.
#[derive(Clone, Copy, Debug)]
struct Trip {
    there: Duration,
    back: Duration,
    fate: Fate,
}

impl ClientNetwork {
    fn rng(&self) -> MutexGuard<'_, StdRng> {
        self.rng.lock().expect("only a broken invariant poisons this lock")
    }

    /// Draws the trip of a request to a node, or to an address where there is none.
    fn trip(&self, to: Option<NodeId>) -> Trip {
        let scenario = &self.world.scenario;
        let (least, most) = scenario.latency_us;
        let mut rng = self.rng();
        let (there, back) = (rng.random_range(least..=most), rng.random_range(least..=most));
        let ends = if scenario.faults.network { ENDS } else { 0 };
        let (before, after) = (rng.random_range(0..TRIPS), rng.random_range(0..TRIPS));
        let fate = if self.is_cut_off(to) {
            Fate::EndsBefore(None)
        } else if before < scenario.losses {
            Fate::RequestLost
        } else if before < scenario.losses + ends {
            let late = rng.random_range(0..=LATE_MS_MAX);
            Fate::EndsBefore(rng.random_bool(0.5).then_some(Duration::from_millis(late)))
        } else if after < scenario.losses {
            Fate::ReplyLost
        } else if after < scenario.losses + ends {
            Fate::EndsAfter
        } else {
            Fate::Arrives
        };
        Trip { there: Duration::from_micros(there), back: Duration::from_micros(back), fate }
    }

    fn is_cut_off(&self, to: Option<NodeId>) -> bool {
        self.home.zip(to).is_some_and(|(home, to)| self.world.network.is_cut(home, to))
    }

    /// The node with this client address in the newest map. Before the first map, the bootstrap
    /// record has the addresses.
    fn node_at(&self, endpoint: &str) -> Option<NodeId> {
        let map = self.world.newest_map();
        let nodes = map.as_ref().map_or(&self.world.bootstrap.nodes, |map| &map.nodes);
        nodes.iter().find(|node| node.addresses.client == endpoint).map(|node| node.id)
    }
}

impl Network for ClientNetwork {
    fn connection(&self, target: Target, health: Arc<Health>) -> Arc<dyn Connection> {
        Arc::new(SimConnection {
            network: self.clone(),
            node: target.node,
            health,
            line: Mutex::default(),
            ended: Notify::new(),
            outstanding: AtomicUsize::new(0),
        })
    }

    fn topology<'a>(
        &'a self,
        endpoint: &'a str,
        within: Duration,
    ) -> BoxFuture<'a, Result<Topology, TopologyUnavailable>> {
        let node = self.node_at(endpoint);
        let trip = self.trip(node);
        let fetch = async move {
            sleep(trip.there).await;
            if trip.fate != Fate::Arrives {
                std::future::pending::<()>().await;
            }
            let member = node.and_then(|node| self.world.member(node));
            let topology = member.map(|member| member.plane.store.feed.latest());
            sleep(trip.back).await;
            let unavailable = |reason: &str| TopologyUnavailable(reason.to_owned());
            let topology = topology.ok_or_else(|| unavailable("connection refused"))?;
            topology
                .map(|map| Topology::clone(&map.topology))
                .ok_or_else(|| unavailable("the node has joined no cluster"))
        };
        Box::pin(async move {
            let late = |_| Err(TopologyUnavailable(format!("no answer within {} ms", within.as_millis())));
            timeout(within, fetch).await.unwrap_or_else(late)
        })
    }
}

/// The connection of one client to one node.
struct SimConnection {
    network: ClientNetwork,
    node: NodeId,
    health: Arc<Health>,
    line: Mutex<Line>,
    ended: Notify,
    outstanding: AtomicUsize,
}

/// The state of a connection.
#[derive(Default)]
struct Line {
    /// The connection's number. It grows when the connection ends.
    number: u64,
    /// The node's life that the open connection belongs to.
    life: Option<Arc<Life>>,
}

impl SimConnection {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().expect("only a broken invariant poisons this lock")
    }

    /// The number of the open connection and the node's life. Connects first if necessary.
    async fn open(&self) -> Result<(u64, Arc<Life>), Attempt> {
        let open = {
            let line = self.line();
            line.life.clone().map(|life| (line.number, life))
        };
        match open {
            Some((number, life)) if life.is_alive() => return Ok((number, life)),
            Some((number, _)) => self.end(number, "the node is gone"),
            None => {}
        }
        let trip = self.network.trip(Some(self.node));
        sleep(trip.there + trip.back).await;
        let Some(member) = self.network.world.member(self.node) else {
            self.health.failure("connection refused");
            return Err(Attempt::NotSent("connection refused".into()));
        };
        let mut line = self.line();
        let life = line.life.get_or_insert_with(|| member.life.clone()).clone();
        Ok((line.number, life))
    }

    /// Ends the connection of this number, if it has not ended yet.
    fn end(&self, number: u64, reason: &str) {
        {
            let mut line = self.line();
            if line.number != number {
                return;
            }
            *line = Line { number: number + 1, life: None };
        }
        self.health.failure(reason);
        self.ended.notify_waiters();
    }

    /// Waits for the end of the connection of this number.
    async fn ended(&self, number: u64) {
        loop {
            // Created before the number is read, so that a later notification is not missed.
            let ended = self.ended.notified();
            if self.line().number != number {
                return;
            }
            ended.await;
        }
    }

    async fn exchange(&self, number: u64, life: Arc<Life>, request: KvRequest) -> Attempt {
        let trip = self.network.trip(Some(self.node));
        let (world, node) = (self.network.world.clone(), self.node);
        let its_life = life.number;
        let served = tokio::spawn(async move {
            sleep(trip.there).await;
            match trip.fate {
                Fate::RequestLost | Fate::EndsBefore(None) => return None,
                Fate::EndsBefore(Some(late)) => sleep(late).await,
                Fate::Arrives | Fate::ReplyLost | Fate::EndsAfter => {}
            }
            let member = world.member(node).filter(|member| member.life.number == its_life)?;
            Some(Server::new(member.plane.clone()).serve(request).await)
        });
        if let Fate::EndsBefore(_) = trip.fate {
            sleep(trip.there).await;
            self.end(number, "the connection ended");
            return Attempt::Lost("the connection ended".into());
        }
        let served = served.await.ok().flatten();
        sleep(trip.back).await;
        if trip.fate == Fate::EndsAfter || !life.is_alive() {
            self.end(number, "the connection ended");
            return Attempt::Lost("the connection ended".into());
        }
        match served {
            Some(Ok(served)) if trip.fate == Fate::Arrives => Attempt::Served(served),
            Some(Err(rejection)) if trip.fate == Fate::Arrives => Attempt::Rejected(rejection),
            _ => std::future::pending().await,
        }
    }
}

impl Connection for SimConnection {
    fn attempt(&self, request: KvRequest, until: Instant) -> BoxFuture<'_, Attempt> {
        Box::pin(async move {
            let _counted = Counted::new(&self.outstanding);
            let started = Instant::now();
            let opened = tokio::select! {
                biased;
                opened = self.open() => opened,
                () = sleep_until(until) => Err(Attempt::NotSent("no connection in time".into())),
            };
            let (number, life) = match opened {
                Ok(opened) => opened,
                Err(attempt) => return attempt,
            };
            tokio::select! {
                biased;
                attempt = self.exchange(number, life, request) => attempt,
                () = self.ended(number) => Attempt::Lost("the connection ended".into()),
                () = sleep_until(until) => Attempt::Silent { waited: started.elapsed() },
            }
        })
    }

    fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }
}

/// Counts an attempt until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
