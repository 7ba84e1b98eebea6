//! A node's connection to the other nodes, shared by all its replicas: the transport, and the calls that wait for answers.

use std::sync::Arc;

use quorate_types::NodeId;
use quorate_types::peer::PeerMessage;

use crate::calls::Calls;
use crate::transport::{Lane, Transport, Unsent};

/// The transport of a node and its open calls. Clones share both.
#[derive(Clone)]
pub(crate) struct Wire {
    transport: Arc<dyn Transport>,
    calls: Calls,
}

impl Wire {
    pub(crate) fn new(transport: Arc<dyn Transport>) -> Self {
        Wire { transport, calls: Calls::default() }
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
