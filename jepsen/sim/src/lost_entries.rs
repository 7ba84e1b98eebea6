//! A disk that lied about its syncs: in a crash it loses durable entries of a replica as well.
//!
//! Only entries that every other replica of the group has on its disk are lost. Then the others
//! hold everything that was acknowledged, and the cluster must heal by itself: the replica is
//! doubtful, or a new leader has filled its log before. At most one replica of a group is damaged
//! at a time.

use std::sync::Arc;
use std::time::Duration;

use quorate_machine::log::MemoryLog;
use quorate_types::topology::{Placement, Topology};
use quorate_types::{GroupId, LogId, ReplicaId};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::counts::Count;
use crate::lives;
use crate::world::World;

/// Runs have this fault with this probability.
const PROBABILITY: f64 = 0.6;
/// Entries lost at most.
const ENTRIES_MAX: usize = 20;

/// Damages disks now and then until it is aborted.
pub(crate) async fn run(world: Arc<World>, mut rng: StdRng) {
    if !rng.random_bool(PROBABILITY) {
        return;
    }
    loop {
        let pause = Duration::from_millis(rng.random_range(300..=2_500));
        tokio::time::sleep(pause).await;
        let Some((group, victim, others)) = choose(&world, &mut rng) else { continue };
        lives::crash(&world, victim.node, &mut rng);
        lose(&world, group, victim, &others, &mut rng);
        let pause = Duration::from_millis(rng.random_range(1..=200));
        tokio::time::sleep(pause).await;
        lives::start(&world, victim.node);
    }
}

/// A replica on a running node, and the others of its group, none of which was ever damaged.
fn choose(world: &World, rng: &mut StdRng) -> Option<(GroupId, Placement, Vec<Placement>)> {
    let map = world.newest_map()?;
    let mut groups: Vec<GroupId> = map.shards.iter().map(|shard| shard.id.group()).collect();
    groups.push(GroupId::TOPOLOGY);
    groups.shuffle(rng);
    let group = groups.into_iter().find(|group| is_whole(world, &map, *group))?;
    let placed: Vec<Placement> = map.replicas(group).collect();
    let victim = *placed.choose(rng)?;
    world.member(victim.node)?;
    Some((group, victim, placed.into_iter().filter(|at| *at != victim).collect()))
}

/// Whether the group has three replicas or more, none in motion and none damaged.
fn is_whole(world: &World, map: &Topology, group: GroupId) -> bool {
    let is_moving = map.moves.iter().any(|moving| moving.group == group);
    let nodes = world.nodes();
    let is_damaged = |at: Placement| nodes.get(&at.node).is_some_and(|node| node.damaged.contains(&at.replica));
    !is_moving && map.replicas(group).count() >= 3 && !map.replicas(group).any(is_damaged)
}

/// The crashed node loses the last durable entries of a replica, if all others have them.
fn lose(world: &World, group: GroupId, victim: Placement, others: &[Placement], rng: &mut StdRng) {
    let mut nodes = world.nodes();
    let durable = nodes.get(&victim.node).and_then(|node| node.log.durable_state(victim.replica));
    let Some(last) = durable.and_then(|durable| durable.last) else { return };
    if !others.iter().all(|at| nodes.get(&at.node).is_some_and(|node| has(&node.log, at.replica, last))) {
        return;
    }
    let Some(node) = nodes.get_mut(&victim.node).filter(|node| node.member.is_none()) else { return };
    let lost = node.log.lose_last(victim.replica, rng.random_range(1..=ENTRIES_MAX));
    if lost == 0 {
        return;
    }
    node.damaged.insert(victim.replica);
    drop(nodes);
    world.counts.one(Count::LostEntries);
    let Placement { replica, node } = victim;
    world.trace.event(&format!("the disk of n{node} lost the last {lost} entries of r{replica} in g{group}"));
}

fn has(log: &MemoryLog, replica: ReplicaId, id: LogId) -> bool {
    let is_purged =
        log.durable_state(replica).and_then(|state| state.purged).is_some_and(|upto| upto.index >= id.index);
    is_purged || log.durable_id(replica, id.index) == Some(id)
}
