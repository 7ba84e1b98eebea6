//! What group 0 says of the cluster: its identity, its nodes, its shard map.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError, Kind};
use crate::operation::{Intent, OperationId, ReplicaMove};
pub use crate::placement::{NodeState, Placement};
use crate::{ClusterId, GroupId, NodeId, ReplicaId, ShardId, TokenArc};

/// What is fixed when a cluster is made.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ClusterInfo {
    /// The cluster's identity.
    pub id: ClusterId,
    /// The key of the hash from keys to tokens: secret from those who choose keys, so that they cannot aim at one shard.
    pub hash_key: [u8; 16],
    /// Replicas of every shard: 1, 3 or 5.
    pub replicas: u32,
    /// Shards at the start.
    pub shards: u32,
}

/// Where a node is reached. Each is `host:port`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
pub struct NodeAddresses {
    /// For clients: gRPC Kv and Admin.
    pub client: String,
    /// For other nodes: gRPC Raft frames and snapshots.
    pub peer: String,
    /// For operators: HTTP metrics and health.
    pub ops: String,
}

/// A node as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its id.
    pub id: NodeId,
    /// Where it is reached.
    pub addresses: NodeAddresses,
    /// The part of the world that fails together with it; empty: none was named.
    pub zone: String,
    /// Its share of the replicas relative to other nodes; 100 is the default.
    pub weight: u32,
    /// Where it is in its life.
    pub state: NodeState,
}

/// A shard as the map has it. A hint: what is true of a shard is in the shard's own log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ShardInfo {
    /// The shard.
    pub id: ShardId,
    /// The tokens it owns.
    pub arc: TokenArc,
    /// Grows whenever the arc changes, from 1.
    pub epoch: u64,
    /// Its replicas. While one moves, the one that leaves.
    pub replicas: Vec<Placement>,
    /// The replicas that the shard was bootstrapped with: exactly these may start its Raft group, once.
    pub initial_replicas: Vec<Placement>,
}

/// The order to found a cluster: recorded durably by every initial node before group 0 starts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Bootstrap {
    /// What is fixed from now on.
    pub cluster: ClusterInfo,
    /// The initial nodes, in the order of their ids (1, 2, …).
    pub nodes: Vec<NodeInfo>,
    /// The initial nodes that vote in group 0, and their replicas there.
    pub topology_replicas: Vec<Placement>,
}

impl Bootstrap {
    /// The order's bytes, as a initial node records them and as they are sent.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::Bootstrap, self)
    }

    /// Reads an order back.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Kind::Bootstrap, bytes)
    }
}

/// What a data directory says of itself: it belongs to this node of this cluster, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

impl Identity {
    /// The record's bytes, as they are on disk.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::Identity, self)
    }

    /// Reads the record back. An error is corruption: the directory is not served.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Kind::Identity, bytes)
    }
}

/// A change of the cluster, as group 0's log has it. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// The first command: the cluster exists from here on. Repeating it changes nothing.
    Bootstrap(Bootstrap, Vec<ShardInfo>),
    /// A node asks for an id and is `Joining` from here on. The same addresses again get the same id while it is `Joining`; later
    /// they are refused: a node that asks then has lost its data directory and must not get its old identity back.
    RegisterNode {
        /// Where it is reached.
        addresses: NodeAddresses,
        /// Its zone.
        zone: String,
        /// Its weight.
        weight: u32,
    },
    /// A node's addresses, zone or weight as it says on start.
    UpdateNode {
        /// The node.
        id: NodeId,
        /// Where it is reached.
        addresses: NodeAddresses,
        /// Its zone.
        zone: String,
        /// Its weight.
        weight: u32,
    },
    /// An operator asks for something. What cannot be done safely is refused; what runs already is not started twice.
    StartOperation {
        /// What for.
        intent: Intent,
        /// The revision of the topology that it was planned on; 0: any. Another one is refused.
        planned_on: u64,
        /// The proposer's time, in milliseconds since 1970.
        now_ms: u64,
    },
    /// An operation has reached what it was for. Refused while it has not.
    FinishOperation {
        /// Which.
        id: OperationId,
        /// The proposer's time, in milliseconds since 1970.
        now_ms: u64,
    },
    /// An operator takes an operation back: nothing more is started for it, and what can be taken back is.
    CancelOperation {
        /// Which.
        id: OperationId,
        /// The proposer's time, in milliseconds since 1970.
        now_ms: u64,
    },
    /// A replica is to move: gives out a replica id that was never given out before, if one comes.
    StartMove {
        /// The group.
        group: GroupId,
        /// The replica that leaves.
        from: Option<ReplicaId>,
        /// The node that the new one is for.
        to: Option<NodeId>,
        /// What it is part of.
        operation: OperationId,
    },
    /// The group's log says that the new replica votes and the old one is no member: the map says so too from here on.
    FinishMove(ReplicaMove),
    /// The group's log says that the new replica is no member: the move is forgotten.
    FinishCancelledMove(ReplicaMove),
    /// Whether replicas move at all. What is in motion comes to its end.
    PauseMoves {
        /// They do not.
        paused: bool,
    },
    /// A move is taken back for as long as its new replica has no vote, and what it is part of may plan another one: the node that it
    /// is for stays away.
    CancelMove(ReplicaMove),
}

/// What came of a topology command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, or was already so.
    Done,
    /// The node has this id.
    Node(NodeId),
    /// The replica in motion, with the id that was given out for it.
    Move(ReplicaMove),
    /// The operation that was started, or that runs already.
    Operation {
        /// Its id.
        id: OperationId,
        /// It was there already.
        already: bool,
    },
    /// It was refused, and nothing was changed.
    Refused(String),
}

impl Command {
    /// The command's bytes, as they go into group 0's log.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::Topology, self)
    }

    /// Reads a command back. An error is corruption: a replica that meets one stops.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Kind::Topology, bytes)
    }
}

/// The whole of what group 0 knows at one revision; what nodes act on and clients route by.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Topology {
    /// Grows with every change.
    pub revision: u64,
    /// What was fixed when the cluster was made.
    pub cluster: ClusterInfo,
    /// The nodes, by id, removed ones included.
    pub nodes: Vec<NodeInfo>,
    /// The shards, by the start of their arcs.
    pub shards: Vec<ShardInfo>,
    /// Group 0's own replicas.
    pub topology_replicas: Vec<Placement>,
    /// The replicas in motion, by group.
    pub moves: Vec<ReplicaMove>,
    /// No replica starts to move.
    pub paused: bool,
}

impl Topology {
    /// The topology's bytes, as nodes cache them on disk and send them to each other.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::TopologyImage, self)
    }

    /// Reads a topology back.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Kind::TopologyImage, bytes)
    }

    /// The node of that id, if the cluster ever had it.
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// Whether the node of that id was removed, for good.
    pub fn is_removed(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(|node| node.state == NodeState::Removed)
    }

    /// The replicas of a group that should exist, the one that comes included: no other may.
    pub fn replicas(&self, group: GroupId) -> impl Iterator<Item = Placement> {
        let settled = match group.shard() {
            Some(shard) => self.shard(shard).map_or(&[][..], |shard| &shard.replicas),
            None => &self.topology_replicas,
        };
        let coming = self.moves.iter().filter(move |moving| moving.group == group).filter_map(|moving| moving.to);
        settled.iter().copied().chain(coming)
    }

    /// The shard of that id.
    pub fn shard(&self, id: ShardId) -> Option<&ShardInfo> {
        self.shards.iter().find(|shard| shard.id == id)
    }
}
