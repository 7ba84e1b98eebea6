//! Follows the topology: opens this node's replicas, destroys those that left their group, starts
//! the groups that this node bootstraps, and tells new shards their arcs.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{self, StreamExt, TryStreamExt};
use quorate_raft::{OpenError, Shard};
use quorate_testpoints::{Bug, FailPoint, fail_point};
use quorate_types::topology::{Placement, ShardInfo, Topology};
use quorate_types::{Command, GroupId, NodeId, ReplicaId, ShardId};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use crate::plane::Plane;

/// How often the agent looks for groups to start and for shards that do not know their arc.
const TICK: Duration = Duration::from_millis(100);
/// Replicas that are opened concurrently: opening is mostly reading.
const OPENING_MAX: usize = 4;
/// The initial node that should lead starts the group; the others do if it has not by then.
const OTHERS_START_AFTER: Duration = Duration::from_secs(2);
/// How long telling a shard its arc may take before it is tried again.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);

/// A replica cannot be opened or destroyed: the disk or the state is in doubt, so the node stops.
#[derive(Debug, thiserror::Error)]
enum Fatal {
    #[error("replica {replica} of {} does not open: {error}", name(*group))]
    Open { group: GroupId, replica: ReplicaId, error: OpenError },
    #[error("replica {replica} of {} cannot be destroyed: {error}", name(*group))]
    Destroy { group: GroupId, replica: ReplicaId, error: OpenError },
}

fn name(group: GroupId) -> String {
    group.shard().map_or_else(|| "the topology group".to_owned(), |shard| format!("shard {shard}"))
}

/// Follows the topology until the node stops.
pub(crate) async fn run(plane: Plane) {
    let host = plane.host.clone();
    let mut agent = Agent { plane, unstarted: BTreeMap::new() };
    let Err(fatal) = agent.follow_topologies().await;
    host.fail_stop(&fatal.to_string());
}

struct Agent {
    plane: Plane,
    /// Groups that this node bootstraps and that have no members yet as far as it knows.
    unstarted: BTreeMap<ShardId, Unstarted>,
}

struct Unstarted {
    initial_replicas: Vec<Placement>,
    start_at: Instant,
}

