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

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

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
use quorate_storage::state::Pinned;
use quorate_types::peer::{PeerBody, PeerMessage, SnapshotHeader};
use quorate_types::{GroupId, NodeId, ReplicaId};
use tokio::sync::{Semaphore, mpsc};

use crate::calls::{Answer, Calls, OpenStream};
use crate::convert;
use crate::openraft_types::{AppendRequest, Home, LogId, TypeConfig};
use crate::state_machine::SnapshotData;
use crate::transport::{Lane, Transport};

/// Requests of one stream that may wait for their answers.
const APPENDS_IN_FLIGHT_MAX: usize = 64;
/// Bytes of one stream that may wait for their answers, give or take one request: what a group that catches up may take of
/// the link.
const APPEND_BYTES_IN_FLIGHT_MAX: usize = 8 << 20;
/// An append larger than this travels on the bulk lane.
const CONTROL_BYTES_MAX: usize = 32 << 10;
/// How long an append may take. Longer than a heartbeat: a slow disk at the other end delays the answer, and giving up would
/// only make it send everything again.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before a peer that could not be reached is tried again.
const BACKOFF: Duration = Duration::from_millis(50);
/// Snapshots that a node sends at the same time.
const SNAPSHOTS_OUT_MAX: usize = 2;

/// What all networks of a node share.
pub(crate) struct Wire {
    transport: Arc<dyn Transport>,
    calls: Calls,
    snapshot_dir: PathBuf,
    snapshots_out: Arc<Semaphore>,
    next_snapshot: AtomicU64,
    sending: Mutex<HashMap<GroupId, usize>>,
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
        }
    }

    /// Whether a snapshot of the group is on its way: its log must stay, or the receiver needs another one straight after.
    pub(crate) fn is_sending(&self, group: GroupId) -> bool {
        self.sending().contains_key(&group)
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

    fn network(&self, target: u64, home: Home, purpose: Purpose) -> Network {
        let link = Link {
            wire: self.wire.clone(),
            group: self.group,
            from: self.replica,
            to: ReplicaId(target),
            node: home.0,
        };
        Network { link: Arc::new(link), purpose }
    }
}

