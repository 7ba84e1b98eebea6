//! Follows the topology: opens this node's replicas, destroys those that left, starts the groups that it bootstrapped, and tells new
//! shards their arcs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use quorate_raft::{OpenError, Shard};
use quorate_testpoints::fail_point;
use quorate_types::topology::{Placement, ShardInfo, Topology};
use quorate_types::{Command, GroupId, NodeId, ReplicaId, ShardId};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use crate::fatal::fail_stop;
use crate::member::Member;
use crate::node::Node;
use crate::topology_feed::ClusterMap;

/// How often it looks for groups to start and shards that do not know their arc.
const TICK: Duration = Duration::from_millis(100);
/// Replicas that are opened at the same time: opening is mostly reading.
const OPENING_MAX: usize = 4;
/// The initial node where the leader should be starts a group; the others do so if it has not after this time.
const OTHERS_START_AFTER: Duration = Duration::from_secs(2);
/// How long telling a shard its arc may take before it is tried again.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);

/// Follows the topology for as long as the node runs.
pub(crate) async fn run(node: Arc<Node>, member: Arc<Member>) {
    let mut agent = Agent { node, member, unstarted: HashMap::new() };
    agent.open_stored().await;
    let mut maps = agent.member.feed.subscribe();
    maps.mark_changed();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = maps.changed() => {
                if changed.is_err() {
                    return;
                }
                let map = maps.borrow_and_update().clone();
                if let Some(map) = map {
                    agent.follow(&map).await;
                }
            }
            _ = tick.tick() => agent.start_and_tell().await,
        }
    }
}

struct Agent {
    node: Arc<Node>,
    member: Arc<Member>,
    /// Groups that this node bootstrapped and that nobody has started as far as it knows.
    unstarted: HashMap<ShardId, Unstarted>,
}

struct Unstarted {
    initial_replicas: Vec<Placement>,
    start_at: Instant,
}

impl Agent {
    /// Opens every replica that is stored here: what is true of a shard is in its own log, whatever the map says.
    async fn open_stored(&self) {
        let stored = self.member.storage.log.replicas();
        let shards = stored.into_iter().filter_map(|(replica, group)| Some((group.shard()?, replica)));
        self.open(shards.collect()).await;
        self.member.shards.recovered();
    }

    /// Acts on a newer map: opens what is new here, and destroys what is not in it any more.
    async fn follow(&mut self, map: &ClusterMap) {
        self.member.transport.update(&map.topology.nodes);
        self.record(map).await;
        self.destroy_what_left(&map.topology).await;
        self.open_topology_replica(&map.topology).await;
        let own = self.member.identity.node;
        let mut new = Vec::new();
        for shard in &map.topology.shards {
            let Some(replica) = replica_on(&map.topology, shard.id.group(), own) else { continue };
            if self.member.shards.get(shard.id).is_some() {
                self.note_unstarted(shard, replica);
                continue;
            }
            new.push((shard.id, replica));
        }
        if new.is_empty() {
            return;
        }
        self.open(new).await;
        for shard in &map.topology.shards {
            if let Some(replica) = replica_on(&map.topology, shard.id.group(), own) {
                self.note_unstarted(shard, replica);
            }
        }
        self.start_and_tell().await;
    }

    /// A replica is made because a map has it, and that map is on record before. So one that the newest map does not have has
    /// left its group, and never comes back.
    async fn destroy_what_left(&mut self, topology: &Topology) {
        let own = self.member.identity.node;
        for (replica, group) in self.member.storage.log.replicas() {
            if topology.replicas(group).any(|at| at == Placement { replica, node: own }) {
                continue;
            }
            if let Some(shard) = group.shard() {
                self.unstarted.remove(&shard);
            }
            fail_point("replica-leaves");
            match self.member.destroy(group, replica).await {
                Ok(()) => info!(%group, %replica, "replica destroyed: it is no member of its group any more"),
                Err(error) => fail_stop(&format!("replica {replica} of group {group} cannot be destroyed: {error}")),
            }
        }
    }

