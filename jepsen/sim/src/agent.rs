//! What a node does with the map: it opens its replicas, destroys those that left, starts the groups that it bootstrapped, tells new
//! shards their arcs, and asks others for the map. As `quorate_node` does it, over the simulated network.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use quorate_machine::log::Log;
use quorate_machine::state::State;
use quorate_types::topology::{Placement, ShardInfo, Topology};
use quorate_types::{Command, GroupId, NodeId, ReplicaId, ShardId};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::member::Member;
use crate::world::World;

/// How often a node looks for groups to start, shards to tell, and a newer map.
const TICK: Duration = Duration::from_millis(100);
/// The initial node where the leader should be starts a group; the others do so if it has not after this time.
const OTHERS_START_AFTER: Duration = Duration::from_secs(2);
/// How long telling a shard its arc may take before it is tried again.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);
/// Every so many ticks a node asks another one for the map.
const TICKS_PER_QUESTION: u64 = 3;

/// Follows the map for as long as the node runs.
pub(crate) async fn run(world: Weak<World>, member: Weak<Member>, mut rng: StdRng) {
    let Some(mut maps) = member.upgrade().map(|member| member.feed.subscribe()) else { return };
    maps.mark_changed();
    let mut agent = Agent { world, member, unstarted: BTreeMap::new() };
    if !agent.open_stored().await {
        return;
    }
    for tick in 0_u64.. {
        let changed = tokio::time::timeout(TICK, maps.changed()).await;
        let alive = match changed {
            Ok(Err(_closed)) => return,
            Ok(Ok(())) => {
                let map = maps.borrow_and_update().clone();
                agent.follow(map.as_deref()).await
            }
            Err(_tick) => {
                if tick % TICKS_PER_QUESTION == 0 {
                    agent.ask_for_the_map(&mut rng).await;
                }
                agent.start_and_tell().await
            }
        };
        if !alive {
            return;
        }
    }
}

struct Agent {
    world: Weak<World>,
    member: Weak<Member>,
    /// Groups that this node bootstrapped and that nobody has started as far as it knows.
    unstarted: BTreeMap<ShardId, (Vec<Placement>, Instant)>,
}

impl Agent {
    /// The world and the node, for as long as the node lives.
    fn both(&self) -> Option<(Arc<World>, Arc<Member>)> {
        let both = (self.world.upgrade()?, self.member.upgrade()?);
        both.1.life.is_alive().then_some(both)
    }

    fn failed(world: &World, member: &Member, doing: &str, reason: String) {
        if member.life.is_alive() {
            world.violation(format!("node {}: {doing}: {reason}", member.node));
        }
    }

    /// Sweeps what has no log, and opens what is stored: what is true of a shard is in its own log, whatever the map says.
    async fn open_stored(&self) -> bool {
        let Some((world, member)) = self.both() else { return false };
        let stored = member.log.replicas();
        let swept = member.state.replicas().unwrap_or_default();
        for replica in swept.into_iter().filter(|replica| !stored.iter().any(|(stored, _)| stored == replica)) {
            if let Err(error) = member.state.destroy(replica) {
                Self::failed(&world, &member, "the sweep", error.to_string());
            }
        }
        let initial_replica = world.bootstrap.topology_replicas.iter().find(|at| at.node == member.node);
        let founds =
            initial_replica.filter(|_| member.feed.borrow().is_none()).map(|at| (at.replica, GroupId::TOPOLOGY));
        let stored_topology = stored.iter().any(|(_, group)| *group == GroupId::TOPOLOGY);
        let founds = founds.filter(|_| !stored_topology);
        for (replica, group) in stored.into_iter().chain(founds) {
            Self::open(&world, &member, group, replica).await;
        }
        member.life.is_alive()
    }

    async fn open(world: &World, member: &Member, group: GroupId, replica: ReplicaId) {
        let opened = match group.shard() {
            Some(shard) => member.open_shard(shard, replica).await,
            None => member.open_topology(replica).await,
        };
        match opened {
            Ok(()) => world.trace.event(&format!("n{} opens r{replica} of g{group}", member.node)),
            Err(reason) => Self::failed(world, member, &format!("replica {replica} does not open"), reason),
        }
    }

