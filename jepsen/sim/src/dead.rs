//! The check of dead nodes, after a run has settled: an operator gives up a node as dead that is
//! alive, which must be refused, and then the same node after it has crashed for good, which must
//! succeed.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::NodeId;
use quorate_types::operation::Intent;
use quorate_types::topology::{Command, NodeState, Outcome, Topology};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio::time::Instant;

use crate::counts::Count;
use crate::lives::PING_TIMING;
use crate::scenario::Stream;
use crate::violations::Violation;
use crate::world::World;
use crate::{heal, lives};

/// How long the cluster may take to judge a node: elections, the time in office, and the time that
/// a ping counts.
const JUDGED_WITHIN: Duration = Duration::from_secs(20);
/// How long it takes until every node has a ping of every other one: a ping that was lost is waited
/// for, and the next one is sent.
const PINGED_WITHIN: Duration = PING_TIMING.interval.saturating_mul(4);
/// The pause between two requests.
const POLL: Duration = Duration::from_millis(100);

/// Gives up a node as dead, first while it is alive. Does nothing if the cluster needs every node.
pub(crate) async fn check(world: &Arc<World>) -> Result<(), Violation> {
    let mut rng = Stream::Dead.rng(world.scenario.seed);
    let Some(map) = world.newest_map() else { return Ok(()) };
    let active: Vec<NodeId> = active_nodes(&map).collect();
    let Some(victim) = active.choose(&mut rng).copied() else { return Ok(()) };
    if active.len() <= world.scenario.shape.replicas as usize {
        return Ok(());
    }
    // A cluster may settle before the first ping arrives after the faults. Until then a node that
    // was cut off is one that can be given up.
    tokio::time::sleep(PINGED_WITHIN).await;
    match judged(world, victim, &mut rng, |outcome| !matches!(outcome, Outcome::Done)).await? {
        Outcome::Refused(reason) if reason.contains("is alive") => world.counts.one(Count::RefusedRemovals),
        // Another operation is in the way.
        Outcome::Refused(_) => return Ok(()),
        _ => {
            return Err(Violation(format!(
                "node {victim} is removed as dead, although the other nodes receive its pings"
            )));
        }
    }
    world.trace.event(&format!("n{victim} dies for good"));
    lives::crash(world, victim, &mut rng);
    if let Some(node) = world.nodes().get_mut(&victim) {
        node.retired = true;
    }
    judged(world, victim, &mut rng, |outcome| matches!(outcome, Outcome::Operation { .. })).await?;
    is_removed(world, victim).await?;
    world.counts.one(Count::DeadRemoved);
    heal::settles(world).await
}

fn active_nodes(map: &Topology) -> impl Iterator<Item = NodeId> {
    map.nodes.iter().filter(|node| node.state == NodeState::Active).map(|node| node.id)
}

/// The client address of a node, which confirms its loss.
fn address_of(world: &World, node: NodeId) -> String {
    let map = world.newest_map();
    map.and_then(|map| Some(map.node(node)?.addresses.client.clone())).unwrap_or_default()
}

/// Asks for the removal of a node as dead until the answer is the last word.
async fn judged(
    world: &World,
    victim: NodeId,
    rng: &mut StdRng,
    is_last: impl Fn(&Outcome) -> bool,
) -> Result<Outcome, Violation> {
    let deadline = Instant::now() + JUDGED_WITHIN;
    let command = Command::StartOperation {
        intent: Intent::Remove { node: victim, dead: true },
        planned_on: 0,
        confirm: address_of(world, victim),
        now_ms: 0,
    };
    let mut last = None;
    while Instant::now() < deadline {
        let others: Vec<NodeId> = world.members().iter().map(|member| member.node).filter(|id| *id != victim).collect();
        let at = *others.choose(rng).ok_or_else(|| Violation("no node is up".to_owned()))?;
        if let Some(outcome) = world.propose(at, &command).await {
            if is_last(&outcome) {
                return Ok(outcome);
            }
            last = Some(outcome);
        }
        tokio::time::sleep(POLL).await;
    }
    Err(Violation(format!("node {victim} is not judged within {} s: {last:?}", JUDGED_WITHIN.as_secs())))
}

/// Waits until the map says that a node was removed.
async fn is_removed(world: &World, victim: NodeId) -> Result<(), Violation> {
    let deadline = Instant::now() + heal::SETTLES_WITHIN;
    while !world.newest_map().is_some_and(|map| map.is_removed(victim)) {
        if Instant::now() > deadline {
            let within = heal::SETTLES_WITHIN.as_secs();
            return Err(Violation(format!("dead node {victim} is not removed within {within} s")));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
