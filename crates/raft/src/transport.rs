//! The network that Raft needs: a trait, implemented over gRPC by the node and in memory by tests
//! and simulations.

use std::path::PathBuf;

use futures::future::BoxFuture;
use quorate_types::peer::{PeerMessage, SnapshotHeader};
use quorate_types::{NodeId, Vote};

/// One of the two connections to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Votes, heartbeats, replies and small appends.
    Control,
    /// Large appends, so that control messages never queue behind them.
    Bulk,
}

/// The message was not queued: the peer is not connected, its queue is full, or the node is
/// unknown. It may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {0} cannot be reached")]
pub struct Unsent(pub NodeId);

/// The snapshot was not delivered, or the receiver refused it. The next transfer uses a new
/// snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("snapshot not delivered: {0}")]
pub struct SnapshotUnsent(pub String);

/// Carries messages between nodes.
///
/// # To be correct
/// * Messages of one lane to one node arrive in the order in which they were sent, or not at all.
///   After a loss the connection counts as broken, and the messages queued on it are lost as well.
/// * `send` never blocks and never awaits; its queue is bounded.
/// * A sent message may be lost silently: callers have time-outs.
pub trait Transport: Send + Sync + 'static {
    /// Queues a message for a node.
    fn send(&self, to: NodeId, lane: Lane, message: PeerMessage) -> Result<(), Unsent>;

    /// Streams a snapshot to a node and waits until it is installed there. Returns the receiver's
    /// vote. Dropping the future cancels the transfer. The files stay in place.
    fn send_snapshot(
        &self,
        to: NodeId,
        header: SnapshotHeader,
        files: Vec<PathBuf>,
    ) -> BoxFuture<'static, Result<Vote, SnapshotUnsent>>;
}
