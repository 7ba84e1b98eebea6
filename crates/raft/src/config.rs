//! What a node's Raft groups are started with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_types::NodeId;

/// Entries of log behind what is flushed that are kept whatever the bytes: a purge never comes near what is being applied
/// (openraft issue 2116).
pub const LOG_RETAINED_ENTRIES: u64 = 256;

/// The two times that pull against each other: idle cost, tolerance of slow disks, and the time to a new leader.
///
/// The same on every node of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader proves that it leads, in milliseconds.
    pub heartbeat_ms: u64,
    /// How long a follower that heard of its leader votes for nobody else and does not campaign, and how long a leader that a
    /// quorum answered takes proposals, in milliseconds. At least twice the heartbeat.
    pub lease_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Timing { heartbeat_ms: 150, lease_ms: 550 }
    }
}

impl Timing {
    /// How long a leader is waited for.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// The time after a node's start during which its replicas neither vote nor campaign: a restarted follower no longer
    /// knows which leader it promised to wait for.
    pub fn vote_freeze(&self) -> Duration {
        self.lease()
    }
}

/// What a node's Raft groups are started with.
#[derive(Clone)]
pub struct Options {
    /// This node.
    pub node: NodeId,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// An existing directory for snapshots on their way out, on the same file system as the state; emptied at start.
    pub snapshot_dir: PathBuf,
    /// How many bytes of log a group keeps behind what is flushed, for followers that were away.
    pub log_retained_bytes_per_group: u64,
    /// The same for all groups of the node together.
    pub log_retained_bytes_per_node: u64,
    /// How many entries of log a group keeps behind what is flushed, whatever the bytes: [`LOG_RETAINED_ENTRIES`] but in tests.
    pub log_retained_entries: u64,
    /// Called when a Raft core has died or a disk is in doubt, with the reason. It must end the process: a replica that is
    /// unsure of itself must not vote, acknowledge or apply.
    pub on_fatal: Arc<dyn Fn(String) + Send + Sync>,
}
