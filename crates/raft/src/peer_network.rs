//! A node's connection to the other nodes, shared by all its replicas: the transport, and the calls
//! that wait for answers.

use std::sync::Arc;

use quorate_types::peer::{PeerBody, PeerMessage};
use quorate_types::{GroupId, NodeId, ReplicaId};

use crate::calls::Calls;
use crate::doubt::Doubt;
use crate::transport::{Lane, Transport, Unsent};

/// The transport of a node and its open calls. Clones share both.
#[derive(Clone)]
pub(crate) struct PeerNetwork {
    transport: Arc<dyn Transport>,
    calls: Calls,
}

impl PeerNetwork {
    pub(crate) fn new(transport: Arc<dyn Transport>) -> Self {
        PeerNetwork { transport, calls: Calls::default() }
    }

    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    pub(crate) fn transport(&self) -> &dyn Transport {
        &*self.transport
    }

    pub(crate) fn send(&self, to: NodeId, lane: Lane, message: PeerMessage) -> Result<(), Unsent> {
        self.transport.send(to, lane, message)
    }

    /// Sends an answer. A lost answer is a time-out for the caller.
    pub(crate) fn answer(&self, to: NodeId, message: PeerMessage) {
        let _ = self.send(to, Lane::Control, message);
    }
}

/// The address of a request's answer.
#[derive(Clone)]
pub(crate) struct ReplyTo {
    pub(crate) peers: PeerNetwork,
    pub(crate) group: GroupId,
    /// The replica that answers.
    pub(crate) from: ReplicaId,
    /// The node and the replica that asked.
    pub(crate) node: NodeId,
    pub(crate) replica: ReplicaId,
    /// Whether the replica that answers is doubtful.
    pub(crate) doubt: Doubt,
}

impl ReplyTo {
    /// Sends the answer. A replica in doubt only says that it is unreachable: that it is doubtful
    /// is said once its mark is durable, when it is closed.
    pub(crate) fn send(&self, body: PeerBody) {
        let body = if self.doubt.is_raised() { withheld(body) } else { body };
        self.peers.answer(self.node, PeerMessage { group: self.group, from: self.from, to: self.replica, body });
    }
}

/// The answer of a replica in doubt in place of another one.
fn withheld(body: PeerBody) -> PeerBody {
    match body {
        PeerBody::AppendReply { stream: call, .. }
        | PeerBody::HeartbeatReply { call, .. }
        | PeerBody::VoteReply { call, .. }
        | PeerBody::TransferReply { call, .. }
        | PeerBody::Unreachable { call }
        | PeerBody::Doubtful { call } => PeerBody::Unreachable { call },
        PeerBody::Append { .. }
        | PeerBody::Heartbeat { .. }
        | PeerBody::Vote { .. }
        | PeerBody::TransferLeader { .. }
        | PeerBody::LostEntries { .. } => unreachable!("only answers have an address"),
    }
}
