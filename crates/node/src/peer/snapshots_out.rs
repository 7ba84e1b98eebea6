//! Sends snapshots on a connection of its own: a header; once the receiver has accepted it, the
//! files in chunks, rate-limited.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use metrics::counter;
use quorate_machine::rate_limiter::{RATE_BURST, RATE_MAX, RateLimiter};
use quorate_proto::peer::peer_client::PeerClient;
use quorate_proto::peer::{Hello, SnapshotChunk, SnapshotFileEnd, SnapshotReply};
use quorate_raft::{OutgoingFile, SnapshotFiles, SnapshotUnsent};
use quorate_types::peer::{SnapshotAnswer, SnapshotHeader};
use quorate_types::{Vote, error_chain};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::info;

use super::connection::connect;

/// Bytes of a chunk.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that may wait for the connection.
const CHUNKS_AHEAD: usize = 4;
/// A transfer is cancelled if no chunk moves for this long, by the sender and by the receiver.
pub(super) const PROGRESS_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two signs of life to the receiver while a file is being written.
const ALIVE_PERIOD: Duration = Duration::from_secs(2);
/// The longest time for writing one file. Two exports share the least rate of the throttle, 8
/// MiB/s, and its bytes count before they are compressed: 32 MiB on disk may be ten times as much.
const FILE_MAX: Duration = Duration::from_secs(300);
/// The longest silence of a receiver that has everything. It answers now and then while it
/// verifies; the ingestion, which reads no data, is silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Sends snapshots. Clones share the limiter. The Raft groups bound the number of concurrent ones.
#[derive(Clone)]
pub(crate) struct SnapshotSender {
    rate_limiter: Arc<RateLimiter>,
}

impl Default for SnapshotSender {
    fn default() -> Self {
        SnapshotSender { rate_limiter: Arc::new(RateLimiter::new(RATE_MAX, RATE_BURST)) }
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
        files: SnapshotFiles,
    ) -> Result<Vote, SnapshotUnsent> {
        let sent = self.offer_and_stream(address, hello, &header, files).await;
        if let Err(SnapshotUnsent::Refused(refusal)) = &sent {
            counter!("quorate_snapshots_refused_total", "reason" => refusal.word()).increment(1);
        }
        sent
    }

    async fn offer_and_stream(
        &self,
        address: &str,
        hello: Hello,
        header: &SnapshotHeader,
        mut files: SnapshotFiles,
    ) -> Result<Vote, SnapshotUnsent> {
        let started = Instant::now();
        let channel = connect(address).await.map_err(|e| SnapshotUnsent::Failed(error_chain(&e)))?;
        let (chunks, body) = mpsc::channel(CHUNKS_AHEAD);
        put(&chunks, SnapshotChunk { hello: Some(hello), header: header.encode().into(), ..Default::default() })
            .await?;
        let mut client = PeerClient::new(channel);
        let opened = timeout(PROGRESS_TIMEOUT, client.snapshot(ReceiverStream::new(body))).await;
        let opened =
            opened.map_err(|_| silent(PROGRESS_TIMEOUT))?.map_err(|e| SnapshotUnsent::Failed(error_chain(&e)))?;
        let mut answers = Answers(opened.into_inner());
        match answers.next(PROGRESS_TIMEOUT).await? {
            SnapshotAnswer::Accepted => {}
            other => return end(other),
        }
        let bytes = tokio::select! {
            biased;
            // The receiver may refuse before the last chunk, for example when its disk is full.
            answer = answers.next_whenever() => return end(answer?),
            produced = self.produce(&chunks, &mut files) => match produced {
                Ok(bytes) => bytes,
                // The receiver's answer is better than ours: it names its reason.
                Err(failure) => match answers.next(PROGRESS_TIMEOUT).await {
                    Ok(refusal @ SnapshotAnswer::Refused(_)) => return end(refusal),
                    _ => return Err(failure),
                },
            },
        };
        drop(chunks);
        loop {
            match answers.next(SILENCE_MAX).await? {
                SnapshotAnswer::Working => {}
                SnapshotAnswer::Installed(vote) => {
                    // Until now they held the log: if it is purged before the installation, the
                    // receiver needs another snapshot.
                    drop(files);
                    info!(bytes, elapsed = ?started.elapsed(), "snapshot sent");
                    return Ok(vote);
                }
                other => return end(other),
            }
        }
    }

