//! One replica of one Raft group, with its state machine.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::LinearizerOption;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError, LinearizableReadError, RaftError};
use openraft::raft::ClientWriteResult;
use quorate_machine::Machine;
use quorate_machine::log::{Log, LogError};
use quorate_machine::state::StateError;
use quorate_types::peer::{PeerMessage, SnapshotHeader};
use quorate_types::report::{OrderKind, ReplicaReport};
use quorate_types::state::Head;
use quorate_types::topology::Placement;
use quorate_types::{GroupId, LogId, NodeId, Rejection, ReplicaId, Role, Vote};
use tokio::time::Instant;

use crate::convert;
use crate::election::Election;
use crate::inbound::Inbound;
use crate::leadership::{DECISION_MAX, DECISION_POLL, Declined};
use crate::membership::OrderError;
use crate::openraft_types::{Command, Fatal, NodeRef, Reply, Responder, TypeConfig};
use crate::state_machine::{Progress, Received, SnapshotData, StateMachine};

pub(crate) type Raft<M> = openraft::Raft<TypeConfig, StateMachine<M>>;

/// How often the wait for the end of something inside openraft looks again.
const POLL: Duration = Duration::from_millis(5);
/// How long a purge may take before the scheduler leaves it to its next turn.
const PURGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a replica could not be opened. Its data is as before.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log refused: the replica was destroyed, or the disk is in doubt.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state is in doubt.
    #[error(transparent)]
    State(#[from] StateError),
    /// Raft did not start from what it found.
    #[error("raft refused to start: {0}")]
    Raft(String),
    /// The replica is open already.
    #[error("replica {0} is open already")]
    AlreadyOpen(ReplicaId),
}

/// What applying a proposal gave.
#[derive(Clone, Debug)]
pub struct Applied<R> {
    /// The machine's reply.
    pub reply: R,
    /// The state right after it, or a little later: `revision` and `applied` are at least those of the proposal.
    pub head: Head,
}

/// A quorum confirmed, after the question was asked, that this replica led; everything committed then is applied here.
#[derive(Clone, Copy, Debug)]
pub struct Confirmed(());

/// What a replica is and how far it is.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// What it is in the group.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The node that leads as far as it knows; none where it has heard nothing of it for some leases.
    pub leader: Option<NodeId>,
    /// Whether it was ever told who the members are.
    pub initialized: bool,
    /// The last entry of its log.
    pub last_log_index: Option<u64>,
    /// The last entry it applied.
    pub applied_index: Option<u64>,
    /// The last entry it purged.
    pub purged_index: Option<u64>,
    /// Its state's revision, epoch and clock.
    pub head: Head,
    /// Bytes of log that it keeps.
    pub log_bytes: u64,
    /// The nodes of the voters.
    pub voters: Vec<NodeId>,
    /// Snapshots that it installed since the node started.
    pub snapshots_installed: u64,
}

/// What changes rarely: read on every request, so kept apart from openraft's metrics.
#[derive(Clone, Debug)]
pub(crate) struct SoftState {
    pub(crate) role: Role,
    pub(crate) term: u64,
    /// Since when it is that, in this term.
    pub(crate) since: Instant,
    pub(crate) leader: Option<NodeId>,
    pub(crate) voters: Vec<NodeId>,
    pub(crate) is_voter: bool,
}

/// A replica of a Raft group whose state machine is `M`. Cheap to clone.
pub struct Group<M: Machine> {
    inner: Arc<Inner<M>>,
}

impl<M: Machine> Clone for Group<M> {
    fn clone(&self) -> Self {
        Group { inner: self.inner.clone() }
    }
}

pub(crate) struct Inner<M: Machine> {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) raft: Raft<M>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) progress: Progress,
    soft_state: Mutex<SoftState>,
    recovered_at: Option<LogId>,
    inbound: Inbound<M>,
    election: Arc<Election>,
    installing: tokio::sync::Mutex<()>,
    /// The term in which this replica promised its leadership to another one.
    pub(crate) promised_term: AtomicU64,
}

