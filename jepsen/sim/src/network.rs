//! The network between nodes: seeded delays and losses, and directed cuts, within the contract of
//! the transport.
//!
//! ```text
//!   send ──→ lane (from, to, control|bulk) ──→ delivered in order, after a delay
//!             ├──→ lost: the connection breaks with all its messages and stays down for a while
//!             └──→ held while the link is cut: delivered late and in order, or lost
//! ```
//!
//! A message travels as the bytes of a frame, so that a run includes the codec. Lanes do not wait
//! for each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use quorate_machine::log::MemoryLog;
use quorate_machine::state::MemoryState;
use quorate_raft::{Groups, InstallError, Lane, Received, SnapshotFiles, SnapshotUnsent, Transport, Unsent};
use quorate_types::peer::{self, PeerMessage, SnapshotHeader, SnapshotRefusal};
use quorate_types::{NodeId, Vote};
use rand::RngExt;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::disk::{Life, Synced};
use crate::promise;
use crate::trace::Trace;

/// The most messages that a cut link holds. One more breaks the connection, and all are lost.
const HELD_MAX: usize = 2_000;
/// The throughput of a snapshot's transfer.
const SNAPSHOT_BYTES_PER_MS: u64 = 200;

/// How many snapshots a receiver refuses before they are sent, in runs with losses.
const SNAPSHOT_REFUSED: f64 = 0.2;
/// How many snapshots are read from a bad disk, in runs with losses.
const SNAPSHOT_SPOILED: f64 = 0.1;

/// A kind of traffic with its own random source, so that the number of pings shifts no other
/// message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Raft's messages, snapshots, and the control plane's calls.
    Calls,
    /// The control plane's pings.
    Pings,
}

type LaneKey = (NodeId, NodeId, bool);

/// A network of nodes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Network {
    wires: Arc<Mutex<Wires>>,
    sent: Arc<Notify>,
    trace: Arc<Trace>,
    /// Broken promises since the last check.
    broken: Arc<Mutex<Vec<String>>>,
}

struct Wires {
    rng: StdRng,
    ping_rng: StdRng,
    latency_us: (u64, u64),
    losses: u32,
    up: BTreeMap<NodeId, (Groups, Arc<Life>)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// The additional delay of each slow link.
    slow: BTreeMap<(NodeId, NodeId), Duration>,
    lanes: BTreeMap<LaneKey, LaneState>,
    on_the_way: BTreeMap<(Instant, u64), InFlight>,
    sent: u64,
    /// Some snapshots are refused or spoiled, as messages are lost in the same runs.
    snapshot_faults: bool,
    snapshots_refused: u64,
}

#[derive(Default)]
struct LaneState {
    /// The connection's number. It grows when the connection breaks: messages of an older
    /// connection never arrive.
    connection: u64,
    broken_until: Option<Instant>,
    last_arrival: Option<Instant>,
    held: VecDeque<InFlight>,
}

struct InFlight {
    lane: LaneKey,
    connection: u64,
    /// The receiver's life that the message is for.
    life: u64,
    bytes: Vec<u8>,
}

impl Wires {
    fn rng(&mut self, traffic: Traffic) -> &mut StdRng {
        match traffic {
            Traffic::Calls => &mut self.rng,
            Traffic::Pings => &mut self.ping_rng,
        }
    }

    fn delay(&mut self, traffic: Traffic, from: NodeId, to: NodeId) -> Duration {
        let (least, most) = self.latency_us;
        // Most delays are short; a few are long.
        let spread = self.rng(traffic).random_range(0.0_f64..1.0).powi(3);
        let usual = Duration::from_micros(least + ((most.saturating_sub(least)) as f64 * spread) as u64);
        usual + self.slow.get(&(from, to)).copied().unwrap_or_default()
    }

    fn is_lost(&mut self, traffic: Traffic) -> bool {
        self.losses > 0 && self.rng(traffic).random_range(0..10_000) < self.losses
    }

    fn break_lane(&mut self, key: LaneKey) {
        let pause = Duration::from_millis(self.rng.random_range(1..=80));
        let lane = self.lanes.entry(key).or_default();
        lane.connection += 1;
        lane.held.clear();
        lane.broken_until = Some(Instant::now() + pause);
    }