impl Agent {
    async fn follow_topologies(&mut self) -> Result<Infallible, Fatal> {
        self.open_stored().await?;
        let feed = self.plane.store.feed.clone();
        let mut revision = 0;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                map = feed.newer_than(revision) => {
                    revision = map.topology.revision;
                    self.follow(&map.topology).await?;
                }
                _ = tick.tick() => {
                    self.plane.store.release_doubtful();
                    self.start_and_tell().await;
                }
            }
        }
    }

    fn own(&self) -> NodeId {
        self.plane.store.identity.node
    }

    /// Opens every stored replica of a shard. A shard's own log is the truth about the shard, even
    /// where the topology differs.
    async fn open_stored(&self) -> Result<(), Fatal> {
        let stored = self.plane.store.log.replicas();
        let shards = stored.into_iter().filter_map(|(replica, group)| Some((group.shard()?, replica)));
        self.open(shards.collect()).await?;
        self.plane.store.shards.set_recovered();
        Ok(())
    }

    /// Acts on a newer topology: opens replicas that are new here, and destroys those that are
    /// gone.
    async fn follow(&mut self, topology: &std::sync::Arc<Topology>) -> Result<(), Fatal> {
        self.plane.peers.update(&topology.nodes);
        self.plane.host.record_topology(topology.clone()).await;
        self.plane.store.release_doubtful();
        self.destroy_departed(topology).await?;
        self.open_topology_replica(topology).await?;
        let placed = topology.shards.iter().filter_map(|shard| {
            let replica = replicas_on(topology, shard.id.group(), self.own()).max()?;
            Some((shard, replica))
        });
        let placed: Vec<(&ShardInfo, ReplicaId)> = placed.collect();
        let shards = &self.plane.store.shards;
        let new = placed.iter().filter(|(shard, _)| shards.get(shard.id).is_none());
        let new: Vec<_> = new.map(|(shard, replica)| (shard.id, *replica)).collect();
        self.open(new).await?;
        for (shard, replica) in placed {
            self.note_unstarted(shard, replica);
        }
        self.start_and_tell().await;
        Ok(())
    }

    /// Destroys stored replicas that the topology does not have. A replica is created only after a
    /// topology that has it is on record; so a replica that the newest topology lacks has left its
    /// group, and its id never returns.
    async fn destroy_departed(&mut self, topology: &Topology) -> Result<(), Fatal> {
        let own = self.own();
        for (replica, group) in self.plane.store.log.replicas() {
            if replicas_on(topology, group, own).any(|placed| placed == replica) {
                continue;
            }
            if let Some(shard) = group.shard() {
                self.unstarted.remove(&shard);
            }
            fail_point(FailPoint::ReplicaLeaves);
            let destroyed = self.plane.store.destroy(group, replica).await;
            destroyed.map_err(|error| Fatal::Destroy { group, replica, error })?;
            info!(node = %own, %group, %replica, "replica destroyed: it has left its group");
        }
        Ok(())
    }

    /// Opens this node's replica of the topology group once the topology has one here.
    async fn open_topology_replica(&self, topology: &Topology) -> Result<(), Fatal> {
        let Some(replica) = replicas_on(topology, GroupId::TOPOLOGY, self.own()).max() else { return Ok(()) };
        if self.plane.store.topology_group().is_some() {
            return Ok(());
        }
        let opened = self.plane.store.open_topology_replica(replica).await;
        opened.map_err(|error| Fatal::Open { group: GroupId::TOPOLOGY, replica, error })
    }

    async fn open(&self, replicas: Vec<(ShardId, ReplicaId)>) -> Result<(), Fatal> {
        let opened = stream::iter(replicas).map(|(shard, replica)| async move {
            let opened = self.plane.store.open_shard(shard, replica).await;
            opened.map_err(|error| Fatal::Open { group: shard.group(), replica, error })?;
            fail_point(FailPoint::ReplicaMade);
            Ok(())
        });
        opened.buffer_unordered(OPENING_MAX).try_collect::<()>().await
    }

    /// Notes a group that this node may start: its replica is one of the initial ones, and it
    /// knows of no members yet.
    fn note_unstarted(&mut self, shard: &ShardInfo, replica: ReplicaId) {
        let Some(group) = self.plane.store.shards.get(shard.id) else { return };
        if group.replica().is_initialized() || self.unstarted.contains_key(&shard.id) {
            return;
        }
        let Some(initial_replicas) = initial_replicas(shard, Placement { replica, node: self.own() }) else { return };
        let should_lead = initial_replicas.first().is_some_and(|first| first.replica == replica);
        let start_at = if should_lead { Instant::now() } else { Instant::now() + OTHERS_START_AFTER };
        self.unstarted.insert(shard.id, Unstarted { initial_replicas, start_at });
    }

    /// Starts the groups that are due, and tells the shards led here their arc if they do not know
    /// it.
    async fn start_and_tell(&mut self) {
        let shards = self.plane.store.shards.all();
        let now = Instant::now();
        self.unstarted.retain(|shard, _| shards.get(shard).is_some_and(|group| !group.replica().is_initialized()));
        let due = self.unstarted.iter().filter(|(_, unstarted)| unstarted.start_at <= now);
        join_all(due.map(async |(shard, unstarted)| {
            let Some(group) = shards.get(shard) else { return };
            match group.replica().initialize(&unstarted.initial_replicas).await {
                Ok(()) => debug!(%shard, "group started"),
                Err(reason) => warn!(%shard, %reason, "group not started"),
            }
        }))
        .await;
        let Some(map) = self.plane.store.feed.latest() else { return };
        let untold =
            shards.iter().filter(|(_, group)| group.replica().is_leader() && group.replica().head().epoch == 0);
        let told = untold.filter_map(|(shard, group)| Some((map.shard(*shard)?, group)));
        join_all(told.map(async |(shard, group)| tell(shard, group).await)).await;
    }
}

/// The replicas of a group that are on a node or moving to it. There is one at most, or a doubtful
/// one and the one that replaces it: that has the higher id.
fn replicas_on(topology: &Topology, group: GroupId, node: NodeId) -> impl Iterator<Item = ReplicaId> {
    let stays = |at: &Placement| !Bug::DestroyBeforeSuccessorVotes.is_on() || !is_replaced(topology, *at);
    topology.replicas(group).filter(move |at| at.node == node && stays(at)).map(|at| at.replica)
}

/// The replicas that start a shard's group, if `own` is one of them.
fn initial_replicas(shard: &ShardInfo, own: Placement) -> Option<Vec<Placement>> {
    if shard.initial_replicas.iter().any(|initial| initial.replica == own.replica) {
        return Some(shard.initial_replicas.clone());
    }
    Bug::JoiningReplicaStartsGroup.is_on().then(|| vec![own])
}

/// Whether a move in motion gives the replica a successor.
fn is_replaced(topology: &Topology, replica: Placement) -> bool {
    topology.moves.iter().any(|moving| moving.from == Some(replica))
}

/// Proposes a shard's first command. Repeating it changes nothing, so the next leader may propose
/// it again.
async fn tell(shard: &ShardInfo, group: &Shard) {
    let bootstrap = Command::Bootstrap { arc: shard.arc, epoch: shard.epoch };
    match group.write(vec![bootstrap], TELL_TIMEOUT).await {
        Ok(_) => info!(shard = %shard.id, arc = %shard.arc, epoch = shard.epoch, "shard bootstrapped"),
        Err(reason) => debug!(shard = %shard.id, %reason, "shard not bootstrapped yet"),
    }
}