impl<M: Machine> Group<M> {
    pub(crate) fn new(
        group: GroupId,
        replica: ReplicaId,
        raft: Raft<M>,
        log: Arc<dyn Log>,
        progress: Progress,
        inbound: Inbound<M>,
        election: Arc<Election>,
    ) -> Result<Self, OpenError> {
        let recovered_at = log.state(replica)?.committed;
        let soft_state = SoftState {
            role: Role::Learner,
            term: 0,
            since: Instant::now(),
            leader: None,
            voters: vec![],
            is_voter: false,
        };
        let inner = Inner {
            group,
            replica,
            raft,
            log,
            progress,
            soft_state: Mutex::new(soft_state),
            recovered_at,
            inbound,
            election,
            installing: tokio::sync::Mutex::new(()),
            promised_term: AtomicU64::new(0),
        };
        inner.refresh_soft_state();
        Ok(Group { inner: Arc::new(inner) })
    }

    pub(crate) fn inner(&self) -> &Arc<Inner<M>> {
        &self.inner
    }

    /// The group.
    pub fn id(&self) -> GroupId {
        self.inner.group
    }

    /// The replica.
    pub fn replica(&self) -> ReplicaId {
        self.inner.replica
    }

    /// The state's applied index, revision, epoch and clock as of now.
    pub fn head(&self) -> Head {
        self.inner.progress.head()
    }

    /// What the replica is in its group as far as it knows.
    pub fn role(&self) -> Role {
        self.inner.soft_state_lock().role
    }

    /// Whether it believes that it leads. Only a quorum can confirm it: [`Group::confirm`].
    pub fn is_leader(&self) -> bool {
        self.role() == Role::Leader
    }