impl RaftNetworkFactory<TypeConfig> for Networks {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &Home) -> Network {
        self.network(target, *node, Purpose::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Home) -> Network {
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

struct Link {
    wire: Arc<Wire>,
    group: GroupId,
    from: ReplicaId,
    to: ReplicaId,
    node: NodeId,
}

impl Link {
    fn send(&self, lane: Lane, body: PeerBody) -> Result<(), RPCError<TypeConfig>> {
        let message = PeerMessage { group: self.group, from: self.from, to: self.to, body };
        self.wire.transport.send(self.node, lane, message).map_err(|unsent| Unreachable::new(&unsent).into())
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> RPCError<TypeConfig> {
        Timeout { action, id: self.from.0, target: self.to.0, timeout }.into()
    }

    fn unreachable(&self) -> RPCError<TypeConfig> {
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

fn mismatch(answer: &Answer) -> RPCError<TypeConfig> {
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

/// One stream of appends: requests leave in order as far as there is room in flight, answers come back in order.
struct AppendStream<S> {
    link: Arc<Link>,
    /// None when it has ended.
    input: Option<S>,
    calls: OpenStream,
    answers: mpsc::UnboundedReceiver<Answer>,
    in_flight: InFlight,
    /// Rings when the oldest request in flight may be overdue. Set again only when it rings, not for every request.
    alarm: Pin<Box<tokio::time::Sleep>>,
}

/// Requests that were sent and wait for their answers, the oldest first: when each was sent, and its bytes.
#[derive(Default)]
struct InFlight {
    requests: VecDeque<(Instant, usize)>,
    bytes: usize,
    sent: u64,
}

impl InFlight {
    fn has_room(&self) -> bool {
        self.requests.len() < APPENDS_IN_FLIGHT_MAX && self.bytes < APPEND_BYTES_IN_FLIGHT_MAX
    }

    fn push(&mut self, bytes: usize) {
        self.requests.push_back((Instant::now(), bytes));
        self.bytes += bytes;
        self.sent += 1;
    }

    /// The sequence number of the oldest one, which is answered next.
    fn oldest(&self) -> u64 {
        self.sent - self.requests.len() as u64
    }

    fn pop(&mut self) {
        let (_, bytes) = self.requests.pop_front().expect("an answer is taken only while a request waits for it");
        self.bytes -= bytes;
    }
}

type AppendAnswer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

impl<S: Stream<Item = AppendRequest> + Send + Unpin + 'static> AppendStream<S> {
    fn open(link: Arc<Link>, input: S) -> Self {
        let (calls, answers) = link.wire.calls.open_stream();
        let alarm = Box::pin(tokio::time::sleep(APPEND_TIMEOUT));
        AppendStream { link, input: Some(input), calls, answers, in_flight: InFlight::default(), alarm }
    }

    fn answers(self) -> impl Stream<Item = AppendAnswer> {
        stream::unfold(Some(self), |stream| async move {
            let mut stream = stream?;
            let result = stream.next_answer().await?;
            let go_on = matches!(result, Ok(Ok(_)));
            Some((result, go_on.then_some(stream)))
        })
    }

    /// Sends what there is to send until an answer comes; none when the input has ended and everything is answered.
    async fn next_answer(&mut self) -> Option<AppendAnswer> {
        loop {
            let waiting = !self.in_flight.requests.is_empty();
            let Some(input) = self.input.as_mut().filter(|_| self.in_flight.has_room()) else {
                if !waiting {
                    return None;
                }
                tokio::select! {
                    answer = self.answers.recv() => return Some(self.settle(answer)),
                    () = &mut self.alarm => if let Some(late) = self.overdue() { return Some(Err(late)) },
                }
                continue;
            };
            tokio::select! {
                biased;
                answer = self.answers.recv(), if waiting => return Some(self.settle(answer)),
                request = input.next() => match request {
                    Some(request) => if let Err(error) = self.send(request) { return Some(Err(error)) },
                    None => self.input = None,
                },
                () = &mut self.alarm, if waiting => if let Some(late) = self.overdue() { return Some(Err(late)) },
            }
        }
    }

    fn send(&mut self, request: AppendRequest) -> Result<(), RPCError<TypeConfig>> {
        let request = convert::our_append_request(request);
        let bytes: usize = request.entries.iter().map(quorate_types::Entry::size_bytes).sum();
        let lane = if bytes > CONTROL_BYTES_MAX { Lane::Bulk } else { Lane::Control };
        let sequence = self.in_flight.sent;
        self.link.send(lane, PeerBody::Append { stream: self.calls.id(), sequence, request })?;
        self.in_flight.push(bytes);
        Ok(())
    }

    fn settle(&mut self, answer: Option<Answer>) -> AppendAnswer {
        match answer {
            Some(Answer::Append { sequence, reply }) if sequence == self.in_flight.oldest() => {
                self.in_flight.pop();
                Ok(convert::append_result(reply))
            }
            Some(Answer::Unreachable) | None => Err(self.link.unreachable()),
            Some(other) => Err(mismatch(&other)),
        }
    }

    /// The alarm rang: an error if the oldest request is overdue, else it is set for when it would be.
    fn overdue(&mut self) -> Option<RPCError<TypeConfig>> {
        let (sent, _) = self.in_flight.requests.front()?;
        let due = *sent + APPEND_TIMEOUT;
        if due <= Instant::now() {
            return Some(self.link.timeout(RPCTypes::AppendEntries, APPEND_TIMEOUT));
        }
        self.alarm.as_mut().reset(due.into());
        None
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
            closed = cancel => Err(closed.into()),
            sent = self.link.send_snapshot(convert::our_vote(&vote), pinned) => {
                let vote = sent.map_err(|reason| StreamingError::from(Unreachable::from_string(reason)))?;
                Ok(SnapshotResponse::new(convert::vote(vote)))
            }
        }
    }
}

impl Link {
    /// Writes the pinned state into files and streams them.
    async fn send_snapshot(
        &self,
        vote: quorate_types::Vote,
        pinned: Box<dyn Pinned>,
    ) -> Result<quorate_types::Vote, String> {
        let Ok(_slot) = self.wire.snapshots_out.clone().acquire_owned().await else {
            return Err("the node is stopping".to_owned());
        };
        let _sending = Sending::start(&self.wire, self.group);
        let number = self.wire.next_snapshot.fetch_add(1, Ordering::Relaxed);
        let dir = OutgoingDir(self.wire.snapshot_dir.join(format!("out-{number}")));
        let (group, from, to) = (self.group, self.from, self.to);
        let path = dir.0.clone();
        let written = tokio::task::spawn_blocking(move || write_snapshot(&path, pinned.as_ref(), to));
        let (meta, files) = written.await.map_err(|error| error.to_string())??;
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
