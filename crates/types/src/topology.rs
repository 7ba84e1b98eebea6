//! The cluster as the topology group records it: identity, nodes, shard map.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError, Kind};
use crate::operation::{Intent, OperationId, ReplicaMove};
pub use crate::placement::{NodeState, Placement};
use crate::{ClusterId, GroupId, NodeId, ReplicaId, ShardId, TokenArc};

/// The facts that are fixed when a cluster is bootstrapped.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ClusterInfo {
    /// The cluster's identity.
    pub id: ClusterId,
    /// The key of the hash from keys to tokens. It is secret, so that clients cannot choose keys of
    /// one shard.
    pub hash_key: [u8; 16],
    /// Replicas of every shard: 1, 3 or 5.
    pub replicas: u32,
    /// The number of shards at the bootstrap.
    pub shards: u32,
}

/// The addresses of a node, each `host:port`.
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
    /// Its addresses.
    pub addresses: NodeAddresses,
    /// The failure domain; empty if none is named.
    pub zone: String,
    /// Its share of the replicas relative to other nodes; 100 is the default.
    pub weight: u32,
    /// Its state.
    pub state: NodeState,
}

/// A shard in the map. The map is a hint: the shard's own log decides its members.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ShardInfo {
    /// The shard.
    pub id: ShardId,
    /// The tokens it owns.
    pub arc: TokenArc,
    /// The epoch of the arc: 1 at first, and larger after every change of the arc.
    pub epoch: u64,
    /// Its replicas. During a move, the replica that leaves is among them and the new one is not.
    pub replicas: Vec<Placement>,
    /// The replicas at the bootstrap of the shard: exactly these may start its Raft group, once.
    pub initial_replicas: Vec<Placement>,
}

/// The order to bootstrap a cluster. Every initial node records it durably before the topology
/// group starts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Bootstrap {
    /// The fixed facts.
    pub cluster: ClusterInfo,
    /// The initial nodes, by id, from 1 without gaps.
    pub nodes: Vec<NodeInfo>,
    /// The topology group's first replicas, on those initial nodes that vote in it.
    pub topology_replicas: Vec<Placement>,
}

impl Bootstrap {
    /// The encoded order, as initial nodes record and send it.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::Bootstrap, self)
    }

    /// Decodes an order.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Kind::Bootstrap, bytes)
    }
}

/// The identity of a data directory: it belongs to this node of this cluster, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

impl Identity {
    /// The encoded record, as it is on disk.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::Identity, self)
    }

    /// Decodes the record. An error is corruption: the node does not serve the directory.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Kind::Identity, bytes)
    }
}

/// A command in the topology group's log. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// The first command: it creates the cluster. Repeating it changes nothing.
    Bootstrap(Bootstrap, Vec<ShardInfo>),
    /// Registers a joining node and gives it an id. The same addresses get the same id again while
    /// the node is joining. Later they are refused: a node that registers then has lost its data
    /// directory, and must not get its old identity back.
    RegisterNode {
        /// Its addresses.
        addresses: NodeAddresses,
        /// Its zone.
        zone: String,
        /// Its weight.
        weight: u32,
    },
    /// Updates the addresses, zone and weight of a node, which reports them when it starts.
    UpdateNode {
        /// The node.
        id: NodeId,
        /// Its addresses.
        addresses: NodeAddresses,
        /// Its zone.
        zone: String,
        /// Its weight.
        weight: u32,
    },
    /// Starts an operation of an operator. An unsafe operation is refused; a running one does not
    /// start twice.
    StartOperation {
        /// The goal of the operation.
        intent: Intent,
        /// The revision of the topology that it was planned on; 0 accepts any. The command is
        /// refused at another revision.
        planned_on: u64,
        /// For a dead node: its client address, typed by the operator to confirm the loss. Empty if
        /// it was not typed; another address is refused.
        confirm: String,
        /// The proposer's time, in milliseconds since 1970.
        now_ms: u64,
    },
    /// Marks an operation as done. Refused until its goal is reached.
    FinishOperation {
        /// The operation.
        id: OperationId,
        /// The proposer's time, in milliseconds since 1970.
        now_ms: u64,
    },
    /// Cancels an operation: no more moves start for it, and its moves are cancelled where that is
    /// safe.
    CancelOperation {
        /// The operation.
        id: OperationId,
        /// The proposer's time, in milliseconds since 1970.
        now_ms: u64,
    },
    /// Starts the move of a replica. If a new replica is part of it, gives out its id, which was
    /// never used before.
    StartMove {
        /// The group.
        group: GroupId,
        /// The replica that leaves.
        from: Option<ReplicaId>,
        /// The node of the new replica.
        to: Option<NodeId>,
        /// The operation that the move belongs to.
        operation: OperationId,
    },
    /// Finishes a move: according to the group's log the new replica votes and the old one is no
    /// member. The map changes here.
    FinishMove(ReplicaMove),
    /// Forgets a cancelled move: according to the group's log the new replica is no member.
    FinishCancelledMove(ReplicaMove),
    /// Pauses or resumes the start of moves. Moves in motion continue.
    PauseMoves {
        /// True pauses.
        paused: bool,
    },
    /// Cancels a move, unless its new replica votes already, because its target node is
    /// unresponsive. The operation may plan another move instead.
    CancelMove(ReplicaMove),
}

/// The outcome of a topology command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command was applied, or there was nothing to do.
    Done,
    /// The id of the node.
    Node(NodeId),
    /// The move, with the id of its new replica.
    Move(ReplicaMove),
    /// The operation that was started, or that was running already.
    Operation {
        /// Its id.
        id: OperationId,
        /// The operation was running already.
        already: bool,
    },
    /// The command was refused for this reason and changed nothing.
    Refused(String),
}

impl Command {
    /// The encoded command, as it is in the topology group's log.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::Topology, self)
    }

    /// Decodes a command. An error is corruption: the replica stops.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Kind::Topology, bytes)
    }
}

/// The whole cluster at one revision. Nodes act on it and clients route by it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Topology {
    /// The revision; it grows with every change.
    pub revision: u64,
    /// The fixed facts.
    pub cluster: ClusterInfo,
    /// The nodes, by id, removed ones included.
    pub nodes: Vec<NodeInfo>,
    /// The shards, by the start of their arcs.
    pub shards: Vec<ShardInfo>,
    /// The topology group's own replicas.
    pub topology_replicas: Vec<Placement>,
    /// The moves in motion, by group.
    pub moves: Vec<ReplicaMove>,
    /// Whether the start of moves is paused.
    pub paused: bool,
}

impl Topology {
    /// The encoded topology, as nodes cache it on disk and send it.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::TopologyImage, self)
    }

    /// Decodes a topology.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Kind::TopologyImage, bytes)
    }

    /// The node of that id, in any state.
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The nodes that are not removed.
    pub fn living(&self) -> impl Iterator<Item = &NodeInfo> + Clone {
        self.nodes.iter().filter(|node| node.state != NodeState::Removed)
    }

    /// Whether the node of that id was removed.
    pub fn is_removed(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(|node| node.state == NodeState::Removed)
    }

    /// The replicas of a group that may exist, a new one of its move included. Nodes destroy all
    /// others.
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
