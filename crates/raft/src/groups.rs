//! All replicas of a node: opened, fed with messages, paced, purged, supervised and closed together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use futures::future::join_all;
use openraft::{Config, SnapshotPolicy};
use quorate_machine::log::Log;
use quorate_machine::state::{State, StateError, View};
use quorate_machine::{Machine, Replica};
use quorate_testpoints::fail_point;
use quorate_types::clock::Clock;
use quorate_types::peer::{PeerBody, PeerMessage, SnapshotHeader};
use quorate_types::report::{OrderKind, ReplicaReport};
use quorate_types::{GroupId, NodeId, ReplicaId, Vote};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::calls::Answer;
use crate::config::Options;
use crate::election::Election;
use crate::group::{AnyGroup, Group, GroupStatus, OpenError};
use crate::inbound::Inbound;
use crate::log_store::LogStore;
use crate::membership::OrderError;
use crate::network::{Networks, Wire};
use crate::openraft_types::TypeConfig;
use crate::state_machine::{Progress, Received, StateMachine};
use crate::transport::{Lane, Transport};
use crate::{blocking, election, heartbeat, retention};

/// The node's groups have stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the raft groups of this node have stopped")]
pub struct Stopped;

/// Entries in one append, at most; their bytes are bounded by what one read of the log gives.
const APPEND_ENTRIES_MAX: u64 = 1024;
/// Requests that may wait for one Raft core.
const CORE_QUEUE_MAX: u64 = 4096;
/// openraft's heartbeat interval, in our heartbeats: 5/3.
const CORE_HEARTBEATS: (u64, u64) = (5, 3);
/// How long a leader without a quorum is silent, and how long it tries again, in leases.
const QUORUM_PROBE_LEASES: u64 = 4;

