//! The Raft groups of a node: opens and destroys replicas, and runs the node-wide tasks. `dispatch`
//! gives them the messages of other nodes; `control` serves the reconciler; `doubtful` stops
//! replicas that lost entries.

mod control;
mod dispatch;
mod doubtful;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use quorate_machine::log::Log;
use quorate_machine::state::{State, StateError, View};
use quorate_machine::{KvMachine, Machine};
use quorate_testpoints::{FailPoint, fail_point};
use quorate_types::clock::Clock;
use quorate_types::{GroupId, ReplicaId, ShardId};
use tokio::time::Instant;

use crate::config::Options;
use crate::doubtful::DoubtfulReplicas;
use crate::error::{OpenError, Stopped};
use crate::opening::Opener;
use crate::peer_network::PeerNetwork;
use crate::replica::Replica;
use crate::replicas::Replicas;
use crate::retention::Retention;
use crate::shard::Shard;
use crate::snapshot_slots::SnapshotsOut;
use crate::state_machine::OpenMachine;
use crate::tasks::Tasks;
use crate::transport::Transport;
use crate::{blocking, campaigner, heartbeat};

/// The Raft groups of a node. Cheap to clone.
#[derive(Clone)]
pub struct Groups {
    shared: Arc<Shared>,
}

struct Shared {
    opener: Opener,
    clock: Arc<dyn Clock>,
    replicas: Arc<Replicas>,
    doubtful: DoubtfulReplicas,
    retention: Arc<Retention>,
    tasks: Tasks,
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
        let snapshots = Arc::new(SnapshotsOut::new(options.snapshot_dir.clone(), options.room.clone()));
        let (peers, tasks, started) = (PeerNetwork::new(transport), Tasks::default(), Instant::now());
        let opener = Opener { options, log, state, peers, snapshots, started };
        let retention = Arc::new(Retention::new(&opener, replicas.clone(), tasks.clone()));
        let heartbeat = Duration::from_millis(opener.options.timing.heartbeat_ms);
        tasks.spawn(heartbeat::run(replicas.clone(), heartbeat));
        tasks.spawn(campaigner::run(replicas.clone()));
        tasks.spawn(retention.clone().run());
        let doubtful = DoubtfulReplicas::default();
        Groups { shared: Arc::new(Shared { opener, clock, replicas, doubtful, retention, tasks }) }
    }

    /// Opens a replica of a shard. See [`open`](Self::open).
    pub async fn open_shard(&self, shard: ShardId, replica: ReplicaId) -> Result<Shard, OpenError> {
        let replica = self.open(shard.group(), replica, KvMachine::open).await?;
        Ok(Shard::new(replica, self.shared.opener.state.clone(), self.shared.clock.clone()))
    }

    /// Opens a replica and starts its Raft core; creates its log if it is new. `open_machine` reads
    /// the machine from the replica's state, now and after every installed snapshot. A doubtful
    /// replica is refused with [`OpenError::Doubtful`], for good.
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
        if shared.doubtful.contains(replica) {
            return Err(OpenError::Doubtful(replica));
        }
        let open_machine: OpenMachine =
            Box::new(move |replica, view| Ok(Box::new(open_machine(replica, view)?) as Box<dyn Machine>));
        let opened = shared.opener.open(group, replica, open_machine).await;
        if let Err(OpenError::Doubtful(_)) = opened {
            shared.doubtful.add_found(replica, group);
        }
        let opened = Arc::new(opened?);
        if !shared.replicas.insert(&opened) {
            opened.shutdown().await;
            return Err(OpenError::AlreadyOpen(replica));
        }
        opened.run();
        shared.tasks.spawn(supervise(shared.clone(), opened.clone()));
        Ok(opened)
    }

    /// Stops a replica and destroys its stored data; durable on return. Its id can never be opened
    /// here again. A replica that is not open here is recorded as destroyed too.
    pub async fn destroy(&self, replica: ReplicaId) -> Result<(), OpenError> {
        let doubtful = self.shared.doubtful.remove(replica);
        if let Some(open) = self.shared.replicas.remove(replica).or(doubtful) {
            open.shutdown().await;
            blocking::in_place(|| open.retire());
        }
        let Opener { log, state, .. } = &self.shared.opener;
        // The tombstone first: if the process dies after it, the next start sweeps the state.
        blocking::in_place(|| {
            log.destroy(replica)?;
            fail_point(FailPoint::TombstoneWritten);
            state.destroy(replica)?;
            Ok(())
        })
    }

    /// Flushes the state and purges as much of all logs as is safe. Returns the number of entries
    /// purged.
    pub async fn compact(&self) -> Result<u64, Stopped> {
        self.shared.retention.compact_all().await
    }

    /// Transfers every leadership to a voter that has every entry. Returns the number of groups
    /// that are still led here.
    pub async fn transfer_leaderships(&self, within: Duration) -> usize {
        let led: Vec<_> = self.shared.replicas.all().into_iter().filter(|replica| replica.is_leader()).collect();
        let given_up = join_all(led.iter().map(|replica| replica.give_up_leadership(within))).await;
        given_up.into_iter().filter(|given_up| !given_up).count()
    }

    /// Stops all groups. The log and the state stay open; their owner flushes and closes them
    /// afterwards.
    pub async fn shutdown(&self) {
        self.shared.tasks.stop();
        let replicas = self.shared.replicas.all();
        join_all(replicas.iter().map(|replica| replica.shutdown())).await;
        self.shared.tasks.ended().await;
    }
}

/// Follows a replica's Raft core. If it dies, the process ends: otherwise clients would wait for
/// the core until they time out.
async fn supervise(shared: Arc<Shared>, replica: Arc<Replica>) {
    if let Some(reason) = replica.until_core_stops().await
        && !shared.tasks.is_stopping()
    {
        (shared.opener.options.on_fatal)(format!("the raft core of group {} died: {reason}", replica.group()));
    }
}