    /// The node that leads as far as it knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.inner.soft_state_lock().leader
    }

    /// Whether an `eventual` read may be served here: a voter that has replayed its log at least as far as it knew it to be
    /// committed before the last restart.
    pub fn serves_eventual(&self) -> bool {
        let applied = self.inner.progress.head().applied;
        applied.is_some() && applied >= self.inner.recovered_at && self.inner.soft_state_lock().is_voter
    }

    /// What the replica is and how far it is.
    pub fn status(&self) -> GroupStatus {
        self.inner.status()
    }

    /// Starts the group with exactly these replicas, if nobody did. Harmless when it runs already, and on several initial nodes at
    /// once as long as all name the same set.
    pub async fn initialize(&self, initial_replicas: &[Placement]) -> Result<(), Rejection> {
        let members: std::collections::BTreeMap<u64, NodeRef> = initial_replicas
            .iter()
            .map(|initial_replica| (initial_replica.replica.0, NodeRef(initial_replica.node)))
            .collect();
        match self.inner.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(refused)) => Err(Rejection::Invalid { reason: refused.to_string() }),
            Err(RaftError::Fatal(fatal)) => Err(stopped(&fatal)),
        }
    }

    /// Whether the replica was ever told who the members of its group are.
    pub fn is_initialized(&self) -> bool {
        self.inner.status().initialized
    }

    /// Proposes one entry and waits until it is applied here, at most `within`.
    ///
    /// Every [`Rejection`] but `Unknown` promises that it was not and will not be applied. After `Unknown` it may be applied
    /// now, later or never.
    pub async fn propose(&self, proposal: Bytes, within: Duration) -> Result<Applied<M::Reply>, Rejection> {
        self.propose_with(proposal, within, Instant::now() + within.min(DECISION_MAX)).await
    }

    /// The same, for what has waited already: it is `patience` until which it waits for a decision who leads.
    pub(crate) async fn propose_with(
        &self,
        proposal: Bytes,
        within: Duration,
        patience: Instant,
    ) -> Result<Applied<M::Reply>, Rejection> {
        let deadline = Instant::now() + within;
        loop {
            self.check_leads_by(patience).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.try_propose(proposal.clone(), left).await? {
                Ok(applied) => return Ok(applied),
                Err(Declined::Undecided(_)) if Instant::now() < patience => tokio::time::sleep(DECISION_POLL).await,
                Err(Declined::Undecided(rejection) | Declined::Decided(rejection)) => return Err(rejection),
            }
        }
    }

    async fn try_propose(
        &self,
        proposal: Bytes,
        within: Duration,
    ) -> Result<Result<Applied<M::Reply>, Declined>, Rejection> {
        let (responder, applied) = Responder::pair();
        let proposed = async {
            let sent = self.inner.raft.client_write_ff(Command(proposal), Some(responder)).await;
            sent.map_err(|fatal| unknown(format!("the replica stopped: {fatal}")))?;
            applied.await.map_err(|_| unknown("the replica dropped the proposal".to_owned()))
        };
        let result: ClientWriteResult<TypeConfig> = tokio::time::timeout(within, proposed)
            .await
            .map_err(|_| unknown(format!("not applied within {} ms", within.as_millis())))??;
        match result {
            Ok(response) => applied_reply(response.data).map(Ok),
            Err(ClientWriteError::ForwardToLeader(forward)) => Ok(Err(self.declined(forward))),
            Err(error) => Err(unknown(error.to_string())),
        }
    }

    /// Confirms with a quorum, after this call began, that this replica leads, and waits until everything that was committed
    /// then is applied here. What is read from its state from then on is linearizable.
    pub async fn confirm(&self, within: Duration) -> Result<Confirmed, Rejection> {
        let deadline = Instant::now() + within;
        let patience = Instant::now() + within.min(DECISION_MAX);
        loop {
            self.check_leads_by(patience).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.try_confirm(left).await? {
                Ok(confirmed) => return Ok(confirmed),
                Err(Declined::Undecided(_)) if Instant::now() < patience => tokio::time::sleep(DECISION_POLL).await,
                Err(Declined::Undecided(rejection) | Declined::Decided(rejection)) => return Err(rejection),
            }
        }
    }

    async fn try_confirm(&self, within: Duration) -> Result<Result<Confirmed, Declined>, Rejection> {
        let raft = &self.inner.raft;
        let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(within);
        let confirmed = async {
            let linearizer = match raft.get_read_linearizer(option).await {
                Ok(linearizer) => linearizer,
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                    return Ok(Err(self.declined(forward)));
                }
                Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(missing))) => {
                    let answered = missing.got.len();
                    return Err(Rejection::Unavailable {
                        reason: format!("no quorum confirmed the leader: only {answered} of its replicas answered"),
                    });
                }
                Err(RaftError::Fatal(fatal)) => return Err(stopped(&fatal)),
            };
            linearizer.await_ready(raft).await.map_err(|fatal| stopped(&fatal))?;
            Ok(Ok(Confirmed(())))
        };
        let late = |_| Rejection::Unavailable { reason: format!("no quorum within {} ms", within.as_millis()) };
        tokio::time::timeout(within, confirmed).await.map_err(late)?
    }
}

fn unknown(reason: String) -> Rejection {
    Rejection::Unknown { reason }
}

fn stopped(fatal: &Fatal) -> Rejection {
    Rejection::Unavailable { reason: format!("the replica stopped: {fatal}") }
}

fn applied_reply<R: 'static>(reply: Reply) -> Result<Applied<R>, Rejection> {
    let any = reply.reply.expect("an entry with a proposal has a reply");
    let typed = any.downcast::<R>().expect("the reply is of the type of the group's machine");
    Ok(Applied { reply: *typed, head: reply.head })
}

impl<M: Machine> Inner<M> {
    pub(crate) fn soft_state(&self) -> SoftState {
        self.soft_state_lock().clone()
    }

