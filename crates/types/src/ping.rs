//! Pings between nodes: signs of life, from which the cluster judges whether a node is dead.

use bincode::{Decode, Encode};

use crate::NodeId;
use crate::codec::{self, CodecError, Kind};

/// The most nodes that a ping names: a cluster has at most 1,000.
pub const RECEIVED_MAX: usize = 1_024;

/// A ping, and the answer to one. Every node sends one to every other node once a second, and the
/// receiver answers with its own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ping {
    /// The sender.
    pub node: NodeId,
    /// The nodes that the sender received pings from within the last 10 s.
    pub received: Vec<ReceivedPing>,
}

/// The last ping that a node received from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReceivedPing {
    /// The sender.
    pub from: NodeId,
    /// The age of its last ping when this message was sent, in milliseconds.
    pub ago_ms: u32,
}

impl Ping {
    /// The encoded ping, as it is sent.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::Ping, self)
    }

    /// Decodes a ping. An error means that the sender is broken or speaks another version: the ping
    /// is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let ping: Self = codec::decode(Kind::Ping, bytes)?;
        if ping.received.len() > RECEIVED_MAX {
            let reason = format!("{} nodes in a ping are too many", ping.received.len());
            return Err(CodecError::Malformed { kind: Kind::Ping, reason });
        }
        Ok(ping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ping is read as it was written; one with more nodes than a cluster has is refused.
    #[test]
    fn a_ping_names_a_bounded_number_of_nodes() {
        let received = |count: usize| vec![ReceivedPing { from: NodeId(7), ago_ms: 900 }; count];
        let ping = Ping { node: NodeId(3), received: received(RECEIVED_MAX) };
        assert_eq!(Ping::decode(&ping.encode()), Ok(ping));
        let long = Ping { node: NodeId(3), received: received(RECEIVED_MAX + 1) };
        assert!(matches!(Ping::decode(&long.encode()), Err(CodecError::Malformed { .. })));
    }
}