    fn put_on_the_way(&mut self, message: InFlight) {
        let (from, to, _) = message.lane;
        let at = Instant::now() + self.delay(Traffic::Calls, from, to);
        let lane = self.lanes.entry(message.lane).or_default();
        let at = lane.last_arrival.map_or(at, |last| at.max(last));
        lane.last_arrival = Some(at);
        self.sent += 1;
        let number = self.sent;
        self.on_the_way.insert((at, number), message);
    }
}

impl Network {
    /// A network without nodes. `rngs` are the sources for [`Traffic::Calls`] and
    /// [`Traffic::Pings`].
    pub(crate) fn new(rngs: [StdRng; 2], latency_us: (u64, u64), losses: u32, trace: Arc<Trace>) -> Self {
        let [rng, ping_rng] = rngs;
        let wires = Wires {
            rng,
            ping_rng,
            latency_us,
            losses,
            up: BTreeMap::new(),
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            lanes: BTreeMap::new(),
            on_the_way: BTreeMap::new(),
            sent: 0,
            snapshot_faults: losses > 0,
            snapshots_refused: 0,
        };
        Network { wires: Arc::new(Mutex::new(wires)), sent: Arc::new(Notify::new()), trace, broken: Arc::default() }
    }

    /// Delivers messages until it is dropped.
    pub(crate) async fn run(self) {
        loop {
            let (due, next) = {
                let mut wires = self.wires();
                let now = Instant::now();
                let later = wires.on_the_way.split_off(&(now + Duration::from_nanos(1), 0));
                let due = std::mem::replace(&mut wires.on_the_way, later);
                (due, wires.on_the_way.keys().next().map(|(at, _)| *at))
            };
            if !due.is_empty() {
                due.into_values().for_each(|message| self.deliver(message));
                tokio::task::yield_now().await;
                continue;
            }
            let sent = self.sent.notified();
            match next {
                Some(at) => {
                    // A message sent meanwhile on another lane may be due earlier.
                    let _ = tokio::time::timeout_at(at, sent).await;
                }
                None => sent.await,
            }
        }
    }

    fn deliver(&self, message: InFlight) {
        let (from, to, _) = message.lane;
        let groups = {
            let wires = self.wires();
            let connected = wires.lanes.get(&message.lane).is_some_and(|lane| lane.connection == message.connection);
            let there = wires.up.get(&to).filter(|(_, life)| connected && life.number == message.life);
            there.map(|(groups, _)| groups.clone())
        };
        let Some(groups) = groups else {
            return self.trace.message("lost", from, to, &message.bytes, String::new);
        };
        let messages = peer::decode_frame(&message.bytes).expect("a frame is read as it was written");
        for message in messages {
            self.trace.message("got", from, to, &[], String::new);
            groups.receive(from, message);
        }
    }

    pub(crate) fn connect(&self, node: NodeId, groups: Groups, life: Arc<Life>) {
        self.wires().up.insert(node, (groups, life));
    }

