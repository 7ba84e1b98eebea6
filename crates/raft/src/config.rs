//! Configuration of a node's Raft groups.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use quorate_types::NodeId;

/// Entries in one append, at most; their bytes are bounded by one read of the log.
const APPEND_ENTRIES_MAX: u64 = 1024;
/// Requests that may wait for one Raft core.
const CORE_QUEUE_MAX: u64 = 4096;
/// openraft's heartbeat interval, in our heartbeats: 5/3.
const CORE_HEARTBEATS: (u64, u64) = (5, 3);
/// How long a leader without a quorum pauses before it probes its followers again, in leases.
const QUORUM_PROBE_LEASES: u64 = 4;

/// Entries up to the durable one that are retained regardless of their size: a purge never comes
/// near the entry being applied (openraft issue 2116).
pub const LOG_RETAINED_ENTRIES: u64 = 256;

/// The default of [`Timing::lease_ms`].
pub const LEASE_MS_DEFAULT: u64 = 550;

/// Heartbeat and lease: a trade-off between idle cost, tolerance of slow disks, and the time to a
/// new leader.
///
/// Every node of a cluster uses the same values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Interval of a leader's heartbeats, in milliseconds.
    pub heartbeat_ms: u64,
    /// Validity of one contact, in milliseconds: a follower neither votes for another candidate nor
    /// campaigns for so long after a message of its leader, and a leader accepts proposals for so
    /// long after a quorum answered. At least two heartbeats.
    pub lease_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Timing { heartbeat_ms: 150, lease_ms: LEASE_MS_DEFAULT }
    }
}

impl Timing {
    /// The lease.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// The time after a node's start during which its restarted replicas neither vote nor campaign:
    /// they have forgotten which leader they promised to wait for.
    pub fn vote_freeze(&self) -> Duration {
        self.lease()
    }

    /// openraft's configuration with these times.
    pub(crate) fn core_config(&self) -> Config {
        let config = Config {
            cluster_name: "quorate".to_owned(),
            // Only openraft's own time-outs use this: how long a heartbeat may take.
            heartbeat_interval: self.heartbeat_ms * CORE_HEARTBEATS.0 / CORE_HEARTBEATS.1,
            // openraft takes the longest of its election time-outs as its lease; the time-outs
            // themselves are not used.
            election_timeout_min: self.lease_ms - 1,
            election_timeout_max: self.lease_ms,
            // No core looks at a clock: `heartbeat` sends the heartbeats of all groups together,
            // and `campaigner` starts elections.
            enable_tick: false,
            enable_heartbeat: false,
            enable_elect: false,
            enable_pre_vote: Some(true),
            // A restarted leader may have lost applied state: it asks for votes like any other
            // replica.
            enable_leader_restore: Some(false),
            quorum_loss_probe_interval: Some(QUORUM_PROBE_LEASES * self.lease_ms),
            // `retention` triggers snapshots and purges, for all groups together.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            max_payload_entries: APPEND_ENTRIES_MAX,
            api_channel_size: Some(CORE_QUEUE_MAX),
            ..Config::default()
        };
        config.validate().expect("the timing was validated with the node's configuration")
    }
}

/// Measures the free bytes of a disk above its reserve.
pub type Room = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Configuration of a node's Raft groups.
#[derive(Clone)]
pub struct Options {
    /// This node.
    pub node: NodeId,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// An existing directory for the files of snapshots to send, on the file system of the state;
    /// emptied at start.
    pub snapshot_dir: PathBuf,
    /// The room on that file system.
    pub room: Room,
    /// Bytes of log up to the durable entry that a group retains, for followers that were away.
    pub log_retained_bytes_per_group: u64,
    /// Bytes of log that all groups of the node retain together.
    pub log_retained_bytes_per_node: u64,
    /// Entries up to the durable one that a group retains regardless of their size:
    /// [`LOG_RETAINED_ENTRIES`], fewer in tests.
    pub log_retained_entries: u64,
    /// Called when a Raft core has died or a disk is in doubt, with the reason. It must end the
    /// process: a replica that is unsure of itself must not vote, acknowledge or apply.
    pub on_fatal: Arc<dyn Fn(String) + Send + Sync>,
}
