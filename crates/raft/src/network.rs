//! The network as openraft sees it: one `Network` for each replica that a leader or candidate talks to.
//!
//! ```text
//!   append stream   requests of one stream carry sequence numbers; many are in flight, answered in order
//!   heartbeat       one request, one answer, outside any stream, so that it never waits behind entries
//!   vote, transfer  one request, one answer
//!   snapshot        files over the transport's own connection
//! ```
//!
//! A lost message shows as a time-out: the stream ends with an error and openraft opens the next one.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption, RPCTypes,
};
use openraft::raft::{
    SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory};
use quorate_machine::state::Pinned;
use quorate_testpoints::fail_point;
use quorate_types::peer::{PeerBody, PeerMessage, SnapshotHeader};
use quorate_types::report::ReplicaReport;
use quorate_types::{GroupId, NodeId, ReplicaId};
use tokio::sync::{Semaphore, mpsc};

use crate::append_stream::AppendStream;
use crate::calls::{Answer, Calls, OpenStream};
use crate::openraft_types::{AppendRequest, LogId, NodeRef, TypeConfig};
use crate::state_machine::SnapshotData;
use crate::transport::{Lane, Transport};
use crate::{blocking, convert};

/// Pause before a peer that could not be reached is tried again.
const BACKOFF: Duration = Duration::from_millis(50);
/// Snapshots that a node sends at the same time.
const SNAPSHOTS_OUT_MAX: usize = 2;
/// What is kept of the reason why a snapshot did not arrive: it is part of every report.
const FAILURE_CHARS_MAX: usize = 200;

/// What all networks of a node share.
pub(crate) struct Wire {
    transport: Arc<dyn Transport>,
    calls: Calls,
    snapshot_dir: PathBuf,
    snapshots_out: Arc<Semaphore>,
    next_snapshot: AtomicU64,
    sending: Mutex<HashMap<GroupId, usize>>,
    /// Why the last snapshot from one replica to another did not arrive. Bounded: what no leader's report has is forgotten.
    failed: Mutex<HashMap<(ReplicaId, ReplicaId), String>>,
}

impl Wire {
    pub(crate) fn new(transport: Arc<dyn Transport>, snapshot_dir: PathBuf) -> Self {
        Wire {
            transport,
            calls: Calls::default(),
            snapshot_dir,
            snapshots_out: Arc::new(Semaphore::new(SNAPSHOTS_OUT_MAX)),
            next_snapshot: AtomicU64::new(0),
            sending: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// Adds to the reports of leaders why snapshots did not arrive. These are the reports of all replicas here.
    pub(crate) fn explain_snapshots(&self, reports: &mut [ReplicaReport]) {
        let mut failed = self.failed();
        failed.retain(|(from, to), reason| {
            let leader = reports.iter_mut().find(|report| report.replica == *from);
            let follower = leader.and_then(|leader| leader.others.iter_mut().find(|other| other.replica == *to));
            follower.map(|follower| follower.snapshot_failure = Some(reason.clone())).is_some()
        });
    }

    fn failed(&self) -> MutexGuard<'_, HashMap<(ReplicaId, ReplicaId), String>> {
        self.failed.lock().expect("nobody panics while holding this lock")
    }

    /// Whether a snapshot of the group is on its way: its log must stay, or the receiver needs another one straight after.
    pub(crate) fn is_sending(&self, group: GroupId) -> bool {
        self.sending().contains_key(&group)
    }

    /// Whether a snapshot of any group is being written or on its way.
    pub(crate) fn is_sending_any(&self) -> bool {
        !self.sending().is_empty()
    }

    fn sending(&self) -> MutexGuard<'_, HashMap<GroupId, usize>> {
        self.sending.lock().expect("nobody panics while holding this lock")
    }

    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    pub(crate) fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }
}

/// Makes the networks of one replica.
pub(crate) struct Networks {
    wire: Arc<Wire>,
    group: GroupId,
    replica: ReplicaId,
}

impl Networks {
    pub(crate) fn new(wire: Arc<Wire>, group: GroupId, replica: ReplicaId) -> Self {
        Networks { wire, group, replica }
    }

    fn network(&self, target: u64, node_ref: NodeRef, purpose: Purpose) -> Network {
        let link = Link {
            wire: self.wire.clone(),
            group: self.group,
            from: self.replica,
            to: ReplicaId(target),
            node: node_ref.0,
        };
        Network { link: Arc::new(link), purpose }
    }
}

impl RaftNetworkFactory<TypeConfig> for Networks {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &NodeRef) -> Network {
        self.network(target, *node, Purpose::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &NodeRef) -> Network {
        self.network(target, *node, Purpose::Heartbeat)
    }
}

