//! The receiving end of a snapshot transfer: reserves, stages the files and has Raft install them.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use quorate_proto::peer::{SnapshotChunk, SnapshotReply};
use quorate_raft::{InstallError, Received};
use quorate_testpoints::{FailPoint, fail_point};
use quorate_types::peer::{SnapshotAnswer, SnapshotHeader, SnapshotRefusal};
use quorate_types::{NodeId, Vote};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{Instrument, debug, info, info_span, warn};

use crate::cluster_node::ClusterNode;
use crate::node::Node;
use crate::peer::{Part, Staged, Unstaged};

/// Answers that may wait for the connection. Signs of progress beyond it are dropped.
const ANSWERS_MAX: usize = 4;

/// Receives snapshots.
pub(super) struct Receiver {
    /// The node, whose life owns the transfers.
    pub(super) node: Arc<Node>,
    /// Its groups.
    pub(super) member: Arc<ClusterNode>,
}

impl Receiver {
    /// Receives a snapshot from another node, on a task of its own: Raft completes an installation
    /// that it has begun, also if the sender disconnects. Returns the answers.
    pub(super) fn receive(
        self,
        from: NodeId,
        header: SnapshotHeader,
        chunks: Streaming<SnapshotChunk>,
    ) -> BoxStream<'static, Result<SnapshotReply, Status>> {
        let (answers, replies) = mpsc::channel(ANSWERS_MAX);
        let SnapshotHeader { group, to, vote, .. } = &header;
        let node = self.member.store().identity.node;
        let span = info_span!("stage_snapshot", %node, %group, %from, %to, term = vote.term);
        let life = self.node.clone();
        let task = async move {
            let last = match self.reserve_and_install(node, header, chunks, &answers).await {
                Ok(vote) => {
                    info!("snapshot installed");
                    fail_point(FailPoint::SnapshotInstalled);
                    SnapshotAnswer::Installed(vote)
                }
                Err(refusal) => {
                    match &refusal {
                        // The sender asks again soon.
                        SnapshotRefusal::Busy { .. } => debug!(reason = %refusal, "snapshot refused"),
                        _ => warn!(reason = %refusal, "snapshot refused"),
                    }
                    SnapshotAnswer::Refused(refusal)
                }
            };
            // A sender that is gone needs no answer.
            let _ = answers.send(last).await;
        };
        drop(life.life.spawn_request(task.instrument(span)));
        ReceiverStream::new(replies).map(|answer| Ok(SnapshotReply { answer: answer.encode().into() })).boxed()
    }

    async fn reserve_and_install(
        &self,
        node: NodeId,
        header: SnapshotHeader,
        chunks: Streaming<SnapshotChunk>,
        answers: &mpsc::Sender<SnapshotAnswer>,
    ) -> Result<Vote, SnapshotRefusal> {
        let (groups, replica) = (&self.member.store().groups, header.to);
        if !groups.has_replica(header.group, replica) {
            return Err(SnapshotRefusal::NoReplica { node, replica });
        }
        let failed = |reason: String| SnapshotRefusal::Failed { node, reason };
        let reservation = self.node.staging.reserve(node, header.bytes)?;
        answers.send(SnapshotAnswer::Accepted).await.map_err(|_| failed("the sender is gone".to_owned()))?;
        let staged: Staged = tokio::select! {
            staged = self.node.staging.receive(reservation, parts_of(chunks)) => staged.map_err(|unstaged| match unstaged {
                Unstaged::Refused(refusal) => refusal,
                Unstaged::Broken(reason) => failed(reason),
            })?,
            () = self.node.life.closed() => return Err(failed("the node is stopping".to_owned())),
        };
        fail_point(FailPoint::SnapshotStaged);
        let received = Received::new(staged.files().to_vec(), staged);
        let working = answers.clone();
        let progress = move || {
            // The answers before it wait to be sent, and say as much.
            let _ = working.try_send(SnapshotAnswer::Working);
        };
        groups.receive_snapshot(header, received, progress).await.map_err(|error| match error {
            InstallError::NoReplica { replica, .. } => SnapshotRefusal::NoReplica { node, replica },
            InstallError::Bad(reason) => SnapshotRefusal::Bad { node, reason },
            InstallError::Failed(reason) | InstallError::Unknown(reason) => failed(reason),
        })
    }
}

/// The parts of a snapshot in its chunks. A chunk after the first one has exactly one part.
fn parts_of(chunks: Streaming<SnapshotChunk>) -> impl Stream<Item = Result<Part, Unstaged>> + Send {
    stream::unfold(chunks, async |mut chunks| {
        let chunk = chunks.message().await.map_err(|status| Unstaged::Broken(status.to_string())).transpose()?;
        let part = chunk.map(|chunk| match chunk.file_end {
            _ if chunk.last => Part::Last,
            Some(end) => Part::FileEnd(end.length, end.crc32c),
            None => Part::Data(chunk.data),
        });
        Some((part, chunks))
    })
}