    /// Acts on a newer map: opens what is new here, and destroys what is not in it any more.
    async fn follow(&mut self, map: Option<&Topology>) -> bool {
        let Some((world, member)) = self.both() else { return false };
        let Some(map) = map else { return true };
        if let Some(node) = world.nodes().get_mut(&member.node)
            && member.life.is_alive()
        {
            node.map = Some(Arc::new(map.clone()));
        }
        for (replica, group) in member.log.replicas() {
            let here = Placement { replica, node: member.node };
            if map.replicas(group).any(|at| at == here) {
                continue;
            }
            group.shard().into_iter().for_each(|shard| drop(self.unstarted.remove(&shard)));
            world.trace.event(&format!("n{} destroys r{replica} of g{group}", member.node));
            if let Err(reason) = member.destroy(group, replica).await {
                Self::failed(&world, &member, &format!("replica {replica} is not destroyed"), reason);
            }
        }
        if member.topology_group().is_none()
            && let Some(replica) = replica_on(map, GroupId::TOPOLOGY, member.node)
        {
            Self::open(&world, &member, GroupId::TOPOLOGY, replica).await;
        }
        for shard in &map.shards {
            let Some(replica) = replica_on(map, shard.id.group(), member.node) else { continue };
            if member.shard(shard.id).is_none() {
                Self::open(&world, &member, shard.id.group(), replica).await;
            }
            self.note_unstarted(&member, shard, replica);
        }
        self.start_and_tell().await
    }

    /// Remembers a group that this node may start: its replica is one of the initial nodes, and it knows of no members yet.
    fn note_unstarted(&mut self, member: &Member, shard: &ShardInfo, replica: ReplicaId) {
        let is_initial = shard.initial_replicas.iter().any(|initial_replica| initial_replica.replica == replica);
        let Some(group) = member.shard(shard.id) else { return };
        if !is_initial || group.replica().is_initialized() || self.unstarted.contains_key(&shard.id) {
            return;
        }
        let leads = shard.initial_replicas.first().is_some_and(|first| first.replica == replica);
        let start_at = if leads { Instant::now() } else { Instant::now() + OTHERS_START_AFTER };
        self.unstarted.insert(shard.id, (shard.initial_replicas.clone(), start_at));
    }

    /// Starts the groups that are due, and tells shards that are led here and do not know their arc which one it is.
    async fn start_and_tell(&mut self) -> bool {
        let Some((_world, member)) = self.both() else { return false };
        self.unstarted.retain(|shard, _| member.shard(*shard).is_some_and(|group| !group.replica().is_initialized()));
        for (shard, (initial_replicas, start_at)) in &self.unstarted {
            if *start_at <= Instant::now()
                && let Some(group) = member.shard(*shard)
            {
                // Whoever was first has started it; a refusal is tried again.
                let _ = group.replica().initialize(initial_replicas).await;
            }
        }
        let Some(map) = member.feed.borrow().clone() else { return true };
        for (shard, group) in member.shards() {
            if group.replica().is_leader()
                && group.replica().head().epoch == 0
                && let Some(shard) = map.shard(shard)
            {
                let found = Command::Bootstrap { arc: shard.arc, epoch: shard.epoch };
                // Whoever leads next tells it again.
                let _ = group.write(vec![found], TELL_TIMEOUT).await;
            }
        }
        true
    }

    /// Asks another node for its map.
    async fn ask_for_the_map(&self, rng: &mut StdRng) {
        let Some((world, member)) = self.both() else { return };
        let others: Vec<NodeId> = world.node_ids().into_iter().filter(|id| *id != member.node).collect();
        if others.is_empty() {
            return;
        }
        let other = others[rng.random_range(0..others.len())];
        if !world.network.pass(member.node, other).await {
            return;
        }
        let Some(map) = world.member(other).and_then(|other| other.feed.borrow().clone()) else { return };
        if world.network.pass(other, member.node).await {
            member.offer(map);
        }
    }
}

/// The replica of a group that is on a node or on its way there.
fn replica_on(map: &Topology, group: GroupId, node: NodeId) -> Option<ReplicaId> {
    map.replicas(group).find(|at| at.node == node).map(|at| at.replica)
}
