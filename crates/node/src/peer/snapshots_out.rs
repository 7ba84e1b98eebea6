//! Sends snapshots: a header, then the files in chunks, rate-limited, on a connection of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quorate_control::PeerError;
use quorate_control::throttle::{RATE_BURST, RATE_MAX};
use quorate_machine::rate_limiter::RateLimiter;
use quorate_proto::peer::peer_client::PeerClient;
use quorate_proto::peer::{Hello, SnapshotChunk};
use quorate_types::Vote;
use quorate_types::codec::{self, Kind};
use quorate_types::peer::SnapshotHeader;
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tracing::info;

use super::connection::{connect, describe};

/// Snapshots that a node sends concurrently; more would slow each of them down.
const SENDING_MAX: usize = 2;
/// Bytes of a chunk.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that may wait for the connection.
const CHUNKS_AHEAD: usize = 4;
/// A transfer is cancelled if the receiver takes no chunk for this long.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the receiver may take to verify and install a snapshot after the last chunk.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Sends snapshots. Clones share the limits.
#[derive(Clone)]
pub(crate) struct SnapshotSender {
    permits: Arc<Semaphore>,
    rate_limiter: Arc<RateLimiter>,
}

impl Default for SnapshotSender {
    fn default() -> Self {
        let rate_limiter = RateLimiter::new(RATE_MAX, RATE_BURST);
        SnapshotSender { permits: Arc::new(Semaphore::new(SENDING_MAX)), rate_limiter: Arc::new(rate_limiter) }
    }
}

impl SnapshotSender {
    /// The limiter of all snapshots that this node sends.
    pub(crate) fn rate_limiter(&self) -> Arc<RateLimiter> {
        self.rate_limiter.clone()
    }

    /// Sends a snapshot and waits until it is installed; returns the receiver's vote. Dropping the
    /// future cancels the transfer.
    pub(crate) async fn send(
        &self,
        address: &str,
        hello: Hello,
        header: SnapshotHeader,
        files: Vec<PathBuf>,
    ) -> Result<Vote, PeerError> {
        let _permit = self.permits.acquire().await.map_err(|e| unsent(e.to_string()))?;
        let started = Instant::now();
        let bytes: u64 = header.files.iter().map(|(length, _)| length).sum();
        let channel = connect(address).await.map_err(|e| unsent(describe(&e)))?;
        let mut client = PeerClient::new(channel);
        let (chunks, body) = mpsc::channel(CHUNKS_AHEAD);
        let call = client.snapshot(ReceiverStream::new(body));
        tokio::pin!(call);
        let produced = tokio::select! {
            // The receiver may refuse before the last chunk.
            reply = &mut call => return vote(reply),
            produced = self.produce(chunks, hello, &header, &files) => produced,
        };
        // After the body has ended, the receiver's answer is better than ours: it names its reason.
        let reply = timeout(INSTALL_TIMEOUT, call).await;
        produced?;
        let vote = vote(reply.map_err(|_| unsent("the receiver does not answer"))?)?;
        info!(group = %header.group, replica = %header.to, bytes, elapsed = ?started.elapsed(), "snapshot sent");
        Ok(vote)
    }

    async fn produce(
        &self,
        chunks: mpsc::Sender<SnapshotChunk>,
        hello: Hello,
        header: &SnapshotHeader,
        files: &[PathBuf],
    ) -> Result<(), PeerError> {
        let header = codec::encode(Kind::SnapshotHeader, header).into();
        put(&chunks, SnapshotChunk { hello: Some(hello), header, data: Bytes::new() }).await?;
        for path in files {
            self.produce_file(&chunks, path).await?;
        }
        Ok(())
    }

    async fn produce_file(&self, chunks: &mpsc::Sender<SnapshotChunk>, path: &Path) -> Result<(), PeerError> {
        let unreadable = |e: std::io::Error| unsent(format!("{}: {e}", path.display()));
        let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
        file.set_max_buf_size(CHUNK_BYTES);
        loop {
            let mut data = BytesMut::with_capacity(CHUNK_BYTES);
            if file.read_buf(&mut data).await.map_err(unreadable)? == 0 {
                return Ok(());
            }
            tokio::time::sleep(self.rate_limiter.reserve(data.len(), Instant::now())).await;
            put(chunks, SnapshotChunk { hello: None, header: Bytes::new(), data: data.freeze() }).await?;
        }
    }
}

async fn put(chunks: &mpsc::Sender<SnapshotChunk>, chunk: SnapshotChunk) -> Result<(), PeerError> {
    match timeout(PROGRESS_TIMEOUT, chunks.send(chunk)).await {
        Ok(sent) => sent.map_err(|_| unsent("the connection was lost")),
        Err(_) => Err(unsent(format!("the receiver took nothing for {PROGRESS_TIMEOUT:?}"))),
    }
}

fn vote(reply: Result<tonic::Response<quorate_proto::peer::SnapshotReply>, tonic::Status>) -> Result<Vote, PeerError> {
    let reply = reply.map_err(|status| unsent(describe(&status)))?.into_inner();
    codec::decode(Kind::Vote, &reply.vote).map_err(|e| unsent(e.to_string()))
}

fn unsent(reason: impl Into<String>) -> PeerError {
    PeerError::Unanswered(reason.into())
}
