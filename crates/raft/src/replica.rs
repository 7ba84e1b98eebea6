//! One replica of one Raft group: proposals, read barriers, status, membership, and the messages of
//! other replicas.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::LinearizerOption;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError, LinearizableReadError, RaftError};
use openraft::raft::ClientWriteResult;
use quorate_machine::Reply;
use quorate_types::peer::{PeerMessage, SnapshotHeader, SnapshotMeta};
use quorate_types::report::{OrderKind, ReplicaReport};
use quorate_types::state::Head;
use quorate_types::topology::Placement;
use quorate_types::{GroupId, LogId, NodeId, Rejection, ReplicaId, Role, Vote};
use tokio::time::Instant;
use tracing::{Instrument, debug_span, info_span, warn};

use crate::convert;
use crate::core::Core;
use crate::election::Election;
use crate::error::{InstallError, OpenError, OrderError};
use crate::inbound::Inbound;
use crate::membership::Members;
use crate::openraft_types::{Command, Fatal, NodeRef, Responder, TypeConfig};
use crate::purge::{Keep, purge_below};
use crate::snapshot_data::Received;
use crate::soft_state::{Declined, LEADER_WAIT_MAX, SoftStateCell};

/// The result of a proposal that was applied.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The machine's reply.
    pub reply: Reply,
    /// The head of the state after the batch that held the proposal: `revision` and `applied` are
    /// at least those of the proposal.
    pub head: Head,
}

/// Proof that a quorum confirmed this replica as leader after the call began, and that it has
/// applied every entry committed by then.
#[derive(Clone, Copy, Debug)]
pub struct Confirmed(());

/// Role and progress of a replica.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// Its role in the group.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The node of the leader it knows; none after four leases without contact.
    pub leader: Option<NodeId>,
    /// Whether it knows the members of its group.
    pub initialized: bool,
    /// The last entry of its log.
    pub last_log_index: Option<u64>,
    /// The last entry it applied.
    pub applied_index: Option<u64>,
    /// The last entry it purged.
    pub purged_index: Option<u64>,
    /// Revision, epoch and clock of its state.
    pub head: Head,
    /// Bytes of log that it retains.
    pub log_bytes: u64,
    /// The nodes of the voters.
    pub voters: Vec<NodeId>,
    /// Snapshots that it installed since the node started.
    pub snapshots_installed: u64,
}

/// One replica of a Raft group.
pub struct Replica {
    core: Core,
    soft_state: SoftStateCell,
    /// The last entry known as committed before the restart.
    recovered_at: Option<LogId>,
    inbound: Inbound,
    election: Arc<Election>,
}

impl Replica {
    pub(crate) fn new(core: Core, inbound: Inbound, election: Arc<Election>) -> Result<Self, OpenError> {
        let recovered_at = core.log.state(core.replica)?.committed;
        let replica = Replica { core, soft_state: SoftStateCell::new(), recovered_at, inbound, election };
        replica.refresh_soft_state();
        Ok(replica)
    }

    /// Its id.
    pub fn id(&self) -> ReplicaId {
        self.core.replica
    }

    /// Its group.
    pub fn group(&self) -> GroupId {
        self.core.group
    }

    /// Applied index, revision, epoch and clock of its state, as of now.
    pub fn head(&self) -> Head {
        self.core.progress.head()
    }

    /// Its role in the group, as far as it knows.
    pub fn role(&self) -> Role {
        self.soft_state.lock().role
    }

    /// Whether it believes that it leads. Only a quorum can confirm that: [`Replica::confirm`].
    pub fn is_leader(&self) -> bool {
        self.soft_state.lock().leads()
    }

