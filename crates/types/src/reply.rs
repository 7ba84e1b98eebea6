//! What a node answers.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::topology::ShardInfo;
use crate::{NodeId, ShardId};

/// The consistency that a read asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadLevel {
    /// Linearizable: the leader confirmed with a quorum, after the read arrived, that it still leads.
    #[default]
    Strong,
    /// What the nearest live replica holds, at once. May be stale; works on both sides of a partition.
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
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "strong" => Ok(ReadLevel::Strong),
            "eventual" => Ok(ReadLevel::Eventual),
            "lease" | "bounded" | "session" => {
                Err(format!("read level '{text}' is not built yet; use strong or eventual"))
            }
            _ => Err(format!("unknown read level '{text}'; use strong or eventual")),
        }
    }
}

/// What a replica is in its Raft group at the moment.
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

/// Who served a reply, and of which state of the shard it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedBy {
    /// The level that the reply was served at; a write is `Strong`.
    pub level: ReadLevel,
    /// The node.
    pub node: NodeId,
    /// What its replica was in the group.
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

/// A reply and who served it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served<T> {
    /// The reply.
    pub value: T,
    /// Who served it, and of which state it speaks.
    pub by: ServedBy,
}

/// Why a node did not serve a request, sorted by what the caller does next. Every variant but [`Rejection::Unknown`] promises
/// that *this* try was not applied and never will be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Redirect: another replica leads. Ask `leader`, or any other replica while it is not known.
    #[error("not the leader of the shard")]
    NotLeader {
        /// The node that leads as far as this one knows.
        leader: Option<NodeId>,
    },
    /// Redirect: the shard does not own the key, or this node has no replica of it. Refresh the map.
    #[error("wrong shard or epoch")]
    WrongShard {
        /// What this node's map says of the shard.
        shard: Option<ShardInfo>,
    },
    /// Retry elsewhere or later: the replica cannot serve yet or any more (recovering, stopping, no leader, no quorum).
    #[error("unavailable: {reason}")]
    Unavailable {
        /// What is missing.
        reason: String,
    },
    /// Retry after a pause: the node has as much to do as it admits.
    #[error("overloaded; retry after {retry_after_ms} ms")]
    Overloaded {
        /// How long to wait, in milliseconds.
        retry_after_ms: u32,
    },
    /// Refused: less free disk than the reserve. Reads and deletes still work; make room or add nodes.
    #[error("the disk is below its reserve of free space")]
    DiskFull,
    /// Refused: the request can never succeed.
    #[error("invalid request: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// Retry with the same stamp, or report as unknown: the write may or may not be applied, now or later.
    #[error("outcome unknown: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
}
