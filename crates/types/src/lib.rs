//! The vocabulary of Quorate: what a key, a record, a command, a reply and an error *are*.
//!
//! Everything here is plain data. There is no clock, no socket, no disk and no task in this crate, and none of tokio,
//! tonic, openraft or RocksDB: each of those has one owner further up.
//!
//! ```text
//!   ids        NodeId, ShardId, GroupId, ReplicaId, SessionId      so that the compiler catches a swap
//!   key        Key, Value, Token, TokenArc                         limits are checked where these are made
//!   record     Record                                              what a key holds
//!   command    Write, Condition, Command, Outcome                  what a shard's log says, and what came of it
//!   request    KvRequest, KvOperation, KvAnswer              a client's request to a replica, and its answer
//!   reply      ReadLevel, Role, Served, Rejection                  what a node answers
//!   log        LogId, Vote, Entry, Membership                      what the Raft log is made of
//!   peer       PeerMessage                                         what nodes say to each other about Raft groups
//!   topology   ClusterInfo, NodeInfo, ShardInfo, Bootstrap          what group 0 says of the cluster
//!   operation  Operation, Intent, ReplicaMove                      what operators ask of it, and what moves
//!   state      Head, StoredMembership, SessionEntry                what a replica remembers of itself
//!   report     NodeReport, Order                                  what the reconciler hears and says
//!   address    HostPort                                            where a process is reached
//!   clock      Clock                                                time is handed in
//!   codec      encode, decode                                      the one module that may use bincode
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
pub use reply::{ReadLevel, Rejection, Role, Served, ServedBy};
pub use request::{KvAnswer, KvOperation, KvRequest};