    /// Opens this node's replica of the topology group once it is to have one.
    async fn open_topology_replica(&self, topology: &Topology) {
        let Some(replica) = replica_on(topology, GroupId::TOPOLOGY, self.member.identity.node) else { return };
        if self.member.topology_group().is_some() {
            return;
        }
        if let Err(error) = self.member.open_topology_replica(replica).await {
            fail_stop(&format!("replica {replica} of the topology group does not open: {error}"));
        }
    }

    async fn record(&self, map: &ClusterMap) {
        let (node, topology) = (self.node.clone(), map.topology.clone());
        let recorded = tokio::task::spawn_blocking(move || node.data.record_topology(&topology)).await;
        match recorded {
            Ok(Ok(())) => {}
            Ok(Err(error)) => fail_stop(&error.to_string()),
            // The runtime is stopping, and the node with it.
            Err(error) => debug!(%error, "topology not recorded"),
        }
    }

    async fn open(&self, replicas: Vec<(ShardId, ReplicaId)>) {
        let member = &self.member;
        stream::iter(replicas)
            .for_each_concurrent(OPENING_MAX, async |(shard, replica)| match open(member, shard, replica).await {
                Ok(group) => {
                    fail_point("replica-made");
                    member.shards.insert(shard, group);
                }
                Err(error) => fail_stop(&format!("replica {replica} of shard {shard} does not open: {error}")),
            })
            .await;
    }

    /// Remembers a group that this node may start: its replica is one of the initial nodes, and it knows of no members yet.
    fn note_unstarted(&mut self, shard: &ShardInfo, replica: ReplicaId) {
        let is_initial = shard.initial_replicas.iter().any(|initial_replica| initial_replica.replica == replica);
        let Some(group) = self.member.shards.get(shard.id) else { return };
        if !is_initial || group.replica().is_initialized() || self.unstarted.contains_key(&shard.id) {
            return;
        }
        let leads = shard.initial_replicas.first().is_some_and(|first| first.replica == replica);
        let start_at = if leads { Instant::now() } else { Instant::now() + OTHERS_START_AFTER };
        self.unstarted.insert(shard.id, Unstarted { initial_replicas: shard.initial_replicas.clone(), start_at });
    }

    /// Starts the groups that are due, and tells shards that are led here and do not know their arc which one it is.
    async fn start_and_tell(&mut self) {
        let shards = self.member.shards.all();
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
        let Some(map) = self.member.feed.latest() else { return };
        let untold =
            shards.iter().filter(|(_, group)| group.replica().is_leader() && group.replica().head().epoch == 0);
        let told = untold.filter_map(|(shard, group)| Some((map.shard(*shard)?, group)));
        join_all(told.map(async |(shard, group)| tell(shard, group).await)).await;
    }
}

/// The replica of a group that is on a node or on its way there.
fn replica_on(topology: &Topology, group: GroupId, node: NodeId) -> Option<ReplicaId> {
    topology.replicas(group).find(|placement| placement.node == node).map(|placement| placement.replica)
}

async fn open(member: &Member, shard: ShardId, replica: ReplicaId) -> Result<Shard, OpenError> {
    member.groups.open_shard(shard, replica).await
}

/// Proposes a shard's first command. Repeating it changes nothing, so whoever leads next may propose it again.
async fn tell(shard: &ShardInfo, group: &Shard) {
    let found = Command::Bootstrap { arc: shard.arc, epoch: shard.epoch };
    match group.write(vec![found], TELL_TIMEOUT).await {
        Ok(_) => info!(shard = %shard.id, arc = %shard.arc, epoch = shard.epoch, "shard bootstrapped"),
        Err(reason) => debug!(shard = %shard.id, %reason, "shard not bootstrapped yet"),
    }
}