/// Whether a stream of appends carries entries, or is a single heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Replication,
    Heartbeat,
}

/// From one replica to another of the same group.
pub(crate) struct Network {
    link: Arc<Link>,
    purpose: Purpose,
}

pub(crate) struct Link {
    wire: Arc<Wire>,
    group: GroupId,
    from: ReplicaId,
    to: ReplicaId,
    node: NodeId,
}

impl Link {
    /// Where the answers to a stream of requests arrive.
    pub(crate) fn open_stream(&self) -> (OpenStream, mpsc::UnboundedReceiver<Answer>) {
        self.wire.calls.open_stream()
    }

    pub(crate) fn send(&self, lane: Lane, body: PeerBody) -> Result<(), RPCError<TypeConfig>> {
        let message = PeerMessage { group: self.group, from: self.from, to: self.to, body };
        self.wire.transport.send(self.node, lane, message).map_err(|unsent| Unreachable::new(&unsent).into())
    }

    pub(crate) fn timeout(&self, action: RPCTypes, timeout: Duration) -> RPCError<TypeConfig> {
        Timeout { action, id: self.from.0, target: self.to.0, timeout }.into()
    }

    pub(crate) fn unreachable(&self) -> RPCError<TypeConfig> {
        Unreachable::from_string(format!("replica {} does not answer calls on node {}", self.to, self.node)).into()
    }

    /// One request and its answer.
    async fn call(
        &self,
        action: RPCTypes,
        within: Duration,
        body: impl FnOnce(u64) -> PeerBody,
    ) -> Result<Answer, RPCError<TypeConfig>> {
        let call = self.wire.calls.open();
        self.send(Lane::Control, body(call.id()))?;
        match tokio::time::timeout(within, call.answer()).await {
            Ok(Some(Answer::Unreachable)) | Ok(None) => Err(self.unreachable()),
            Ok(Some(answer)) => Ok(answer),
            Err(_) => Err(self.timeout(action, within)),
        }
    }

    async fn heartbeat(
        &self,
        request: AppendRequest,
        within: Duration,
    ) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        let request = convert::our_append_request(request);
        let answer = self.call(RPCTypes::AppendEntries, within, |call| PeerBody::Heartbeat { call, request }).await?;
        match answer {
            Answer::Append { reply, .. } => Ok(convert::append_result(reply)),
            other => Err(mismatch(&other)),
        }
    }

    async fn vote(
        &self,
        request: VoteRequest<TypeConfig>,
        pre: bool,
        within: Duration,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = quorate_types::peer::VoteRequest {
            vote: convert::our_vote(&request.vote),
            last: request.last_log_id.as_ref().map(convert::our_log_id),
            leadership_transfer: request.leadership_transfer,
        };
        match self.call(RPCTypes::Vote, within, |call| PeerBody::Vote { call, pre, request }).await? {
            Answer::Vote(reply) => {
                Ok(VoteResponse::new(convert::vote(reply.vote), reply.last.map(convert::log_id), reply.granted))
            }
            other => Err(mismatch(&other)),
        }
    }
}

pub(crate) fn mismatch(answer: &Answer) -> RPCError<TypeConfig> {
    NetworkError::from_string(format!("the peer answered another question: {answer:?}")).into()
}

impl NetBackoff<TypeConfig> for Network {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}

impl NetStreamAppend<TypeConfig> for Network {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, RPCError<TypeConfig>>,
    >
    where
        S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
    {
        let link = self.link.clone();
        let purpose = self.purpose;
        Box::pin(async move {
            if purpose == Purpose::Heartbeat {
                let answers = match input.next().await {
                    Some(request) => vec![link.heartbeat(request, option.soft_ttl()).await],
                    None => vec![],
                };
                return Ok(stream::iter(answers).boxed());
            }
            Ok(AppendStream::open(link, input).answers().boxed())
        })
    }
}

impl NetVote<TypeConfig> for Network {
    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.link.vote(rpc, false, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.link.vote(rpc, true, option.hard_ttl()).await
    }
}

impl NetTransferLeader<TypeConfig> for Network {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let from_leader = convert::our_vote(req.from_leader());
        let target = ReplicaId(*req.to_node_id());
        let last = req.last_log_id().map(convert::our_log_id);
        let answer = self
            .link
            .call(RPCTypes::TransferLeader, option.hard_ttl(), |call| PeerBody::TransferLeader {
                call,
                from_leader,
                target,
                last,
            })
            .await?;
        match answer {
            Answer::Transfer { accepted: true } => Ok(Ok(())),
            Answer::Transfer { accepted: false } => Ok(Err(openraft::raft::TransferLeaderError::LogNotFlushed {
                expected: req.last_log_id().cloned(),
                actual: None::<LogId>,
            })),
            other => Err(mismatch(&other)),
        }
    }
}

