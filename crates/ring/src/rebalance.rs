//! Plans the moves that a map needs: first the replicas that must leave a node, then those that
//! balance the rest.
//!
//! ```text
//!   1 leave    replicas on nodes that may hold none         → the nearest node below its bound
//!   2 zones    shards with avoidable neighbours in a zone    → a node of another zone
//!   3 fill     nodes far below their share (new ones) take   ← the nearest shards of fuller nodes
//!   4 bound    nodes over their load bound give              → the nearest node below its bound
//!              3 and 4 again, until neither finds a move
//! ```
//!
//! A fresh placement would be a little more even, and would move everything in which the map has
//! drifted from it. Here each move has one of these four reasons. "Near" is the distance on the
//! ring of the nodes' points, so the result depends on nodes and shards and not on the order in
//! which they joined.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{NodeId, ShardId, Token};

use crate::assign::Limit;
use crate::candidate::Candidate;
use crate::place::{PlacementError, PlacementRequest, eligible, limits};
use crate::points::Points;
use crate::zones::ZoneRule;

/// A node below this part of its share, in percent, is filled up to its share. A node a little
/// below its share stays as it is.
const FILL_BELOW_PERCENT: u128 = 90;

/// A planned move of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    /// The shard.
    pub shard: ShardId,
    /// The node that the replica leaves.
    pub from: NodeId,
    /// The node that gets the new replica; it has no other replica of the shard.
    pub to: NodeId,
    /// The reason of the move.
    pub reason: MoveReason,
}

/// The reason of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MoveReason {
    /// The old node may hold no replicas.
    Leaves,
    /// The move spreads the shard over more zones.
    Zones,
    /// The move balances the load.
    Load,
}

/// Plans the moves from `current`, which has the nodes of every shard of the request, to a map with
/// these properties:
///
/// * No shard has a replica on a node outside the request or of weight 0.
/// * The replicas of a shard are spread over the zones as by [`place`](crate::place()).
/// * No node has more than ceil(1.1 × its share by weight), as far as zones allow.
/// * No node has less than nine tenths of its share, as far as nodes over their share can give.
///
/// A map with these properties needs no move, and the map after the moves has them. Moves of one
/// shard must be made one after the other, in any order. The result is sorted by shard and does not
/// depend on the order of the input.
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
    // A node may be able to take a replica only after another one gave it away for its bound. The
    // loop ends: every replica that these two move lessens the shortfalls from shares or the
    // excesses over bounds, and none adds to either.
    while plan.fill() | plan.keep_bounds() {}

    let mut moves = Vec::new();
    for (((shard, before), after), unzoned) in current.iter().zip(&plan.shards).zip(unzoned) {
        let after: BTreeSet<NodeId> = after.nodes.iter().map(|&node| candidates[node].id).collect();
        let before: BTreeSet<NodeId> = before.iter().copied().collect();
        let mut new: Vec<NodeId> = after.difference(&before).copied().collect();
        let zone = |node: &NodeId| place_of(node).ok().map(|node| plan.zones.zone(node));
        let mut old: Vec<NodeId> = before.difference(&after).copied().collect();
        // Within a zone if possible, so that the zone rule also holds between two moves of a shard.
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

/// A shard during planning. Nodes are indexes of candidates.
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
    /// The share of each node, times all weights. A node may give if its load times all weights is
    /// larger.
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

    /// Gives every replica that must leave to the nearest possible node.
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
            // Every iteration takes one replica out of a zone that has too many.
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

    /// A replica in the most crowded zone, on the fullest node there, and its target.
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
        targets.min_by_key(|&node| (crowd(node).count(), !self.is_below_bound(node))).map(|to| (from, to))
    }

    /// Nodes over their bound give the replicas that are farthest from them. Returns whether a
    /// replica moved.
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
                let Some(to) = self.nearest(shard, Some(node)).filter(|&to| self.is_below_bound(to)) else { continue };
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

    /// Nodes far below their share take the nearest replicas of nodes above theirs. Returns whether
    /// a replica moved.
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

    /// The node that gives its replica of the shard to this one: the node with the largest excess
    /// over its share.
    fn giver(&self, shard: usize, to: usize) -> Option<usize> {
        let nodes = &self.shards[shard].nodes;
        let counts = self.zones.counts(nodes.iter().copied());
        let over = |&node: &usize| (self.loads[node] as u128 * self.weights).saturating_sub(self.shares[node]);
        let gives = |node: &usize| over(node) > 0 && self.zones.admits(&counts, to, Some(self.zones.zone(*node)));
        nodes.iter().copied().filter(gives).max_by_key(|node| (over(node), *node))
    }

    /// The nearest node for one more replica of the shard, once the one on `instead_of` is gone: in
    /// a free zone, then below its bound, then with the lowest load for its bound. None if every
    /// node has a replica.
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
            // Among nodes below their bound the walk decides; without any, the load.
            let excess = if self.is_below_bound(node) { 0 } else { self.loads[node] + 1 - self.limits[node].bound };
            (crowd, excess)
        })
    }

    fn is_below_bound(&self, node: usize) -> bool {
        self.loads[node] < self.limits[node].bound
    }

    /// The shards whose nodes fulfil `wanted`, the nearest to the node first.
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