    /// Disconnects a dead node. Messages that it sent before may still arrive.
    pub(crate) fn disconnect(&self, node: NodeId) {
        let mut wires = self.wires();
        wires.up.remove(&node);
        let keys: Vec<LaneKey> = wires.lanes.keys().filter(|(_, to, _)| *to == node).copied().collect();
        keys.into_iter().for_each(|key| wires.break_lane(key));
    }

    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.wires().cut.insert((from, to));
    }

    /// Mends one link: held messages arrive late, or the connection breaks.
    pub(crate) fn restore(&self, from: NodeId, to: NodeId) {
        let mut wires = self.wires();
        if !wires.cut.remove(&(from, to)) {
            return;
        }
        for bulk in [false, true] {
            let key = (from, to, bulk);
            let Some(held) = wires.lanes.get_mut(&key).map(|lane| std::mem::take(&mut lane.held)) else { continue };
            if wires.rng.random_bool(0.5) {
                held.into_iter().for_each(|message| wires.put_on_the_way(message));
            } else {
                wires.break_lane(key);
            }
        }
        drop(wires);
        self.sent.notify_one();
    }

    /// True if the link between two nodes is cut in either direction.
    pub(crate) fn is_cut(&self, one: NodeId, other: NodeId) -> bool {
        let wires = self.wires();
        wires.cut.contains(&(one, other)) || wires.cut.contains(&(other, one))
    }

    pub(crate) fn slow_down(&self, from: NodeId, to: NodeId, by: Duration) {
        self.wires().slow.insert((from, to), by);
    }

    /// Mends all links. Afterwards no message is lost or slow.
    pub(crate) fn heal(&self) {
        let cut: Vec<_> = {
            let mut wires = self.wires();
            wires.slow.clear();
            wires.losses = 0;
            wires.snapshot_faults = false;
            wires.latency_us.1 = wires.latency_us.1.min(1_000);
            wires.cut.iter().copied().collect()
        };
        cut.into_iter().for_each(|(from, to)| self.restore(from, to));
    }

    pub(crate) fn speed_up(&self) {
        self.wires().slow.clear();
    }

    /// One direction of a control plane call or a snapshot transfer: false if it is lost.
    pub(crate) async fn pass(&self, traffic: Traffic, from: NodeId, to: NodeId) -> bool {
        let (delay, lost) = {
            let mut wires = self.wires();
            (wires.delay(traffic, from, to), wires.is_lost(traffic))
        };
        tokio::time::sleep(delay).await;
        !lost && !self.wires().cut.contains(&(from, to))
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().expect("only a broken invariant poisons this lock")
    }

    /// The transport of a node in one of its lives.
    pub(crate) fn transport(
        &self,
        node: NodeId,
        life: Arc<Life>,
        log: Arc<MemoryLog>,
        synced: Arc<Synced>,
        state: Arc<MemoryState>,
    ) -> Arc<dyn Transport> {
        Arc::new(NodeTransport { network: self.clone(), from: node, life, log, synced, state })
    }

    /// Broken promises since the last call.
    pub(crate) fn broken_promises(&self) -> Vec<String> {
        std::mem::take(&mut *self.broken.lock().expect("only a broken invariant poisons this lock"))
    }

    /// The receiver of a snapshot, if the link to it is open in both directions.
    fn receiver(&self, from: NodeId, to: NodeId) -> Result<(Groups, Arc<Life>), SnapshotUnsent> {
        let wires = self.wires();
        if wires.cut.contains(&(from, to)) || wires.cut.contains(&(to, from)) {
            return Err(SnapshotUnsent::failed("the link is cut"));
        }
        wires.up.get(&to).cloned().ok_or_else(|| SnapshotUnsent::failed("the node is down"))
    }

    /// Why the receiver of the next snapshot refuses it before it is sent, if it does.
    fn refusal(&self, node: NodeId) -> Option<SnapshotRefusal> {
        let mut wires = self.wires();
        let refuses = wires.snapshot_faults && wires.rng.random_bool(SNAPSHOT_REFUSED);
        refuses.then(|| match wires.rng.random_bool(0.5) {
            true => SnapshotRefusal::Busy { node, receiving: 2 },
            false => SnapshotRefusal::NoSpace { node, needs: 2, has: 1 },
        })
    }

    /// Whether the sender's disk spoils the next snapshot.
    fn spoils(&self) -> bool {
        let mut wires = self.wires();
        wires.snapshot_faults && wires.rng.random_bool(SNAPSHOT_SPOILED)
    }

    /// The error of a refused snapshot, which is counted.
    fn refused(&self, what: &str, refusal: SnapshotRefusal) -> SnapshotUnsent {
        self.trace.event(&format!("{what}: {refusal}"));
        self.wires().snapshots_refused += 1;
        SnapshotUnsent::Refused(refusal)
    }

    /// The number of snapshots that were refused.
    pub(crate) fn snapshots_refused(&self) -> u64 {
        self.wires().snapshots_refused
    }
}

struct NodeTransport {
    network: Network,
    from: NodeId,
    life: Arc<Life>,
    log: Arc<MemoryLog>,
    synced: Arc<Synced>,
    state: Arc<MemoryState>,
}

