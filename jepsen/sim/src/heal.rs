//! The checks after the faults have ended. Within a bound of simulated time the cluster must serve
//! again, finish its moves, have equal replicas, and hold every acknowledged write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_machine::state::State;
use quorate_machine::state_hash;
use quorate_types::topology::{NodeState, Placement, Topology};
use quorate_types::{GroupId, Key, NodeId, ShardId};
use tokio::time::Instant;

use crate::client::{DEADLINE, Worker};
use crate::connection::router;
use crate::history::{Asked, Came};
use crate::linear::{self, Verdict};
use crate::lives;
use crate::scenario::Stream;
use crate::violations::Violation;
use crate::world::World;

/// How long after the last fault every shard must take writes and answer reads again.
pub(crate) const SERVES_WITHIN: Duration = Duration::from_secs(10);
/// How long after that all moves must be complete and all replicas equal.
pub(crate) const SETTLES_WITHIN: Duration = Duration::from_secs(60);
/// Pairs of a write and a read that must succeed on every shard.
const ROUNDS: usize = 5;
/// The numbers of the clients that check the healed cluster, apart from those of the workload.
const SERVES_CLIENT: u64 = 1_000;
const READS_CLIENT: u64 = 1_001;
/// How often `settles` checks again.
const POLL: Duration = Duration::from_millis(50);

/// Ends all faults: heals the network, restores the disks' speed, starts all nodes.
pub(crate) fn heal_all(world: &Arc<World>) {
    world.trace.event("everything is healed");
    world.network.heal();
    for id in world.node_ids() {
        if let Some(member) = world.member(id) {
            member.speed.slow_down(0);
        }
        lives::start(world, id);
    }
}

/// Waits until every shard serves again; fails after [`SERVES_WITHIN`].
pub(crate) async fn serves(world: &Arc<World>) -> Result<(), Violation> {
    let mut worker = Worker::new(world.clone(), router(world, SERVES_CLIENT), Stream::Heal.rng(world.scenario.seed));
    for (shard, keys) in &world.keys {
        let deadline = Instant::now() + SERVES_WITHIN;
        let mut done = 0;
        while done < ROUNDS {
            if Instant::now() > deadline {
                return Err(Violation(format!(
                    "shard {shard} does not serve within {} s of healing",
                    SERVES_WITHIN.as_secs()
                )));
            }
            let key = &keys[done % keys.len()];
            let value = world.history.next_value(*shard, key);
            let written = worker.operate(*shard, key, Asked::Put(value), DEADLINE).await;
            let read = worker.operate(*shard, key, Asked::Read, DEADLINE).await;
            done += usize::from(matches!((written, read), (Came::Written { .. }, Came::Found(_))));
        }
    }
    Ok(())
}

/// Waits until no move is in progress, no node is joining, no replica is doubtful, and the replicas
/// of every group are equal; fails after [`SETTLES_WITHIN`].
pub(crate) async fn settles(world: &Arc<World>) -> Result<(), Violation> {
    let deadline = Instant::now() + SETTLES_WITHIN;
    loop {
        lives::start_joining(world);
        let unsettled = match unsettled(world) {
            None => return Ok(()),
            Some(reason) => reason,
        };
        if Instant::now() > deadline {
            return Err(Violation(format!(
                "not settled within {} s of healing: {unsettled}",
                SETTLES_WITHIN.as_secs()
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The reason why the cluster has not settled; none once it has.
fn unsettled(world: &World) -> Option<String> {
    let Some(map) = world.newest_map() else { return Some("no map".to_owned()) };
    if let Some(moving) = map.moves.first() {
        return Some(format!("a replica is still in motion: {moving:?}"));
    }
    let joining = map.nodes.iter().find(|node| node.state == NodeState::Joining);
    if let Some(node) = joining {
        return Some(format!("node {} is still joining", node.id));
    }
    let groups = map.shards.iter().map(|shard| shard.id.group()).chain([GroupId::TOPOLOGY]);
    let nodes = world.nodes();
    let is_doubtful = |at: &Placement| {
        let durable = nodes.get(&at.node).and_then(|node| node.log.durable_state(at.replica));
        durable.is_some_and(|durable| durable.doubtful)
    };
    if let Some(at) = groups.clone().flat_map(|group| map.replicas(group)).find(is_doubtful) {
        return Some(format!("replica {} on node {} is doubtful and not replaced", at.replica, at.node));
    }
    drop(nodes);
    groups.into_iter().find_map(|group| unequal(world, &map, group))
}

fn unequal(world: &World, map: &Topology, group: GroupId) -> Option<String> {
    let mut states: BTreeMap<NodeId, String> = BTreeMap::new();
    for at in map.replicas(group) {
        let Some(state) = world.nodes().get(&at.node).map(|node| node.state.clone()) else {
            return Some(format!("node {} of group {group} does not exist", at.node));
        };
        let mut hash = None;
        let viewed = state.view(&mut |view| {
            hash = Some(state_hash(view, at.replica)?);
            Ok(())
        });
        if let Err(error) = viewed {
            return Some(error.to_string());
        }
        states.insert(at.node, format!("{hash:?}"));
    }
    let mut values = states.values();
    let first = values.next();
    (!values.all(|value| Some(value) == first)).then(|| format!("the replicas of group {group} differ: {states:?}"))
}

/// Reads every key once more, without concurrent operations.
pub(crate) async fn read_everything(world: &Arc<World>) {
    let mut worker = Worker::new(world.clone(), router(world, READS_CLIENT), Stream::Heal.rng(world.scenario.seed ^ 1));
    for (shard, keys) in &world.keys {
        for key in keys {
            if worker.operate(*shard, key, Asked::Read, DEADLINE).await == Came::Failed {
                world.violation(format!("the last read of {key:?} failed"));
            }
        }
    }
}

/// Checks that the clients' history is linearizable. Returns the number of undecided keys.
pub(crate) fn judge(world: &World) -> u64 {
    let mut undecided = 0;
    let mut of_shard: BTreeMap<ShardId, Vec<_>> = BTreeMap::new();
    for ((shard, key), operations) in world.history.by_key() {
        match linear::check(&operations) {
            Verdict::Linearizable => {}
            Verdict::Violated(what) => world.violation(format!("{} is not linearizable: {what}", show(shard, &key))),
            Verdict::Undecided => undecided += 1,
        }
        of_shard.entry(shard).or_default().extend(operations);
    }
    for (shard, operations) in of_shard {
        if let Err(what) = linear::check_versions(&operations) {
            world.violation(format!("shard {shard}: {what}"));
        }
    }
    undecided
}

fn show(shard: ShardId, key: &Key) -> String {
    format!("{key:?} in shard {shard}")
}