/// All replicas of a node. Cheap to clone.
#[derive(Clone)]
pub struct Groups {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) state: Arc<dyn State>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) wire: Arc<Wire>,
    pub(crate) compacting: tokio::sync::Mutex<()>,
    replicas: RwLock<BTreeMap<ReplicaId, Arc<dyn AnyGroup>>>,
    started: Instant,
    stopping: AtomicBool,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Groups {
    /// Starts the node-wide tasks; must be called inside a tokio runtime of several threads.
    pub fn new(
        options: Options,
        log: Arc<dyn Log>,
        state: Arc<dyn State>,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let wire = Arc::new(Wire::new(transport, options.snapshot_dir.clone()));
        let shared = Arc::new(Shared {
            options,
            log,
            state,
            clock,
            wire,
            compacting: tokio::sync::Mutex::new(()),
            replicas: RwLock::default(),
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        shared.spawn(heartbeat::run(shared.clone()));
        shared.spawn(election::run(shared.clone()));
        shared.spawn(retention::run(shared.clone()));
        Groups { shared }
    }

    /// Opens a replica, creating its log if it is new, and starts its Raft core. `open_machine` reads the machine from the
    /// replica's state, now and after every installed snapshot.
    pub async fn open<M: Machine>(
        &self,
        group: GroupId,
        replica: ReplicaId,
        open_machine: impl Fn(ReplicaId, &dyn View) -> Result<M, StateError> + Send + Sync + 'static,
    ) -> Result<Group<M>, OpenError> {
        let shared = &self.shared;
        if shared.find(replica).is_some() {
            return Err(OpenError::AlreadyOpen(replica));
        }
        blocking::in_place(|| shared.log.create(replica, group))?;
        let before = shared.log.state(replica)?;
        let existed = before.vote.is_some() || before.last.is_some();
        let machine = Replica::open(shared.state.clone(), replica, open_machine)?;
        if !existed && machine.head().applied.is_some() {
            let reason = "it has a state and no log: its votes are lost, so it must come back as a new replica";
            return Err(OpenError::Raft(reason.to_owned()));
        }
        let progress = Progress::default();
        let machine = StateMachine::new(machine, progress.clone(), shared.options.on_fatal.clone());
        let config = shared.raft_config();
        let raft = openraft::Raft::<TypeConfig, StateMachine<M>>::build(
            replica.0,
            Arc::new(config),
            Networks::new(shared.wire.clone(), group, replica),
            LogStore::new(shared.log.clone(), replica),
            machine,
        )
        .await
        .map_err(|fatal| OpenError::Raft(fatal.to_string()))?;
        let freeze = if existed { shared.options.timing.vote_freeze() } else { Duration::ZERO };
        let votes_from = shared.started + freeze;
        let Options { node, timing, .. } = shared.options;
        let election = Arc::new(Election::new(node, group, replica, timing.lease(), votes_from));
        let inbound = Inbound::new(raft.clone(), shared.wire.clone(), group, replica, votes_from, election.clone());
        let opened = Group::new(group, replica, raft, shared.log.clone(), progress, inbound, election)?;
        let inner = opened.inner().clone();
        shared.replicas_mut().insert(replica, inner.clone());
        inner.raft.run();
        shared.spawn(supervise(shared.clone(), inner));
        tracing::info!(%group, %replica, existed, "replica opened");
        Ok(opened)
    }

    /// Handles a message of another node. Never blocks.
    pub fn receive(&self, from: NodeId, message: PeerMessage) {
        let calls = self.shared.wire.calls();
        match message.body {
            PeerBody::AppendReply { stream, sequence, reply } => {
                calls.answer(stream, Answer::Append { sequence, reply })
            }
            PeerBody::HeartbeatReply { call, reply } => calls.answer(call, Answer::Append { sequence: 0, reply }),
            PeerBody::VoteReply { call, reply } => calls.answer(call, Answer::Vote(reply)),
            PeerBody::TransferReply { call, accepted } => calls.answer(call, Answer::Transfer { accepted }),
            PeerBody::Unreachable { call } => calls.answer(call, Answer::Unreachable),
            PeerBody::Append { stream: call, .. }
            | PeerBody::Heartbeat { call, .. }
            | PeerBody::Vote { call, .. }
            | PeerBody::TransferLeader { call, .. } => self.request(from, call, message),
        }
    }

    fn request(&self, from: NodeId, call: u64, message: PeerMessage) {
        match self.shared.find(message.to).filter(|replica| replica.group() == message.group) {
            Some(replica) => replica.receive(from, message),
            None => {
                let body = PeerBody::Unreachable { call };
                let answer = PeerMessage { group: message.group, from: message.to, to: message.from, body };
                // A lost answer is a time-out for whoever waits for it.
                let _ = self.shared.wire.transport().send(from, Lane::Control, answer);
            }
        }
    }

    /// Installs a received snapshot. Gives the replica's vote. An error does not say that it is not being installed still.
    pub async fn receive_snapshot(&self, header: SnapshotHeader, received: Received) -> Result<Vote, String> {
        match self.shared.find(header.to).filter(|replica| replica.group() == header.group) {
            Some(replica) => replica.receive_snapshot(header, received).await,
            None => Err(format!("replica {} of group {} is not here", header.to, header.group)),
        }
    }

    /// What every replica is and how far it is, by group.
    pub fn statuses(&self) -> Vec<GroupStatus> {
        let mut statuses: Vec<GroupStatus> = self.shared.all().iter().map(|replica| replica.status()).collect();
        statuses.sort_by_key(|status| status.group);
        statuses
    }

    /// Whether a snapshot of any replica is being written or sent.
    pub fn are_sending_snapshots(&self) -> bool {
        self.shared.wire.is_sending_any()
    }

    /// What the reconciler wants to know of every replica.
    pub fn reports(&self) -> Vec<ReplicaReport> {
        let mut reports: Vec<ReplicaReport> = self.shared.all().iter().map(|replica| replica.report()).collect();
        self.shared.wire.explain_snapshots(&mut reports);
        reports
    }

    /// Does what the reconciler orders of the replica of a group here, or says why it could not.
    pub async fn execute(&self, group: GroupId, what: OrderKind, within: Duration) -> Result<(), OrderError> {
        let here = self.shared.all().into_iter().filter(|replica| replica.group() == group);
        let Some(replica) = here.max_by_key(|replica| replica.is_leader()) else {
            return Err(OrderError::Refused(format!("no replica of group {group} is here")));
        };
        replica.execute(what, within).await
    }

    /// Stops a replica and destroys what is stored of it; durable on return. Its id can never be opened here again. A replica
    /// that is not here is remembered as destroyed.
    pub async fn destroy(&self, replica: ReplicaId) -> Result<(), OpenError> {
        let open = self.shared.replicas_mut().remove(&replica);
        if let Some(open) = open {
            open.clone().shutdown().await;
            blocking::in_place(|| open.retire());
        }
        let (log, state) = (self.shared.log.clone(), self.shared.state.clone());
        // First the tombstone: what a crash leaves of the state is swept at the next start.
        blocking::in_place(|| {
            log.destroy(replica)?;
            fail_point("tombstone-written");
            state.destroy(replica)?;
            Ok(())
        })
    }

    /// Flushes the state and purges all logs as far as is safe. Gives the number of entries purged.
    pub async fn compact(&self) -> Result<u64, Stopped> {
        retention::compact_all(&self.shared).await
    }

    /// Hands every leadership over to a follower that is caught up. Gives the number of groups that are still led here.
    pub async fn transfer_leaderships(&self, within: Duration) -> usize {
        let led: Vec<_> = self.shared.all().into_iter().filter(|replica| replica.is_leader()).collect();
        let handed = join_all(led.into_iter().map(|replica| replica.transfer_leadership(within))).await;
        handed.into_iter().filter(|done| !done).count()
    }

    /// Stops all groups. The log and the state stay open: whoever opened them flushes and closes them afterwards.
    pub async fn shutdown(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.stop.cancel();
        join_all(self.shared.all().into_iter().map(|replica| replica.shutdown())).await;
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Shared {
    fn replicas_mut(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<ReplicaId, Arc<dyn AnyGroup>>> {
        self.replicas.write().expect("nobody panics while holding this lock")
    }

    fn find(&self, replica: ReplicaId) -> Option<Arc<dyn AnyGroup>> {
        self.replicas.read().expect("nobody panics while holding this lock").get(&replica).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<dyn AnyGroup>> {
        self.replicas.read().expect("nobody panics while holding this lock").values().cloned().collect()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Runs a task until it ends or the groups stop, whichever is first.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    fn raft_config(&self) -> Config {
        let timing = self.options.timing;
        let config = Config {
            cluster_name: "quorate".to_owned(),
            // Only openraft's own time-outs hang on this: how long a heartbeat may take.
            heartbeat_interval: timing.heartbeat_ms * CORE_HEARTBEATS.0 / CORE_HEARTBEATS.1,
            // The longest of openraft's election time-outs is its lease; the time-outs themselves are not used.
            election_timeout_min: timing.lease_ms - 1,
            election_timeout_max: timing.lease_ms,
            // No core looks at its clock: the heartbeat sends the heartbeats of all groups together, and `election` campaigns.
            enable_tick: false,
            enable_heartbeat: false,
            enable_elect: false,
            enable_pre_vote: Some(true),
            // A restarted leader may have lost what it had applied: it asks for votes like everybody else.
            enable_leader_restore: Some(false),
            quorum_loss_probe_interval: Some(QUORUM_PROBE_LEASES * timing.lease_ms),
            // Snapshots and purges are the retention task's, for all groups together.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            max_payload_entries: APPEND_ENTRIES_MAX,
            api_channel_size: Some(CORE_QUEUE_MAX),
            ..Config::default()
        };
        config.validate().expect("the timing was checked when the node was configured")
    }
}

/// Follows a replica's core; a dead one ends the process: clients would hang on it.
async fn supervise<M: Machine>(shared: Arc<Shared>, replica: Arc<crate::group::Inner<M>>) {
    let ended = replica.supervise().await;
    if let Some(reason) = ended
        && !shared.is_stopping()
    {
        (shared.options.on_fatal)(format!("the raft core of group {} died: {reason}", replica.group));
    }
}