impl Transport for NodeTransport {
    fn send(&self, to: NodeId, lane: Lane, message: PeerMessage) -> Result<(), Unsent> {
        if !self.life.is_alive() {
            return Err(Unsent(to));
        }
        if let Some(what) = promise::broken(&message, &self.log, &self.synced, &self.state) {
            self.network.broken.lock().expect("only a broken invariant poisons this lock").push(what);
        }
        let bytes = peer::encode_frame(std::slice::from_ref(&message));
        let from = self.from;
        self.network.trace.message("send", from, to, &bytes, || says(&message));
        let mut wires = self.network.wires();
        let key = (from, to, lane == Lane::Bulk);
        let now = Instant::now();
        if wires.lanes.entry(key).or_default().broken_until.is_some_and(|until| now < until) {
            return Err(Unsent(to));
        }
        let Some(life) = wires.up.get(&to).map(|(_, life)| life.number) else { return Err(Unsent(to)) };
        let connection = wires.lanes.entry(key).or_default().connection;
        let message = InFlight { lane: key, connection, life, bytes };
        if wires.cut.contains(&(from, to)) {
            let held = &mut wires.lanes.entry(key).or_default().held;
            held.push_back(message);
            if held.len() > HELD_MAX {
                wires.break_lane(key);
            }
            return Ok(());
        }
        if wires.is_lost(Traffic::Calls) {
            wires.break_lane(key);
            return Ok(());
        }
        wires.put_on_the_way(message);
        drop(wires);
        self.network.sent.notify_one();
        Ok(())
    }

    fn send_snapshot(
        &self,
        to: NodeId,
        header: SnapshotHeader,
        mut files: SnapshotFiles,
    ) -> BoxFuture<'static, Result<Vote, SnapshotUnsent>> {
        let (network, from, life) = (self.network.clone(), self.from, self.life.clone());
        Box::pin(async move {
            let meta = &header.meta;
            let what = format!("snapshot n{from} -> n{to} g{} r{} up to {:?}", header.group, header.to, meta.applied);
            network.trace.event(&what);
            let (receiver, its_life) = network.receiver(from, to)?;
            if let Some(refusal) = network.refusal(to) {
                return Err(network.refused(&what, refusal));
            }
            let (staging, staged) = stage(&mut files, network.spoils()).await?;
            tokio::time::sleep(Duration::from_millis(header.bytes / SNAPSHOT_BYTES_PER_MS)).await;
            if !network.pass(Traffic::Calls, from, to).await || !its_life.is_alive() || !life.is_alive() {
                return Err(SnapshotUnsent::failed("the transfer broke off"));
            }
            // The receiver installs it even if the sender has stopped waiting.
            let received = Received::new(staged, staging);
            let installing = async move { receiver.receive_snapshot(header, received, || {}).await };
            let installed = tokio::spawn(installing).await.map_err(SnapshotUnsent::failed)?;
            // Until now they held the log.
            drop(files);
            let vote = installed.map_err(|error| match error {
                InstallError::Bad(reason) => network.refused(&what, SnapshotRefusal::Bad { node: to, reason }),
                error => SnapshotUnsent::failed(error),
            })?;
            if !network.pass(Traffic::Calls, to, from).await || !its_life.is_alive() || !life.is_alive() {
                return Err(SnapshotUnsent::failed("the answer was lost"));
            }
            network.trace.event(&format!("{what}: installed"));
            Ok(vote)
        })
    }
}

/// Stages a snapshot's files at the receiver: copies them into a directory that the sender cannot
/// delete. Spoiled ones have a flipped bit, as if the sender's disk had read it like that.
async fn stage(files: &mut SnapshotFiles, spoiled: bool) -> Result<(TempDir, Vec<PathBuf>), SnapshotUnsent> {
    let staging = scratch().map_err(SnapshotUnsent::failed)?;
    let mut staged = Vec::new();
    while let Some(file) = files.next().await.map_err(SnapshotUnsent::failed)? {
        let mut content = std::fs::read(file.path()).map_err(SnapshotUnsent::failed)?;
        if content.len() as u64 != file.bytes || crc32c::crc32c(&content) != file.checksum {
            return Err(SnapshotUnsent::failed("the file differs from its checksum"));
        }
        // The last byte of the last value, before the checksum.
        if spoiled && let Some(last) = content.iter_mut().nth_back(4) {
            *last ^= 1;
        }
        let to = staging.path().join(staged.len().to_string());
        std::fs::write(&to, content).map_err(SnapshotUnsent::failed)?;
        staged.push(to);
    }
    Ok((staging, staged))
}

/// A directory for snapshots in flight: in memory where `/dev/shm` exists.
pub(crate) fn scratch() -> std::io::Result<TempDir> {
    TempDir::with_prefix_in("quorate-sim-", "/dev/shm").or_else(|_| TempDir::with_prefix("quorate-sim-"))
}

fn says(message: &PeerMessage) -> String {
    format!("g{} r{} -> r{} {:?}", message.group, message.from, message.to, message.body)
}
