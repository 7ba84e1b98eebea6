//! The moves that a map needs, from the map as it is: what must leave a node, then what balances the rest.
//!
//! ```text
//!   1 leave    replicas on nodes that may have none           → the nearest node with room
//!   2 zones    shards with avoidable neighbours in a zone     → a node of another zone
//!   3 fill     nodes far under their share (new ones) take    ← the nearest shards of nodes over theirs
//!   4 bound    nodes over their load bound give               → the nearest node with room
//!              3 and 4 again, until neither finds anything
//! ```
//!
//! A fresh placement would be a little more even, and would move more: whatever a map has drifted from it. Here nothing moves
//! without one of these four reasons. "Near" is the distance on the ring of the nodes' points, so that who gets what depends
//! on nodes and shards and not on the order in which they came.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{NodeId, ShardId, Token};

use crate::assign::Limit;
use crate::place::{Candidate, PlacementError, PlacementRequest, eligible, limits};
use crate::points::Points;
use crate::zones::ZoneRule;

/// A node is filled up to its share once it has less than this part of it, in percent: a node that is a little under is left
/// alone.
const FILL_BELOW_PERCENT: u128 = 90;

/// One replica that should be elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    /// The shard.
    pub shard: ShardId,
    /// The node that has the replica.
    pub from: NodeId,
    /// The node that should have it; it has no other replica of the shard.
    pub to: NodeId,
    /// What it is good for.
    pub reason: MoveReason,
}

/// Why a replica should be elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MoveReason {
    /// The node that has it may have none.
    Leaves,
    /// The shard's replicas would be in more zones.
    Zones,
    /// The load would be more even.
    Load,
}

/// Plans the moves from `current`, which has the nodes of every shard of the request, to a map in which
///
/// * no shard has a replica on a node that is not among the request's (with a weight above 0),
/// * the replicas of a shard are spread over the zones as [`place`](crate::place()) would,
/// * no node has more than ceil(1.1 × its share by weight), as far as zones allow,
/// * no node has less than nine tenths of its share, as far as nodes over theirs have something to give.
///
/// A map that is like this already needs no move, and the map after the moves is like this. Moves of one shard must be made one
/// after the other, in any order. The answer is sorted by shard and does not depend on the order of what is given.
///
/// Takes about a second for 1,000 nodes and 100,000 shards.
pub fn rebalance(
    request: &PlacementRequest<'_>,
    current: &[(ShardId, Vec<NodeId>)],
) -> Result<Vec<Move>, PlacementError> {
    let candidates = eligible(request)?;
    let starts: BTreeMap<ShardId, Token> = request.shards.iter().map(|(shard, arc)| (shard, arc.start)).collect();
    let mut current: Vec<_> = current.iter().filter(|(shard, _)| starts.contains_key(shard)).collect();
    current.sort_by_key(|(shard, _)| *shard);
    let place_of = |node: &NodeId| candidates.binary_search_by_key(node, |candidate| candidate.id);
    let shards = current.iter().map(|(shard, nodes)| Shard {
        start: starts[shard],
        nodes: nodes.iter().filter_map(|node| place_of(node).ok()).collect(),
        leaving: nodes.iter().filter(|node| place_of(node).is_err()).count(),
    });
    let mut plan = Plan::new(request, &candidates, shards.collect());
    let unzoned: Vec<bool> = (0..plan.shards.len()).map(|shard| !plan.is_zoned(shard)).collect();
    plan.leave();
    plan.keep_zones();
    // What a node gives for its bound can be what another one could not take before. Ends: every replica that these two move
    // lessens what nodes lack of their shares or have over their bounds, and none adds to either.
    while plan.fill() | plan.keep_bounds() {}

    let mut moves = Vec::new();
    for (((shard, before), after), unzoned) in current.iter().zip(&plan.shards).zip(unzoned) {
        let after: BTreeSet<NodeId> = after.nodes.iter().map(|&node| candidates[node].id).collect();
        let before: BTreeSet<NodeId> = before.iter().copied().collect();
        let mut new: Vec<NodeId> = after.difference(&before).copied().collect();
        let zone = |node: &NodeId| place_of(node).ok().map(|node| plan.zones.zone(node));
        let mut old: Vec<NodeId> = before.difference(&after).copied().collect();
        // Within a zone where possible, so that the zones hold also between two moves of a shard.
        old.sort_by_key(|from| !new.iter().any(|to| zone(to) == zone(from)));
        for from in old {
            let at = new.iter().position(|to| zone(to) == zone(&from)).unwrap_or(0);
            let reason = match place_of(&from) {
                Err(_) => MoveReason::Leaves,
                Ok(_) if unzoned => MoveReason::Zones,
                Ok(_) => MoveReason::Load,
            };
            moves.push(Move { shard: *shard, from, to: new.remove(at), reason });
        }
    }
    Ok(moves)
}

