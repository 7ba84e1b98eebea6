//! The scenario of a seed: the cluster, its load and its faults, all drawn before the run begins.

use std::time::Duration;

use quorate_raft::Timing;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The random streams of a run. Each source has its own, so that a change in one part does not
/// shift the draws of the others.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    Scenario,
    Raft,
    Network,
    NetworkFaults,
    Crashes,
    Disks,
    Operator,
    Clocks,
    LostEntries,
    /// The random choices of one node in one of its lives.
    Node(u64, u64),
    /// One worker of a client.
    Worker(u64),
    /// The router and the network of one client.
    Client(u64),
    Heal,
    /// The delays of pings.
    Pings,
    /// The check of dead nodes.
    Dead,
}

impl Stream {
    /// The stream's seed within a run of `seed`.
    pub(crate) fn seed(self, seed: u64) -> u64 {
        let (kind, detail) = match self {
            Stream::Scenario => (1, 0),
            Stream::Raft => (2, 0),
            Stream::Network => (3, 0),
            Stream::NetworkFaults => (4, 0),
            Stream::Crashes => (5, 0),
            Stream::Disks => (6, 0),
            Stream::Operator => (7, 0),
            Stream::Clocks => (8, 0),
            Stream::Node(node, life) => (9, node << 32 | life),
            Stream::Worker(worker) => (10, worker),
            Stream::Heal => (11, 0),
            Stream::Client(client) => (12, client),
            Stream::LostEntries => (13, 0),
            Stream::Pings => (15, 0),
            Stream::Dead => (14, 0),
        };
        mix(mix(mix(seed) ^ kind) ^ detail)
    }

    pub(crate) fn rng(self, seed: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed(seed))
    }
}

/// The finalizer of SplitMix64: neighbouring seeds give unrelated streams.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The parameters of one run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) shape: Shape,
    pub(crate) timing: Timing,
    pub(crate) workers: u64,
    pub(crate) keys_per_shard: usize,
    /// The pause between the operations of one worker, at most.
    pub(crate) think_ms: u64,
    pub(crate) log_retained: LogRetained,
    /// How long faults last.
    pub(crate) chaos: Duration,
    /// Least and largest latency of a message, in microseconds, without faults.
    pub(crate) latency_us: (u64, u64),
    /// Least and largest duration of a log's sync, in microseconds, without faults.
    pub(crate) sync_us: (u64, u64),
    /// How many of 10,000 messages are lost. The loss of a message breaks its connection.
    pub(crate) losses: u32,
    pub(crate) faults: Faults,
}

/// The size of the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) nodes: u64,
    pub(crate) shards: u32,
    pub(crate) replicas: u32,
}

/// Log entries and bytes that a group retains: few, so that followers that were down need
/// snapshots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogRetained {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// The kinds of faults of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) network: bool,
    pub(crate) crashes: bool,
    pub(crate) disks: bool,
    pub(crate) clocks: bool,
    /// An operator moves replicas, and adds and drains nodes.
    pub(crate) operator: bool,
}

impl Scenario {
    pub(crate) fn draw(seed: u64, chaos: Option<Duration>) -> Self {
        let mut rng = Stream::Scenario.rng(seed);
        let nodes = rng.random_range(3..=5);
        let timings = [(150, 550), (100, 450), (60, 300), (40, 250)];
        let (heartbeat_ms, lease_ms) = timings[rng.random_range(0..timings.len())];
        let slowest = [500, 3_000, 12_000][rng.random_range(0..3)];
        Scenario {
            seed,
            shape: Shape {
                nodes,
                shards: rng.random_range(1..=3),
                replicas: if nodes == 5 && rng.random_bool(0.3) { 5 } else { 3 },
            },
            timing: Timing { heartbeat_ms, lease_ms },
            workers: nodes + rng.random_range(2..=3),
            keys_per_shard: rng.random_range(1..=4),
            think_ms: [10, 40, 80][rng.random_range(0..3)],
            log_retained: LogRetained {
                entries: [2, 8, 64][rng.random_range(0..3)],
                bytes: [500, 2_000, 8_000][rng.random_range(0..3)],
            },
            chaos: chaos.unwrap_or(Duration::from_millis(rng.random_range(4_000..=9_000))),
            latency_us: (rng.random_range(50..=500), slowest),
            sync_us: (100, [400, 4_000, 15_000][rng.random_range(0..3)]),
            losses: [0, 5, 50][rng.random_range(0..3)],
            faults: Faults {
                network: rng.random_bool(0.8),
                crashes: rng.random_bool(0.8),
                disks: rng.random_bool(0.5),
                clocks: rng.random_bool(0.3),
                operator: rng.random_bool(0.6),
            },
        }
    }

    pub(crate) fn describe(&self) -> String {
        format!(
            "{} nodes, {} shards x {} replicas, {} workers, heartbeat {} ms, chaos {} ms, faults:{}{}{}{}{}",
            self.shape.nodes,
            self.shape.shards,
            self.shape.replicas,
            self.workers,
            self.timing.heartbeat_ms,
            self.chaos.as_millis(),
            if self.faults.network { " network" } else { "" },
            if self.faults.crashes { " crashes" } else { "" },
            if self.faults.disks { " disks" } else { "" },
            if self.faults.clocks { " clocks" } else { "" },
            if self.faults.operator { " operator" } else { "" },
        )
    }
}
