//! Faults, and the actions of an operator during them. Each kind of fault has its own task and
//! random source, so that faults overlap freely.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_types::operation::{Intent, PlannedMove};
use quorate_types::topology::{Command, NodeState, Outcome, Topology};
use quorate_types::{NodeId, ShardId};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::counts::Count;
use crate::lives;
use crate::lost_entries;
use crate::scenario::Stream;
use crate::world::{World, addresses};

/// Runs every kind of fault of the scenario until it is aborted.
pub(crate) async fn run(world: Arc<World>) {
    let scenario = world.scenario.clone();
    let rng = |stream: Stream| stream.rng(scenario.seed);
    tokio::join!(
        when(scenario.faults.network, network(world.clone(), rng(Stream::NetworkFaults))),
        when(scenario.faults.crashes, crashes(world.clone(), rng(Stream::Crashes))),
        when(scenario.faults.disks, disks(world.clone(), rng(Stream::Disks))),
        when(scenario.faults.clocks, clocks(world.clone(), rng(Stream::Clocks))),
        when(scenario.faults.operator, operator(world.clone(), rng(Stream::Operator))),
        lost_entries::run(world.clone(), rng(Stream::LostEntries)),
    );
}

async fn when(wanted: bool, fault: impl Future<Output = ()>) {
    if wanted {
        fault.await;
    }
}

async fn pause(rng: &mut StdRng, least_ms: u64, most_ms: u64) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(least_ms..=most_ms))).await;
}

type Links = BTreeSet<(NodeId, NodeId)>;

