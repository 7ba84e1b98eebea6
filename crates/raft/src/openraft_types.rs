//! openraft's generic types, instantiated for this crate.

use std::fmt;

use bytes::Bytes;
use openraft::OptionalSend;
use quorate_machine::Reply;
use quorate_types::NodeId;
use quorate_types::state::Head;
use tokio::sync::oneshot;

/// The type configuration of every group. Commands are opaque bytes. Raft's node record holds only
/// the node id: addresses come from the topology, so a new address changes no membership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = Applied;
    type NodeId = u64;
    type Node = NodeRef;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
    type Vote = openraft::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Command, u64, NodeRef>;
    type Entry = openraft::Entry<Self::LeaderId, Self::Payload>;
    type AsyncRuntime = crate::runtime::Runtime;
    type Responder<T>
        = Responder<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, NodeRef>;
pub(crate) type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
/// openraft's answer to one request of an append stream.
pub(crate) type AppendResult = openraft::raft::StreamAppendResult<TypeConfig>;
/// openraft's answer to one request of appends that is no part of a stream.
pub(crate) type AppendResponse = openraft::raft::AppendEntriesResponse<TypeConfig>;
pub(crate) type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
pub(crate) type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;
pub(crate) type TransferLeaderRequest = openraft::raft::TransferLeaderRequest<TypeConfig>;
pub(crate) type RpcError = openraft::errors::RPCError<TypeConfig>;
pub(crate) type WriteError = openraft::errors::RaftError<TypeConfig, openraft::errors::ClientWriteError<TypeConfig>>;
pub(crate) type Fatal = openraft::errors::Fatal<TypeConfig>;

/// An encoded proposal; only the group's state machine decodes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Command(pub(crate) Bytes);

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The node that hosts a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeRef(pub(crate) NodeId);

/// The result of applying an entry.
pub(crate) struct Applied {
    /// The machine's reply; none for an entry without a proposal.
    pub(crate) reply: Option<Reply>,
    /// The head of the state after the batch that held the entry.
    pub(crate) head: Head,
}

impl fmt::Debug for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Applied({:?})", self.head.applied)
    }
}

/// Carries a result to the proposer, which may have given up.
pub(crate) struct Responder<T>(oneshot::Sender<T>);

impl<T> Responder<T> {
    /// A responder and the receiver of its result. The receiver fails if the core drops the
    /// proposal: outcome unknown.
    pub(crate) fn pair() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Responder(sender), receiver)
    }
}

impl<T: OptionalSend + 'static> openraft::raft::responder::Responder<TypeConfig, T> for Responder<T> {
    fn on_complete(self, result: T) {
        // The proposer may have given up; then nothing is left to do.
        let _ = self.0.send(result);
    }
}