    /// Sends all files. Returns the number of their bytes.
    async fn produce(
        &self,
        chunks: &mpsc::Sender<SnapshotChunk>,
        files: &mut SnapshotFiles,
    ) -> Result<u64, SnapshotUnsent> {
        let mut bytes = 0;
        while let Some(file) = next_file(chunks, files).await? {
            self.produce_file(chunks, &file).await?;
            bytes += file.bytes;
        }
        put(chunks, SnapshotChunk { last: true, ..Default::default() }).await?;
        Ok(bytes)
    }

    async fn produce_file(
        &self,
        chunks: &mpsc::Sender<SnapshotChunk>,
        sent: &OutgoingFile,
    ) -> Result<(), SnapshotUnsent> {
        let unreadable = |e: std::io::Error| SnapshotUnsent::Failed(format!("{}: {e}", sent.path().display()));
        let mut file = tokio::fs::File::open(sent.path()).await.map_err(unreadable)?;
        file.set_max_buf_size(CHUNK_BYTES);
        loop {
            let mut data = BytesMut::with_capacity(CHUNK_BYTES);
            if file.read_buf(&mut data).await.map_err(unreadable)? == 0 {
                break;
            }
            tokio::time::sleep(self.rate_limiter.reserve(data.len(), Instant::now())).await;
            put(chunks, SnapshotChunk { data: data.freeze(), ..Default::default() }).await?;
        }
        let file_end = SnapshotFileEnd { length: sent.bytes, crc32c: sent.checksum };
        put(chunks, SnapshotChunk { file_end: Some(file_end), ..Default::default() }).await
    }
}

/// The next file, once it is written. Meanwhile the receiver gets empty chunks: it ends a transfer
/// in which nothing comes.
async fn next_file(
    chunks: &mpsc::Sender<SnapshotChunk>,
    files: &mut SnapshotFiles,
) -> Result<Option<OutgoingFile>, SnapshotUnsent> {
    let until = tokio::time::Instant::now() + FILE_MAX;
    let mut next = pin!(files.next());
    loop {
        match timeout(ALIVE_PERIOD, &mut next).await {
            Ok(file) => return file.map_err(SnapshotUnsent::failed),
            Err(_) if tokio::time::Instant::now() >= until => {
                return Err(SnapshotUnsent::Failed(format!("a file was not written within {FILE_MAX:?}")));
            }
            Err(_) => put(chunks, SnapshotChunk::default()).await?,
        }
    }
}

/// The receiver's answers.
struct Answers(Streaming<SnapshotReply>);

impl Answers {
    async fn next(&mut self, within: Duration) -> Result<SnapshotAnswer, SnapshotUnsent> {
        timeout(within, self.next_whenever()).await.map_err(|_| silent(within))?
    }

    async fn next_whenever(&mut self) -> Result<SnapshotAnswer, SnapshotUnsent> {
        let reply = self.0.message().await.map_err(|status: Status| SnapshotUnsent::Failed(error_chain(&status)))?;
        let reply = reply.ok_or_else(|| SnapshotUnsent::failed("the receiver ended without an answer"))?;
        SnapshotAnswer::decode(&reply.answer).map_err(SnapshotUnsent::failed)
    }
}

/// The end of a transfer by an answer that does not continue it.
fn end(answer: SnapshotAnswer) -> Result<Vote, SnapshotUnsent> {
    Err(match answer {
        SnapshotAnswer::Refused(refusal) => SnapshotUnsent::Refused(refusal),
        other => SnapshotUnsent::Failed(format!("the receiver answered {other:?} out of turn")),
    })
}

async fn put(chunks: &mpsc::Sender<SnapshotChunk>, chunk: SnapshotChunk) -> Result<(), SnapshotUnsent> {
    match timeout(PROGRESS_TIMEOUT, chunks.send(chunk)).await {
        Ok(sent) => sent.map_err(|_| SnapshotUnsent::failed("the connection was lost")),
        Err(_) => Err(SnapshotUnsent::Failed(format!("the receiver took nothing for {PROGRESS_TIMEOUT:?}"))),
    }
}

fn silent(within: Duration) -> SnapshotUnsent {
    SnapshotUnsent::Failed(format!("the receiver did not answer for {within:?}"))
}
