//! The Raft groups of a node: opens and destroys replicas, dispatches messages to them, runs the node-wide tasks.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use quorate_machine::log::Log;
use quorate_machine::state::{State, StateError, View};
use quorate_machine::{KvMachine, Machine};
use quorate_testpoints::fail_point;
use quorate_types::clock::Clock;
use quorate_types::peer::{PeerBody, PeerMessage, SnapshotHeader};
use quorate_types::report::{OrderKind, ReplicaReport};
use quorate_types::{GroupId, NodeId, ReplicaId, ShardId, Vote};
use tokio::time::Instant;
use tracing::{Instrument, info, info_span};

use crate::calls::Answer;
use crate::config::Options;
use crate::core::Core;
use crate::election::Election;
use crate::error::{InstallError, OpenError, OrderError, Stopped};
use crate::inbound::Inbound;
use crate::log_store::LogStore;
use crate::network::Networks;
use crate::progress::Progress;
use crate::replica::{Replica, ReplicaStatus};
use crate::replicas::Replicas;
use crate::retention::Retention;
use crate::shard::Shard;
use crate::snapshot_send::SnapshotsOut;
use crate::state_machine::{OpenMachine, Raft, Received, StateMachine};
use crate::tasks::Tasks;
use crate::transport::Transport;
use crate::wire::Wire;
use crate::{blocking, campaigner, heartbeat};

/// The Raft groups of a node. Cheap to clone.
#[derive(Clone)]
pub struct Groups {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    stores: Stores,
    wire: Wire,
    replicas: Arc<Replicas>,
    snapshots: Arc<SnapshotsOut>,
    retention: Arc<Retention>,
    tasks: Tasks,
    started: Instant,
}

/// Where replicas store their data, and the clock of their proposals.
struct Stores {
    log: Arc<dyn Log>,
    state: Arc<dyn State>,
    clock: Arc<dyn Clock>,
}

impl Groups {
    /// Starts the node-wide tasks. Must be called inside a tokio runtime.
    pub fn new(
        options: Options,
        log: Arc<dyn Log>,
        state: Arc<dyn State>,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let replicas = Arc::new(Replicas::default());
        let snapshots = Arc::new(SnapshotsOut::new(options.snapshot_dir.clone()));
        let tasks = Tasks::default();
        let retention = Arc::new(Retention::new(
            options.clone(),
            state.clone(),
            replicas.clone(),
            snapshots.clone(),
            tasks.clone(),
        ));
        tasks.spawn(heartbeat::run(replicas.clone(), Duration::from_millis(options.timing.heartbeat_ms)));
        tasks.spawn(campaigner::run(replicas.clone()));
        tasks.spawn(retention.clone().run());
        let (wire, started) = (Wire::new(transport), Instant::now());
        let stores = Stores { log, state, clock };
        Groups { shared: Arc::new(Shared { options, stores, wire, replicas, snapshots, retention, tasks, started }) }
    }

    /// Opens a replica of a shard. See [`open`](Self::open).
    pub async fn open_shard(&self, shard: ShardId, replica: ReplicaId) -> Result<Shard, OpenError> {
        let replica = self.open(shard.group(), replica, KvMachine::open).await?;
        let Stores { state, clock, .. } = &self.shared.stores;
        Ok(Shard::new(replica, state.clone(), clock.clone()))
    }

    /// Opens a replica and starts its Raft core; creates its log if it is new. `open_machine` reads the machine from the
    /// replica's state, now and after every installed snapshot.
    pub async fn open<M: Machine>(
        &self,
        group: GroupId,
        replica: ReplicaId,
        open_machine: impl Fn(ReplicaId, &dyn View) -> Result<M, StateError> + Send + Sync + 'static,
    ) -> Result<Arc<Replica>, OpenError> {
        let shared = &self.shared;
        if shared.replicas.contains(replica) {
            return Err(OpenError::AlreadyOpen(replica));
        }
        let existed = shared.create_log(group, replica)?;
        let progress = Progress::default();
        let open_machine: OpenMachine =
            Box::new(move |replica, view| Ok(Box::new(open_machine(replica, view)?) as Box<dyn Machine>));
        let machine = shared.open_state(replica, existed, open_machine, progress.clone())?;
        let raft = shared.build_core(group, replica, machine).await?;
        let opened = Arc::new(shared.assemble(group, replica, existed, raft, progress)?);
        if !shared.replicas.insert(&opened) {
            opened.shutdown().await;
            return Err(OpenError::AlreadyOpen(replica));
        }
        opened.run();
        shared.tasks.spawn(supervise(shared.clone(), opened.clone()));
        info!(%group, %replica, existed, "replica opened");
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
        match self.shared.replicas.find(message.to, message.group) {
            Some(replica) => replica.receive(from, message),
            None => {
                let body = PeerBody::Unreachable { call };
                let answer = PeerMessage { group: message.group, from: message.to, to: message.from, body };
                self.shared.wire.answer(from, answer);
            }
        }
    }

    /// Installs a received snapshot. Returns the replica's vote. After an error the installation may still be running.
    pub async fn receive_snapshot(&self, header: SnapshotHeader, received: Received) -> Result<Vote, InstallError> {
        let SnapshotHeader { group, from, to: replica, vote, .. } = header;
        let Some(receiver) = self.shared.replicas.find(replica, group) else {
            return Err(InstallError::NoReplica { group, replica });
        };
        let node = self.shared.options.node;
        let span = info_span!("receive_snapshot", %node, %group, %from, to = %replica, term = vote.term);
        receiver.install(header, received).instrument(span).await
    }