fn both_ways(some: &[NodeId], others: &[NodeId]) -> Links {
    let pairs = some.iter().flat_map(|a| others.iter().map(move |b| (*a, *b)));
    pairs.filter(|(a, b)| a != b).flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

/// The name of a random partition and the directed links that it cuts.
fn partition(nodes: &[NodeId], leader: Option<NodeId>, rng: &mut StdRng) -> (&'static str, Links) {
    let mut shuffled = nodes.to_vec();
    shuffled.shuffle(rng);
    let half = shuffled.len() / 2;
    let alone = leader.filter(|_| rng.random_bool(0.6)).unwrap_or(shuffled[0]);
    match rng.random_range(0..7) {
        0 => ("one alone", both_ways(&[alone], nodes)),
        1 => ("halves", both_ways(&shuffled[..half], &shuffled[half..])),
        2 => ("bridge", both_ways(&shuffled[..half], &shuffled[half + 1..])),
        3 => ("one receives nothing", nodes.iter().filter(|b| **b != alone).map(|b| (*b, alone)).collect()),
        4 => ("one sends nothing", nodes.iter().filter(|b| **b != alone).map(|b| (alone, *b)).collect()),
        5 => {
            // Every node reaches only its two neighbours. Of five nodes, each then reaches a
            // majority, and no two reach the same one.
            let count = shuffled.len();
            let near = |a: usize, b: usize| (a + 1) % count == b || (b + 1) % count == a;
            let pairs = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
            let far = pairs.filter(|(a, b)| a != b && !near(*a, *b));
            ("ring", far.map(|(a, b)| (shuffled[a], shuffled[b])).collect())
        }
        _ => {
            let pairs = nodes.iter().flat_map(|a| nodes.iter().map(move |b| (*a, *b)));
            ("random links", pairs.filter(|(a, b)| a != b).filter(|_| rng.random_bool(0.3)).collect())
        }
    }
}

/// A random node that currently leads a group.
fn a_leader(world: &World, rng: &mut StdRng) -> Option<NodeId> {
    let leading = |member: &Arc<crate::running_node::RunningNode>| {
        member.shards().iter().any(|(_, group)| group.replica().is_leader())
            || member.topology_group().is_some_and(|group| group.is_leader())
    };
    let leaders: Vec<NodeId> = world.members().iter().filter(|member| leading(member)).map(|m| m.node).collect();
    leaders.choose(rng).copied()
}

async fn network(world: Arc<World>, mut rng: StdRng) {
    loop {
        pause(&mut rng, 100, 1_500).await;
        let nodes = world.node_ids();
        world.counts.one(Count::NetworkFaults);
        if rng.random_bool(0.2) {
            let by = Duration::from_millis(rng.random_range(5..=150));
            let (from, to) =
                (*nodes.choose(&mut rng).unwrap_or(&nodes[0]), *nodes.choose(&mut rng).unwrap_or(&nodes[0]));
            world.trace.event(&format!("link n{from} -> n{to} is slower by {by:?}"));
            world.network.slow_down(from, to, by);
            pause(&mut rng, 100, 2_000).await;
            world.network.speed_up();
            continue;
        }
        let leader = a_leader(&world, &mut rng);
        let (shape, links) = partition(&nodes, leader, &mut rng);
        // Some partitions flap.
        let times = if rng.random_bool(0.2) { rng.random_range(2..=6) } else { 1 };
        let most_ms = if times > 1 { 250 } else { 2_500 };
        for _ in 0..times {
            world.trace.event(&format!("partition: {shape} {links:?}"));
            links.iter().for_each(|(from, to)| world.network.cut(*from, *to));
            pause(&mut rng, 20, most_ms).await;
            links.iter().for_each(|(from, to)| world.network.restore(*from, *to));
            world.trace.event("partition mended");
            if times > 1 {
                pause(&mut rng, 10, 200).await;
            }
        }
    }
}

async fn crashes(world: Arc<World>, mut rng: StdRng) {
    loop {
        pause(&mut rng, 200, 2_000).await;
        let mut nodes = world.node_ids();
        nodes.shuffle(&mut rng);
        let leader = a_leader(&world, &mut rng);
        let victims: Vec<NodeId> = match rng.random_range(0..10) {
            0..4 => nodes[..1].to_vec(),
            4..7 => leader.into_iter().collect(),
            7..9 => nodes[..nodes.len() / 2 + 1].to_vec(),
            _ => nodes,
        };
        let together = rng.random_bool(0.5);
        for victim in &victims {
            lives::crash(&world, *victim, &mut rng);
            if !together {
                pause(&mut rng, 1, 100).await;
            }
        }
        pause(&mut rng, 1, 1_500).await;
        for victim in victims {
            lives::start(&world, victim);
            if !together {
                pause(&mut rng, 1, 300).await;
            }
        }
    }
}

async fn disks(world: Arc<World>, mut rng: StdRng) {
    loop {
        pause(&mut rng, 200, 2_000).await;
        let nodes = world.node_ids();
        let Some(node) = nodes.choose(&mut rng).copied() else { continue };
        let Some(member) = world.member(node) else { continue };
        // A slow disk, or one that hangs for longer than any time-out.
        let extra_ms = [20, 120, 600, 3_000][rng.random_range(0..4)];
        world.counts.one(Count::SlowDisks);
        world.trace.event(&format!("the disk of n{node} takes up to {extra_ms} ms more"));
        member.speed.slow_down(extra_ms);
        pause(&mut rng, 100, 2_000).await;
        member.speed.slow_down(0);
    }
}

async fn clocks(world: Arc<World>, mut rng: StdRng) {
    loop {
        pause(&mut rng, 100, 1_500).await;
        let nodes = world.node_ids();
        let Some(id) = nodes.choose(&mut rng).copied() else { continue };
        let by_ms = [-60_000, -1_000, 1_000, 60_000, 3_600_000][rng.random_range(0..5)];
        world.counts.one(Count::ClockJumps);
        world.trace.event(&format!("the clock of n{id} is off by {by_ms} ms"));
        if let Some(node) = world.nodes().get(&id) {
            node.clock_offset_ms.store(by_ms, Ordering::Relaxed);
        }
    }
}

/// Moves replicas, transfers leaders, drains nodes and lets new ones join.
async fn operator(world: Arc<World>, mut rng: StdRng) {
    let mut joined = 0;
    loop {
        pause(&mut rng, 50, 700).await;
        let Some(map) = world.newest_map() else { continue };
        match rng.random_range(0..10) {
            0..2 => transfer(&world, &map, &mut rng).await,
            2..4 if joined == 0 => {
                joined += 1;
                join(&world, &mut rng).await;
            }
            4 => {
                let node = pick(&map, NodeState::Active, &mut rng);
                start(&world, node.map(|node| Intent::Drain { node }), &mut rng).await;
            }
            5 => {
                let node = pick(&map, NodeState::Draining, &mut rng);
                start(&world, node.map(|node| Intent::Undrain { node }), &mut rng).await;
            }
            _ => {
                let planned = planned_move(&map, &mut rng);
                start(&world, planned.map(|planned| Intent::Move { planned }), &mut rng).await;
            }
        }
    }
}

fn pick(map: &Topology, state: NodeState, rng: &mut StdRng) -> Option<NodeId> {
    let nodes: Vec<NodeId> = map.nodes.iter().filter(|node| node.state == state).map(|node| node.id).collect();
    nodes.choose(rng).copied()
}

fn planned_move(map: &Topology, rng: &mut StdRng) -> Option<PlannedMove> {
    let shard = map.shards.choose(rng)?;
    let from = shard.replicas.choose(rng)?.node;
    let free = map.nodes.iter().filter(|node| node.state == NodeState::Active);
    let free: Vec<NodeId> =
        free.map(|node| node.id).filter(|id| shard.replicas.iter().all(|at| at.node != *id)).collect();
    Some(PlannedMove { shard: shard.id, from, to: *free.choose(rng)? })
}

async fn start(world: &World, intent: Option<Intent>, rng: &mut StdRng) {
    let Some(intent) = intent else { return };
    let what = format!("{intent:?}");
    let command = Command::StartOperation { intent, planned_on: 0, confirm: String::new(), now_ms: 0 };
    let outcome = propose(world, &command, rng).await;
    if matches!(outcome, Some(Outcome::Operation { already: false, .. })) {
        world.counts.one(Count::Operations);
    }
    world.trace.event(&format!("operator: {what} -> {outcome:?}"));
}

/// Sends a command to a random node, as an operator's tool does.
async fn propose(world: &World, command: &Command, rng: &mut StdRng) -> Option<Outcome> {
    let at = world.node_ids().choose(rng).copied()?;
    world.propose(at, command).await
}

/// Registers a new machine and starts it as a node.
async fn join(world: &Arc<World>, rng: &mut StdRng) {
    let machine = world.scenario.shape.nodes + 1;
    let command = Command::RegisterNode { addresses: addresses(machine), zone: String::new(), weight: 100 };
    let Some(Outcome::Node(id)) = propose(world, &command, rng).await else { return };
    if world.nodes().contains_key(&id) || world.add_node(id, world.newest_map()).is_err() {
        return;
    }
    world.counts.one(Count::Operations);
    world.trace.event(&format!("n{id} joins"));
    lives::start(world, id);
}

/// Orders the leader of a shard to transfer its leadership to a random replica.
async fn transfer(world: &World, map: &Topology, rng: &mut StdRng) {
    let Some(shard) = map.shards.choose(rng) else { return };
    let Some(to) = shard.replicas.choose(rng).map(|at| at.replica) else { return };
    let shard: ShardId = shard.id;
    let leading =
        world.members().into_iter().find(|member| member.shard(shard).is_some_and(|group| group.replica().is_leader()));
    if let Some(member) = leading {
        world.counts.one(Count::Transfers);
        let what = quorate_types::report::OrderKind::TransferLeader(to);
        let done = member.groups().execute(shard.group(), what, Duration::from_millis(800)).await;
        let done = done.map_err(|error| error.to_string());
        world.trace.event(&format!("operator: leadership of shard {shard} is transferred to r{to}: {done:?}"));
    }
}