    pub(crate) fn soft_state_lock(&self) -> MutexGuard<'_, SoftState> {
        self.soft_state.lock().expect("nobody panics while holding this lock")
    }

    /// Takes over what openraft says; called whenever that changes.
    pub(crate) fn refresh_soft_state(&self) {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership();
        let leader = metrics.current_leader.as_ref().and_then(|leader| members.get_node(leader));
        let (role, term) = (convert::role(metrics.state), metrics.vote.leader_id.term);
        let mut soft_state = self.soft_state_lock();
        let since = if (soft_state.role, soft_state.term) == (role, term) { soft_state.since } else { Instant::now() };
        *soft_state = SoftState {
            role,
            term,
            since,
            leader: leader.map(|node_ref| node_ref.0),
            voters: convert::voter_nodes(members),
            is_voter: members.voter_ids().any(|id| id == self.replica.0),
        };
    }

    /// Follows openraft until it stops; gives the reason if nobody asked it to.
    pub(crate) async fn supervise(&self) -> Option<String> {
        let mut changes = self.raft.server_metrics();
        while changes.changed().await.is_ok() {
            self.refresh_soft_state();
        }
        self.soft_state_lock().role = Role::Stopped;
        let metrics = self.raft.metrics();
        match &metrics.borrow_watched().running_state {
            Err(Fatal::Stopped) => None,
            Err(fatal) => Some(fatal.to_string()),
            Ok(()) => Some("its core ended without a word".to_owned()),
        }
    }
}

/// How much of a log stays when it is purged: about so many bytes, and so many entries behind the flushed one whatever the bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

/// A replica, whatever its machine: what the node-wide tasks need of it.
pub(crate) trait AnyGroup: Send + Sync {
    fn group(&self) -> GroupId;
    fn receive(&self, from: NodeId, message: PeerMessage);
    fn receive_snapshot(
        self: Arc<Self>,
        header: SnapshotHeader,
        received: Received,
    ) -> BoxFuture<'static, Result<Vote, String>>;
    fn status(&self) -> GroupStatus;
    fn is_leader(&self) -> bool;
    fn heartbeat(self: Arc<Self>) -> BoxFuture<'static, ()>;
    /// Asks for votes, if it has heard from no leader for too long.
    fn campaign_if_due(self: Arc<Self>, now: tokio::time::Instant) -> Option<BoxFuture<'static, ()>>;
    /// What the reconciler wants to know of it.
    fn report(&self) -> ReplicaReport;
    /// Does what the reconciler orders.
    fn execute(self: Arc<Self>, what: OrderKind, within: Duration) -> BoxFuture<'static, Result<(), OrderError>>;
    /// Hands leadership to a follower that is caught up, if there is one; true when another leads or nobody led here.
    fn transfer_leadership(self: Arc<Self>, within: Duration) -> BoxFuture<'static, bool>;
    fn applied(&self) -> quorate_types::peer::SnapshotMeta;
    /// Purges the log below `flushed`, which is durable, but keeps some of it. Gives the entries purged.
    fn purge(self: Arc<Self>, flushed: quorate_types::peer::SnapshotMeta, keep: Keep) -> BoxFuture<'static, u64>;
    fn shutdown(self: Arc<Self>) -> BoxFuture<'static, ()>;
    /// Waits for the write to the state that is under way, if there is one, and lets no other begin.
    fn retire(&self);
}

impl<M: Machine> AnyGroup for Inner<M> {
    fn group(&self) -> GroupId {
        self.group
    }

    fn receive(&self, from: NodeId, message: PeerMessage) {
        self.inbound.receive(from, message);
    }