    /// Role and progress of every replica, by group.
    pub fn statuses(&self) -> Vec<ReplicaStatus> {
        let mut statuses: Vec<_> = self.shared.replicas.all().iter().map(|replica| replica.status()).collect();
        statuses.sort_by_key(|status| status.group);
        statuses
    }

    /// Whether a snapshot of any replica is being written or sent.
    pub fn are_sending_snapshots(&self) -> bool {
        self.shared.snapshots.is_sending_any()
    }

    /// The reports of all replicas to the reconciler.
    pub fn reports(&self) -> Vec<ReplicaReport> {
        let mut reports: Vec<_> = self.shared.replicas.all().iter().map(|replica| replica.report()).collect();
        self.shared.snapshots.explain_failures(&mut reports);
        reports
    }

    /// Executes an order of the reconciler at this node's replica of the group, at most `within`.
    pub async fn execute(&self, group: GroupId, order: OrderKind, within: Duration) -> Result<(), OrderError> {
        match self.shared.replicas.of_group(group) {
            Some(replica) => replica.execute(order, within).await,
            None => Err(OrderError::Refused(format!("no replica of group {group} is here"))),
        }
    }

    /// Stops a replica and destroys its stored data; durable on return. Its id can never be opened here again. A replica that is
    /// not open here is recorded as destroyed too.
    pub async fn destroy(&self, replica: ReplicaId) -> Result<(), OpenError> {
        if let Some(open) = self.shared.replicas.remove(replica) {
            open.shutdown().await;
            blocking::in_place(|| open.retire());
        }
        let Stores { log, state, .. } = &self.shared.stores;
        // The tombstone first: if the process dies after it, the next start sweeps the state.
        blocking::in_place(|| {
            log.destroy(replica)?;
            fail_point("tombstone-written");
            state.destroy(replica)?;
            Ok(())
        })
    }

    /// Flushes the state and purges as much of all logs as is safe. Returns the number of entries purged.
    pub async fn compact(&self) -> Result<u64, Stopped> {
        self.shared.retention.compact_all().await
    }

    /// Transfers every leadership to a voter that has every entry. Returns the number of groups that are still led here.
    pub async fn transfer_leaderships(&self, within: Duration) -> usize {
        let led: Vec<_> = self.shared.replicas.all().into_iter().filter(|replica| replica.is_leader()).collect();
        let given_up = join_all(led.iter().map(|replica| replica.give_up_leadership(within))).await;
        given_up.into_iter().filter(|given_up| !given_up).count()
    }

    /// Stops all groups. The log and the state stay open; their owner flushes and closes them afterwards.
    pub async fn shutdown(&self) {
        self.shared.tasks.stop();
        let replicas = self.shared.replicas.all();
        join_all(replicas.iter().map(|replica| replica.shutdown())).await;
        self.shared.tasks.ended().await;
    }
}

impl Shared {
    /// Creates the replica's log unless it exists. Returns whether the replica has voted or has entries.
    fn create_log(&self, group: GroupId, replica: ReplicaId) -> Result<bool, OpenError> {
        blocking::in_place(|| self.stores.log.create(replica, group))?;
        let log = self.stores.log.state(replica)?;
        Ok(log.vote.is_some() || log.last.is_some())
    }

    fn open_state(
        &self,
        replica: ReplicaId,
        existed: bool,
        open_machine: OpenMachine,
        progress: Progress,
    ) -> Result<StateMachine, OpenError> {
        let (state, on_fatal) = (self.stores.state.clone(), self.options.on_fatal.clone());
        let machine = StateMachine::open(state, replica, open_machine, progress.clone(), on_fatal)?;
        if !existed && progress.head().applied.is_some() {
            let reason = "it has a state and no log: its votes are lost, so it must come back as a new replica";
            return Err(OpenError::Raft(reason.to_owned()));
        }
        Ok(machine)
    }

    async fn build_core(&self, group: GroupId, replica: ReplicaId, machine: StateMachine) -> Result<Raft, OpenError> {
        let config = Arc::new(self.options.timing.core_config());
        let networks = Networks::new(self.wire.clone(), self.snapshots.clone(), group, replica);
        let log = LogStore::new(self.stores.log.clone(), replica);
        let core = Raft::build(replica.0, config, networks, log, machine).await;
        core.map_err(|fatal| OpenError::Raft(fatal.to_string()))
    }

    fn assemble(
        &self,
        group: GroupId,
        replica: ReplicaId,
        existed: bool,
        raft: Raft,
        progress: Progress,
    ) -> Result<Replica, OpenError> {
        let Options { node, timing, .. } = self.options;
        // A new replica has promised nothing to any leader.
        let votes_from = self.started + if existed { timing.vote_freeze() } else { Duration::ZERO };
        let election = Arc::new(Election::new(node, group, replica, timing.lease(), votes_from));
        let inbound = Inbound::new(raft.clone(), self.wire.clone(), group, replica, election.clone());
        let core = Core { node, group, replica, raft, log: self.stores.log.clone(), progress };
        Replica::new(core, inbound, election)
    }
}

/// Follows a replica's Raft core. If it dies, the process ends: clients would wait for the core for ever.
async fn supervise(shared: Arc<Shared>, replica: Arc<Replica>) {
    if let Some(reason) = replica.supervise().await
        && !shared.tasks.is_stopping()
    {
        (shared.options.on_fatal)(format!("the raft core of group {} died: {reason}", replica.group()));
    }
}
