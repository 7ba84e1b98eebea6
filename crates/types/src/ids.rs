//! Newtypes for ids, so that the compiler catches a swap.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
        )]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map($name)
            }
        }
    };
}

id! {
    /// A storage node: one process with one data directory. The cluster gives out its id once, from
    /// 1; 0 is never a node.
    NodeId(u64)
}
id! {
    /// A shard: an arc of the token ring and the data on it. Numbered from 1.
    ShardId(u32)
}
id! {
    /// A Raft group. [`GroupId::TOPOLOGY`] is the cluster itself; every other group has the number
    /// of its shard.
    GroupId(u32)
}
id! {
    /// One incarnation of one group's replica on one node. The id is never used again in the life
    /// of a cluster, so that data, votes and messages of a destroyed replica are never taken for
    /// those of a new one. All keys on disk start with it.
    ReplicaId(u64)
}
id! {
    /// A client's session in one shard. The shard's log gives out its id once, so that a retry from
    /// an evicted session is never taken for one of a new session. 0 is never a session.
    SessionId(u64)
}

impl GroupId {
    /// The group whose state machine is the cluster itself: nodes, shard map, operations.
    pub const TOPOLOGY: GroupId = GroupId(0);

    /// The shard that this group replicates; none for the topology group.
    pub fn shard(self) -> Option<ShardId> {
        (self != Self::TOPOLOGY).then_some(ShardId(self.0))
    }
}

impl ShardId {
    /// The Raft group that replicates this shard.
    pub fn group(self) -> GroupId {
        GroupId(self.0)
    }
}

/// The identity of a cluster: 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Default)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

impl FromStr for ClusterId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(ClusterId)
    }
}
