//! The answers of a node.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::topology::ShardInfo;
use crate::{NodeId, ShardId};

/// The consistency of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadLevel {
    /// Linearizable: the leader confirmed with a quorum, after the read arrived, that it still
    /// leads.
    #[default]
    Strong,
    /// The state of the nearest live replica, without a wait. May be stale; works on both sides of
    /// a partition.
    Eventual,
}

impl fmt::Display for ReadLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReadLevel::Strong => "strong",
            ReadLevel::Eventual => "eventual",
        })
    }
}

impl FromStr for ReadLevel {
    type Err = ReadLevelError;

    fn from_str(text: &str) -> Result<Self, ReadLevelError> {
        match text {
            "strong" => Ok(ReadLevel::Strong),
            "eventual" => Ok(ReadLevel::Eventual),
            "lease" | "bounded" | "session" => Err(ReadLevelError::NotBuilt(text.to_owned())),
            _ => Err(ReadLevelError::Unknown(text.to_owned())),
        }
    }
}

/// The reason why a text is not a read level. The message names the levels that exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadLevelError {
    /// The level is planned.
    #[error("read level '{0}' is not built yet; use strong or eventual")]
    NotBuilt(String),
    /// There is no such level.
    #[error("unknown read level '{}'; use strong or eventual", .0.escape_debug())]
    Unknown(String),
}

/// The role of a replica in its Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Proposes entries and confirms reads.
    Leader,
    /// Votes and follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote.
    Learner,
    /// Has stopped.
    Stopped,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
            Role::Stopped => "stopped",
        })
    }
}

/// The replica that served a reply, and the state that it served from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedBy {
    /// The level that the reply was served at; a write is `Strong`.
    pub level: ReadLevel,
    /// The node.
    pub node: NodeId,
    /// The role of its replica.
    pub role: Role,
    /// The shard.
    pub shard: ShardId,
    /// The shard's arc epoch.
    pub epoch: u64,
    /// The shard's revision in the state that was read, or right after the write.
    pub revision: u64,
    /// The index of the last log entry in that state.
    pub applied: u64,
}

/// A reply and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served<T> {
    /// The reply.
    pub value: T,
    /// The replica that served it, and the state that it served from.
    pub by: ServedBy,
}

/// The reason why a node did not serve a request, sorted by the caller's next step. Every variant
/// but [`Rejection::Unknown`] promises that *this* attempt was not applied and never will be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Redirect: another replica leads. Ask `leader`, or any other replica while it is not known.
    #[error("not the leader of the shard")]
    NotLeader {
        /// The leader's node, if this node knows it.
        leader: Option<NodeId>,
    },
    /// Redirect: the shard does not own the key, or this node has no replica of it. Refresh the
    /// map.
    #[error("wrong shard or epoch")]
    WrongShard {
        /// The shard in this node's map.
        shard: Option<ShardInfo>,
    },
    /// Retry elsewhere or later: the replica cannot serve now (recovering, stopping, no leader, no
    /// quorum).
    #[error("unavailable: {reason}")]
    Unavailable {
        /// The obstacle.
        reason: String,
    },
    /// Retry after a pause: the node is at its admission limit.
    #[error("overloaded; retry after {retry_after_ms} ms")]
    Overloaded {
        /// The pause, in milliseconds.
        retry_after_ms: u32,
    },
    /// Refused: the disk has less free space than its reserve. Reads and deletes still work; free
    /// disk space or add nodes.
    #[error("the disk is below its reserve of free space")]
    DiskFull,
    /// Refused: the request can never succeed.
    #[error("invalid request: {reason}")]
    Invalid {
        /// The mistake.
        reason: String,
    },
    /// Retry with the same stamp, or report as unknown: the write may or may not be applied, now or
    /// later.
    #[error("outcome unknown: {reason}")]
    Unknown {
        /// The cause.
        reason: String,
    },
}