/// A shard while it is planned. Nodes are places among the candidates.
struct Shard {
    start: Token,
    nodes: Vec<usize>,
    /// Replicas that still need a node.
    leaving: usize,
}

struct Plan {
    shards: Vec<Shard>,
    loads: Vec<usize>,
    limits: Vec<Limit>,
    /// What each node should have, rounded down, and whether it may give: its load times all weights is over this.
    shares: Vec<u128>,
    weights: u128,
    zones: ZoneRule,
    points: Points,
}

impl Plan {
    fn new(request: &PlacementRequest<'_>, candidates: &[Candidate], shards: Vec<Shard>) -> Self {
        let mut loads = vec![0; candidates.len()];
        shards.iter().flat_map(|shard| &shard.nodes).for_each(|&node| loads[node] += 1);
        let all: usize = shards.iter().map(|shard| shard.nodes.len() + shard.leaving).sum();
        let share = |candidate: &Candidate| all as u128 * u128::from(candidate.weight);
        Plan {
            loads,
            limits: limits(candidates, shards.len(), request.replicas),
            shares: candidates.iter().map(share).collect(),
            weights: candidates.iter().map(|candidate| u128::from(candidate.weight)).sum(),
            zones: ZoneRule::new(candidates, request.replicas),
            points: Points::new(request.hash_key, candidates),
            shards,
        }
    }

    /// Gives every replica that must leave the nearest node that it can have.
    fn leave(&mut self) {
        for shard in 0..self.shards.len() {
            while self.shards[shard].leaving > 0 {
                self.shards[shard].leaving -= 1;
                let to = self.nearest(shard, None).expect("there are as many candidates as replicas");
                self.put(shard, to);
            }
        }
    }

    /// Moves replicas out of zones that have too many of a shard.
    fn keep_zones(&mut self) {
        for shard in 0..self.shards.len() {
            // Every turn takes one replica out of a zone that has too many.
            for _ in 0..self.shards[shard].nodes.len() {
                if self.is_zoned(shard) {
                    break;
                }
                let Some((from, to)) = self.to_better_zone(shard) else { break };
                self.take(shard, from);
                self.put(shard, to);
            }
        }
    }

    fn is_zoned(&self, shard: usize) -> bool {
        self.zones.allows(&self.zones.counts(self.shards[shard].nodes.iter().copied()))
    }

    /// A replica in the most crowded zone, of the fullest node there, and where it can go.
    fn to_better_zone(&self, shard: usize) -> Option<(usize, usize)> {
        let nodes = &self.shards[shard].nodes;
        let in_zone_of = |node: usize| nodes.iter().filter(|&&n| self.zones.zone(n) == self.zones.zone(node)).count();
        let from = nodes.iter().copied().max_by_key(|&node| (in_zone_of(node), self.loads[node], node))?;
        let rest = self.zones.counts(nodes.iter().copied().filter(|&node| node != from));
        let crowd =
            |node: usize| nodes.iter().filter(move |&&n| n != from && self.zones.zone(n) == self.zones.zone(node));
        let better = |&node: &usize| {
            !nodes.contains(&node)
                && (self.zones.admits(&rest, node, None) || crowd(node).count() + 1 < in_zone_of(from))
        };
        let walk = self.points.walk(self.shards[shard].start);
        let targets = walk.iter().map(|step| step.node).filter(better);
        targets.min_by_key(|&node| (crowd(node).count(), !self.has_room(node))).map(|to| (from, to))
    }

