//! The vocabulary of Quorate: keys, records, commands, replies and errors.
//!
//! Everything here is plain data. This crate has no clock, no socket, no disk and no task, and none
//! of tokio, tonic, openraft and RocksDB: each of those has one owner further up.
//!
//! ```text
//!   ids        NodeId, ShardId, GroupId, …              newtypes: the compiler catches a swap
//!   key        Key, Value, Token, TokenArc              constructors check the limits
//!   record     Record                                   the value and version of a key
//!   command    Write, Condition, Command, Outcome       a shard's log entries and their outcomes
//!   request    KvRequest, KvOperation, KvAnswer         a client's request to a replica
//!   reply      ReadLevel, Role, Served, Rejection       the answers of a node
//!   log        LogId, Vote, Entry, Membership           the parts of a Raft log
//!   peer       PeerMessage                              messages between the replicas of a group
//!   ping       Ping, ReceivedPing                       signs of life between nodes
//!   placement  Placement, NodeState                     replicas on nodes
//!   operation  Operation, Intent, ReplicaMove           operators' goals, and moves of replicas
//!   topology   ClusterInfo, NodeInfo, ShardInfo, …      the cluster in the topology group
//!   state      Head, StoredMembership, SessionEntry     a replica's state beside user data
//!   report     NodeReport, Order                        the reconciler's inputs and orders
//!   address    HostPort                                 the address of a process
//!   clock      Clock                                    the time, as a parameter
//!   codec      encode, decode                           the only module that uses bincode
//! ```
//!
//! Read `command` next: it is the heart of the data model.

mod address;
pub mod clock;
pub mod codec;
mod command;
mod error_chain;
mod ids;
mod key;
mod log;
pub mod operation;
pub mod peer;
pub mod ping;
mod placement;
mod record;
mod reply;
pub mod report;
mod request;
pub mod state;
pub mod topology;

pub use address::{HostPort, HostPortError};
pub use command::{Command, Condition, Mutation, Outcome, Proposal, SessionStamp, Write};
pub use error_chain::error_chain;
pub use ids::{ClusterId, GroupId, NodeId, ReplicaId, SessionId, ShardId};
pub use key::{KEY_BYTES_MAX, Key, KeyError, Token, TokenArc, VALUE_BYTES_MAX, Value, ValueError};
pub use log::{Entry, LogId, Membership, Payload, Vote};
pub use record::Record;
pub use reply::{ReadLevel, ReadLevelError, Rejection, Role, Served, ServedBy};
pub use request::{KvAnswer, KvOperation, KvRequest};