    /// The node of the leader, as far as it knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.soft_state.lock().leader
    }

    /// Whether it may serve `eventual` reads: it is a voter, and it has applied at least the
    /// entries that it knew as committed before the last restart.
    pub fn serves_eventual(&self) -> bool {
        let applied = self.head().applied;
        applied.is_some() && applied >= self.recovered_at && self.soft_state.lock().is_voter
    }

    /// Its role and progress.
    pub fn status(&self) -> ReplicaStatus {
        let soft_state = self.soft_state.get();
        let applied = self.core.progress.applied();
        let log = self.core.log.state(self.id()).unwrap_or_default();
        let knows_leader = soft_state.leads() || self.election.has_contact(Instant::now());
        ReplicaStatus {
            group: self.group(),
            replica: self.id(),
            role: soft_state.role,
            term: soft_state.term,
            leader: soft_state.leader.filter(|_| knows_leader),
            initialized: !soft_state.voters.is_empty(),
            last_log_index: log.last.map(|id| id.index),
            applied_index: applied.head.applied.map(|id| id.index),
            purged_index: log.purged.map(|id| id.index),
            head: applied.head,
            log_bytes: self.log_bytes(),
            voters: soft_state.voters,
            snapshots_installed: applied.snapshots_installed,
        }
    }

    /// Bytes of log that it retains.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.core.log.retained_bytes(self.id())
    }

    /// Starts the group with exactly these replicas, unless it is running already. Several initial
    /// replicas may call this concurrently if all name the same set.
    pub async fn initialize(&self, initial_replicas: &[Placement]) -> Result<(), Rejection> {
        let members: BTreeMap<u64, NodeRef> =
            initial_replicas.iter().map(|initial| (initial.replica.0, NodeRef(initial.node))).collect();
        match self.core.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(refused)) => Err(Rejection::Invalid { reason: refused.to_string() }),
            Err(RaftError::Fatal(fatal)) => Err(stopped(&fatal)),
        }
    }

    /// Whether it knows the members of its group.
    pub fn is_initialized(&self) -> bool {
        !self.soft_state.lock().voters.is_empty()
    }

    /// Proposes one entry and waits until it is applied here, at most `within`.
    ///
    /// Every [`Rejection`] but `Unknown` promises that the entry was not and will not be applied.
    /// After `Unknown` it may be applied now, later or never.
    pub async fn propose(&self, proposal: Bytes, within: Duration) -> Result<Applied, Rejection> {
        let leader_deadline = Instant::now() + within.min(LEADER_WAIT_MAX);
        let applied = self.propose_with(|| Some(proposal), within, leader_deadline).await?;
        Ok(applied.expect("there is a proposal"))
    }

    /// Like [`propose`](Self::propose), with the entry made once this replica leads. Waits for an
    /// undecided leadership until `leader_deadline`. Returns none if there is nothing to propose by
    /// then.
    ///
    /// Asks for the leader itself: leadership may have changed while the entry's commands were queued.
    pub(crate) async fn propose_with(
        &self,
        make_entry: impl FnOnce() -> Option<Bytes>,
        within: Duration,
        leader_deadline: Instant,
    ) -> Result<Option<Applied>, Rejection> {
        let deadline = Instant::now() + within;
        let (mut make_entry, mut entry) = (Some(make_entry), None);
        loop {
            self.until_leadership_is_decided(leader_deadline).await?;
            if let Some(make_entry) = make_entry.take() {
                entry = make_entry();
            }
            let Some(proposal) = entry.clone() else { return Ok(None) };
            match self.try_propose(proposal, deadline).await {
                Ok(applied) => return Ok(Some(applied)),
                Err(declined) => declined.pause(leader_deadline).await?,
            }
        }
    }

    async fn try_propose(&self, proposal: Bytes, deadline: Instant) -> Result<Applied, Declined> {
        let span =
            debug_span!("propose", node = %self.core.node, group = %self.group(), term = self.soft_state.lock().term);
        let within = deadline.saturating_duration_since(Instant::now());
        let (responder, applied) = Responder::pair();
        let proposed = async {
            let sent = self.core.raft.client_write_ff(Command(proposal), Some(responder)).await;
            sent.map_err(|fatal| unknown(format!("the replica stopped: {fatal}")))?;
            applied.await.map_err(|_| unknown("the replica dropped the proposal".to_owned()))
        };
        let late = |_| unknown(format!("not applied within {} ms", within.as_millis()));
        let result: ClientWriteResult<TypeConfig> =
            tokio::time::timeout(within, proposed.instrument(span)).await.map_err(late)??;
        match result {
            Ok(response) => {
                let proposed = convert::our_log_id(&response.log_id);
                assert!(response.data.head.applied >= Some(proposed), "the reply's head holds the proposal");
                let reply = response.data.reply.expect("an entry with a proposal has a reply");
                Ok(Applied { reply, head: response.data.head })
            }
            Err(ClientWriteError::ForwardToLeader(forward)) => Err(self.soft_state.declined(forward)),
            Err(error) => Err(unknown(error.to_string())),
        }
    }

    /// Confirms with a quorum, after this call began, that this replica leads, and waits until
    /// every entry committed by then is applied here. Reads of its state are linearizable after
    /// that.
    pub async fn confirm(&self, within: Duration) -> Result<Confirmed, Rejection> {
        self.confirm_with(within, Instant::now() + within.min(LEADER_WAIT_MAX)).await
    }

    /// Like [`confirm`](Self::confirm), but waits for an undecided leadership until
    /// `leader_deadline`.
    pub(crate) async fn confirm_with(
        &self,
        within: Duration,
        leader_deadline: Instant,
    ) -> Result<Confirmed, Rejection> {
        let deadline = Instant::now() + within;
        loop {
            self.until_leadership_is_decided(leader_deadline).await?;
            match self.try_confirm(deadline.saturating_duration_since(Instant::now())).await {
                Ok(confirmed) => return Ok(confirmed),
                Err(declined) => declined.pause(leader_deadline).await?,
            }
        }
    }

    async fn try_confirm(&self, within: Duration) -> Result<Confirmed, Declined> {
        let raft = &self.core.raft;
        let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(within);
        let confirmed = async {
            let linearizer = match raft.get_read_linearizer(option).await {
                Ok(linearizer) => linearizer,
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                    return Err(self.soft_state.declined(forward));
                }
                Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(missing))) => {
                    let answered = missing.got.len();
                    let reason = format!("no quorum confirmed the leader: only {answered} of its replicas answered");
                    return Err(Declined::Final(Rejection::Unavailable { reason }));
                }
                Err(RaftError::Fatal(fatal)) => return Err(Declined::Final(stopped(&fatal))),
            };
            let committed = linearizer.read_log_id().index();
            linearizer.await_ready(raft).await.map_err(|fatal| Declined::Final(stopped(&fatal)))?;
            let applied = self.head().applied.map(|id| id.index);
            assert!(applied >= Some(committed), "a confirmed replica has applied every committed entry");
            Ok(Confirmed(()))
        };
        let late = |_| {
            let reason = format!("no quorum within {} ms", within.as_millis());
            Declined::Final(Rejection::Unavailable { reason })
        };
        tokio::time::timeout(within, confirmed).await.map_err(late)?
    }

    /// Waits until it is decided which replica leads, at most until `deadline`. Rejects the request
    /// if this replica does not.
    pub(crate) async fn until_leadership_is_decided(&self, deadline: Instant) -> Result<(), Rejection> {
        if !self.soft_state.lock().is_decided() {
            let mut changes = self.core.raft.server_metrics();
            let decided = async {
                loop {
                    self.refresh_soft_state();
                    if self.soft_state.lock().is_decided() || changes.changed().await.is_err() {
                        return;
                    }
                }
            };
            // Still undecided at the deadline: the request is rejected below, or by openraft during
            // a transfer.
            let _ = tokio::time::timeout_at(deadline, decided).await;
        }
        self.soft_state.lock().admit()
    }

    fn refresh_soft_state(&self) {
        let metrics = self.core.raft.server_metrics();
        self.soft_state.refresh(&metrics.borrow_watched(), self.id());
    }

    /// Follows openraft until it stops. Returns the reason if it was not asked to.
    pub(crate) async fn supervise(&self) -> Option<String> {
        let mut changes = self.core.raft.server_metrics();
        while changes.changed().await.is_ok() {
            self.refresh_soft_state();
        }
        self.soft_state.stop();
        let metrics = self.core.raft.metrics();
        match &metrics.borrow_watched().running_state {
            Err(Fatal::Stopped) => None,
            Err(fatal) => Some(fatal.to_string()),
            Ok(()) => Some("its core ended without a reason".to_owned()),
        }
    }

    /// Handles a message of another replica. Never blocks.
    pub(crate) fn receive(&self, from: NodeId, message: PeerMessage) {
        self.inbound.receive(from, message);
    }

    /// Installs a received snapshot. Returns the replica's vote.
    pub(crate) async fn install(&self, header: SnapshotHeader, received: Received) -> Result<Vote, InstallError> {
        self.inbound.install(header, received).await
    }

    /// Sends a heartbeat to every follower.
    pub(crate) async fn heartbeat(&self) {
        // It fails only when the core has stopped, which supervision notices.
        let _ = self.core.raft.trigger().heartbeat().await;
    }

    /// Whether the replica must campaign now; true counts as a try.
    pub(crate) fn is_campaign_due(&self, now: Instant) -> bool {
        self.election.is_due(now, &self.soft_state.lock())
    }

    /// Asks for votes.
    pub(crate) async fn campaign(&self) {
        // It fails only when the core has stopped, which supervision notices.
        let _ = self.core.raft.trigger().elect(true).await;
    }

    /// Its report to the reconciler; a leader reports its followers too.
    pub(crate) fn report(&self) -> ReplicaReport {
        Members::new(&self.core, &self.soft_state).report()
    }

    /// Executes an order of the reconciler, at most `within`.
    pub(crate) async fn execute(&self, order: OrderKind, within: Duration) -> Result<(), OrderError> {
        let span = info_span!("order", node = %self.core.node, group = %self.group(), replica = %self.id(), term = self.soft_state.lock().term);
        Members::new(&self.core, &self.soft_state).execute(order, within).instrument(span).await
    }

    /// Transfers leadership to a voter that has every entry, if there is one. Returns whether this
    /// replica does not lead afterwards.
    pub(crate) async fn give_up_leadership(&self, within: Duration) -> bool {
        Members::new(&self.core, &self.soft_state).give_up_leadership(within).await
    }

    /// The last entry and membership applied.
    pub(crate) fn applied(&self) -> SnapshotMeta {
        self.core.progress.applied().snapshot_meta()
    }

    /// Purges the log below `flushed`, which is durable, except for the part to keep. Returns the
    /// number of entries purged.
    pub(crate) async fn purge(&self, flushed: SnapshotMeta, keep: Keep) -> u64 {
        purge_below(&self.core, flushed, keep).await
    }

    /// Starts the Raft core.
    pub(crate) fn run(&self) {
        self.core.raft.run();
    }

    /// Stops the Raft core.
    pub(crate) async fn shutdown(&self) {
        if let Err(error) = self.core.raft.shutdown().await {
            warn!(group = %self.group(), replica = %self.id(), %error, "raft core ended with an error");
        }
    }

    /// Waits for the write to the state that is in progress, if any, and forbids further ones.
    pub(crate) fn retire(&self) {
        self.core.progress.retire();
        self.soft_state.retire();
    }
}

fn unknown(reason: String) -> Declined {
    Declined::Final(Rejection::Unknown { reason })
}

fn stopped(fatal: &Fatal) -> Rejection {
    Rejection::Unavailable { reason: format!("the replica stopped: {fatal}") }
}