    /// Nodes over their bound give what is farthest from them. Says whether anything moved.
    fn keep_bounds(&mut self) -> bool {
        let mut moved = false;
        for node in 0..self.loads.len() {
            if self.loads[node] <= self.limits[node].bound {
                continue;
            }
            for shard in self.by_distance(node, |nodes| nodes.contains(&node)).into_iter().rev() {
                if self.loads[node] <= self.limits[node].bound {
                    break;
                }
                let zoned = self.is_zoned(shard);
                let Some(to) = self.nearest(shard, Some(node)).filter(|&to| self.has_room(to)) else { continue };
                self.take(shard, node);
                self.put(shard, to);
                if zoned && !self.is_zoned(shard) {
                    // Zones come before the bound.
                    self.take(shard, to);
                    self.put(shard, node);
                } else {
                    moved = true;
                }
            }
        }
        moved
    }

    /// Nodes far under their share take what is nearest to them, from nodes over theirs. Says whether anything moved.
    fn fill(&mut self) -> bool {
        let mut moved = false;
        for node in 0..self.loads.len() {
            let share = self.shares[node] / self.weights;
            if self.loads[node] as u128 * 100 >= share * FILL_BELOW_PERCENT {
                continue;
            }
            for shard in self.by_distance(node, |nodes| !nodes.contains(&node)) {
                if self.loads[node] as u128 >= share {
                    break;
                }
                if let Some(from) = self.giver(shard, node) {
                    self.take(shard, from);
                    self.put(shard, node);
                    moved = true;
                }
            }
        }
        moved
    }

    /// Which node should hand its replica of the shard to this one: the one that is most over its share.
    fn giver(&self, shard: usize, to: usize) -> Option<usize> {
        let nodes = &self.shards[shard].nodes;
        let counts = self.zones.counts(nodes.iter().copied());
        let over = |&node: &usize| (self.loads[node] as u128 * self.weights).saturating_sub(self.shares[node]);
        let gives = |node: &usize| over(node) > 0 && self.zones.admits(&counts, to, Some(self.zones.zone(*node)));
        nodes.iter().copied().filter(gives).max_by_key(|node| (over(node), *node))
    }

    /// The nearest node that the shard can have one more replica on, after one on `instead_of` is gone: in a zone that is
    /// free, then with room, then with the lowest load for its bound. None where every node has one.
    fn nearest(&self, shard: usize, instead_of: Option<usize>) -> Option<usize> {
        let Shard { start, nodes, .. } = &self.shards[shard];
        let counts = self.zones.counts(nodes.iter().copied());
        let released = instead_of.map(|node| self.zones.zone(node));
        let stays = |zone: usize| {
            nodes.iter().filter(|&&node| Some(node) != instead_of && self.zones.zone(node) == zone).count()
        };
        let walk = self.points.walk(*start);
        let free = walk.iter().map(|step| step.node).filter(|node| !nodes.contains(node));
        free.min_by_key(|&node| {
            let crowd = if self.zones.admits(&counts, node, released) { 0 } else { stays(self.zones.zone(node)) + 1 };
            // Among nodes with room the walk decides; without any, the load.
            let excess = if self.has_room(node) { 0 } else { self.loads[node] + 1 - self.limits[node].bound };
            (crowd, excess)
        })
    }

    fn has_room(&self, node: usize) -> bool {
        self.loads[node] < self.limits[node].bound
    }

    /// The shards whose nodes are as asked, the nearest to the node first.
    fn by_distance(&self, node: usize, wanted: impl Fn(&[usize]) -> bool) -> Vec<usize> {
        let points = self.points.of(node);
        let mut shards: Vec<usize> =
            (0..self.shards.len()).filter(|&shard| wanted(&self.shards[shard].nodes)).collect();
        shards.sort_by_cached_key(|&shard| (points.distance(self.shards[shard].start), shard));
        shards
    }

    fn take(&mut self, shard: usize, node: usize) {
        self.shards[shard].nodes.retain(|&other| other != node);
        self.loads[node] -= 1;
    }

    fn put(&mut self, shard: usize, node: usize) {
        self.shards[shard].nodes.push(node);
        self.loads[node] += 1;
    }
}