impl NetSnapshot<TypeConfig> for Network {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: crate::openraft_types::Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::Pinned(pinned) = snapshot.snapshot else {
            return Err(NetworkError::from_string("this snapshot holds no data to send").into());
        };
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = self.link.send_snapshot(convert::our_vote(&vote), pinned) => {
                self.link.remember(&sent);
                let vote = sent.map_err(|reason| StreamingError::from(Unreachable::from_string(reason)))?;
                Ok(SnapshotResponse::new(convert::vote(vote)))
            }
        }
    }
}

impl Link {
    /// How the last snapshot ended, for the reports.
    fn remember(&self, sent: &Result<quorate_types::Vote, String>) {
        let link = (self.from, self.to);
        match sent {
            Ok(_) => drop(self.wire.failed().remove(&link)),
            Err(reason) => {
                let reason = reason.chars().take(FAILURE_CHARS_MAX).collect();
                drop(self.wire.failed().insert(link, reason));
            }
        }
    }

    /// Writes the pinned state into files and streams them.
    async fn send_snapshot(
        &self,
        vote: quorate_types::Vote,
        pinned: Box<dyn Pinned>,
    ) -> Result<quorate_types::Vote, String> {
        let Ok(_slot) = self.wire.snapshots_out.clone().acquire_owned().await else {
            return Err("the node is stopping".to_owned());
        };
        // Not before its turn: so many logs are held at a time, and no more.
        let _sending = Sending::start(&self.wire, self.group);
        let number = self.wire.next_snapshot.fetch_add(1, Ordering::Relaxed);
        let dir = OutgoingDir(self.wire.snapshot_dir.join(format!("out-{number}")));
        let (group, from, to) = (self.group, self.from, self.to);
        let path = dir.0.clone();
        let written = blocking::elsewhere(move || write_snapshot(&path, pinned.as_ref(), to));
        let (meta, files) = written.await.map_err(|error| error.to_string())??;
        fail_point("snapshot-written");
        tracing::info!(%group, replica = %to, node = %self.node, applied = ?meta.applied, files = files.len(), "sending a snapshot");
        let header = SnapshotHeader {
            group,
            from,
            to,
            vote,
            meta,
            files: files.iter().map(|file| (file.bytes, file.checksum)).collect(),
        };
        let paths = files.into_iter().map(|file| file.path).collect();
        self.wire.transport.send_snapshot(self.node, header, paths).await.map_err(|unsent| unsent.to_string())
    }
}

/// Holds a group's log while a snapshot of it is on its way.
struct Sending<'a>(&'a Wire, GroupId);

impl<'a> Sending<'a> {
    fn start(wire: &'a Wire, group: GroupId) -> Self {
        *wire.sending().entry(group).or_default() += 1;
        Sending(wire, group)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let mut sending = self.0.sending();
        if let Some(count) = sending.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                sending.remove(&self.1);
            }
        }
    }
}

/// A file of a snapshot on its way out.
struct OutgoingFile {
    path: PathBuf,
    bytes: u64,
    checksum: u32,
}

fn write_snapshot(
    dir: &std::path::Path,
    pinned: &dyn Pinned,
    to: ReplicaId,
) -> Result<(quorate_types::peer::SnapshotMeta, Vec<OutgoingFile>), String> {
    std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let paths = pinned.write_files(dir, to).map_err(|error| error.to_string())?;
    let measure = |path: PathBuf| -> std::io::Result<OutgoingFile> {
        use std::io::Read;
        let mut file = std::fs::File::open(&path)?;
        let mut buffer = vec![0; 256 << 10];
        let (mut bytes, mut checksum) = (0, 0);
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(OutgoingFile { path, bytes, checksum });
            }
            checksum = crc32c::crc32c_append(checksum, &buffer[..read]);
            bytes += read as u64;
        }
    };
    let files: std::io::Result<Vec<OutgoingFile>> = paths.into_iter().map(measure).collect();
    Ok((pinned.meta().clone(), files.map_err(|error| error.to_string())?))
}

/// Removes the directory when the transfer has ended, however it ended.
struct OutgoingDir(PathBuf);

impl Drop for OutgoingDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %self.0.display(), %error, "snapshot files left behind; they are removed at the next start");
        }
    }
}