    fn receive_snapshot(
        self: Arc<Self>,
        header: SnapshotHeader,
        received: Received,
    ) -> BoxFuture<'static, Result<Vote, String>> {
        Box::pin(async move {
            // One at a time: a second snapshot while a slow install goes on is what openraft trips over.
            let _turn = self.installing.lock().await;
            let snapshot = openraft::Snapshot {
                meta: convert::snapshot_meta(&header.meta),
                snapshot: SnapshotData::Staged(received),
            };
            let installed = self.raft.install_full_snapshot(convert::vote(header.vote), snapshot).await;
            installed.map(|response| convert::our_vote(&response.vote)).map_err(|fatal| fatal.to_string())
        })
    }

    fn status(&self) -> GroupStatus {
        let soft_state = self.soft_state();
        let applied = self.progress.applied();
        let log = self.log.state(self.replica).unwrap_or_default();
        GroupStatus {
            group: self.group,
            replica: self.replica,
            role: soft_state.role,
            term: soft_state.term,
            leader: soft_state
                .leader
                .filter(|_| soft_state.role == Role::Leader || self.election.hears(Instant::now())),
            initialized: !soft_state.voters.is_empty(),
            last_log_index: log.last.map(|id| id.index),
            applied_index: applied.head.applied.map(|id| id.index),
            purged_index: log.purged.map(|id| id.index),
            head: applied.head,
            log_bytes: self.log.retained_bytes(self.replica),
            voters: soft_state.voters,
            snapshots_installed: applied.snapshots_installed,
        }
    }

    fn is_leader(&self) -> bool {
        self.soft_state_lock().role == Role::Leader
    }

    fn heartbeat(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // It fails only when the core has stopped, which supervision notices.
            let _ = self.raft.trigger().heartbeat().await;
        })
    }

    fn campaign_if_due(self: Arc<Self>, now: tokio::time::Instant) -> Option<BoxFuture<'static, ()>> {
        let due = self.election.is_due(now, &self.soft_state_lock());
        due.then(|| -> BoxFuture<'static, ()> {
            Box::pin(async move {
                // As above.
                let _ = self.raft.trigger().elect(true).await;
            })
        })
    }

    fn report(&self) -> ReplicaReport {
        self.reports()
    }

    fn execute(self: Arc<Self>, what: OrderKind, within: Duration) -> BoxFuture<'static, Result<(), OrderError>> {
        Box::pin(async move { self.execute_order(what, within).await })
    }

    fn transfer_leadership(self: Arc<Self>, within: Duration) -> BoxFuture<'static, bool> {
        Box::pin(async move { self.transfers_leadership(within).await })
    }

    fn applied(&self) -> quorate_types::peer::SnapshotMeta {
        self.progress.applied().snapshot_meta()
    }

    fn retire(&self) {
        self.progress.retire();
        self.soft_state_lock().is_voter = false;
    }

    fn purge(self: Arc<Self>, flushed: quorate_types::peer::SnapshotMeta, keep: Keep) -> BoxFuture<'static, u64> {
        Box::pin(async move { self.purge_below(flushed, keep).await })
    }

    fn shutdown(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Err(error) = self.raft.shutdown().await {
                tracing::warn!(group = %self.group, replica = %self.replica, %error, "a raft core did not end well");
            }
        })
    }
}

impl<M: Machine> Inner<M> {
    async fn purge_below(&self, flushed: quorate_types::peer::SnapshotMeta, keep: Keep) -> u64 {
        let Some(applied) = flushed.applied else { return 0 };
        let Ok(before) = self.log.state(self.replica) else { return 0 };
        let first = before.purged.map_or(0, |id| id.index + 1);
        let entries = before.last.map_or(0, |id| (id.index + 1).saturating_sub(first));
        let bytes = self.log.retained_bytes(self.replica).max(1);
        // Entries are taken to be of equal size: an estimate is enough to stay near the bound.
        let surplus = bytes.saturating_sub(keep.bytes);
        let by_bytes = u64::try_from(u128::from(entries) * u128::from(surplus) / u128::from(bytes)).unwrap_or(entries);
        let end = (first + by_bytes).min(applied.index.saturating_sub(keep.entries));
        if end <= first {
            return 0;
        }
        self.progress.set_flushed(flushed);
        if self.raft.trigger().snapshot().await.is_err() {
            return 0;
        }
        let wanted = convert::log_id(applied);
        let marked = self.wait_for(|metrics| metrics.snapshot.as_ref() >= Some(&wanted)).await;
        if !marked || self.raft.trigger().purge_log(end - 1).await.is_err() {
            return 0;
        }
        let done = self.wait_for(|metrics| metrics.purged.as_ref().is_some_and(|id| id.index >= end - 1)).await;
        if done { end - first } else { 0 }
    }

    async fn wait_for(&self, done: impl Fn(&openraft::RaftMetrics<TypeConfig>) -> bool) -> bool {
        let deadline = Instant::now() + PURGE_TIMEOUT;
        while Instant::now() < deadline {
            if done(&self.raft.metrics().borrow_watched()) {
                return true;
            }
            tokio::time::sleep(POLL).await;
        }
        false
    }
}
