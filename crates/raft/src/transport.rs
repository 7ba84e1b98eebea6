//! The network that Raft needs: a trait, implemented over gRPC by the node and in memory by tests
//! and simulations.

use futures::future::BoxFuture;
use quorate_types::peer::{PeerMessage, SnapshotHeader, SnapshotRefusal};
use quorate_types::{NodeId, Vote};

use crate::snapshot_files::SnapshotFiles;

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

/// The snapshot was not installed. The next transfer uses a new snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotUnsent {
    /// The receiver refused it, before or after its files were sent.
    #[error("snapshot refused: {0}")]
    Refused(SnapshotRefusal),
    /// It was not delivered, or the receiver's answer was lost.
    #[error("snapshot not delivered: {0}")]
    Failed(String),
}

impl SnapshotUnsent {
    /// It was not delivered for this reason.
    pub fn failed(reason: impl ToString) -> Self {
        SnapshotUnsent::Failed(reason.to_string())
    }
}

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

    /// Offers a snapshot to a node, streams its files once the node has accepted it, and waits
    /// until it is installed there. Returns the receiver's vote. Asks for no file before the
    /// receiver has reserved a slot and the space: writing the files is the costly part. Dropping
    /// the future cancels the transfer.
    fn send_snapshot(
        &self,
        to: NodeId,
        header: SnapshotHeader,
        files: SnapshotFiles,
    ) -> BoxFuture<'static, Result<Vote, SnapshotUnsent>>;
}
