//! What Raft asks of the network: a trait, implemented over gRPC by the node and in memory by tests and simulations.

use std::path::PathBuf;

use futures::future::BoxFuture;
use quorate_types::peer::{PeerMessage, SnapshotHeader};
use quorate_types::{NodeId, Vote};

/// Which of the two connections to a peer a message travels on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Votes, heartbeats, replies and small appends.
    Control,
    /// Large appends, so that the others never queue behind them.
    Bulk,
}

/// The message was not handed over: the peer is not connected, its queue is full, or the node is unknown. It may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {0} cannot be reached")]
pub struct Unsent(pub NodeId);

/// The snapshot did not arrive, or the receiver refused it. The transfer starts again from a fresh snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("snapshot not delivered: {0}")]
pub struct SnapshotUnsent(pub String);

/// Carries messages between nodes.
///
/// # To be correct
/// * Messages of one lane to one node arrive in the order in which they were sent, or not at all. After a loss the connection
///   counts as broken, and what was queued on it is lost as well.
/// * `send` never blocks and never awaits; its queue is bounded.
/// * A sent message may be lost without anybody being told: callers have time-outs.
pub trait Transport: Send + Sync + 'static {
    /// Queues a message for a node.
    fn send(&self, to: NodeId, lane: Lane, message: PeerMessage) -> Result<(), Unsent>;

    /// Streams a snapshot to a node and waits until it is installed there; gives the receiver's vote. Dropping the future
    /// cancels the transfer. The files stay where they are.
    fn send_snapshot(
        &self,
        to: NodeId,
        header: SnapshotHeader,
        files: Vec<PathBuf>,
    ) -> BoxFuture<'static, Result<Vote, SnapshotUnsent>>;
}
