//! Assigns shards to nodes: every shard as near to the start of its walk as zones and load bounds
//! allow.
//!
//! In the first of two steps, shards request nodes in the order of their walks, and a node with
//! more requests than its bound keeps the shards that are nearest to its points (deferred
//! acceptance, as in "Consistent Hashing with Bounded Loads" but independent of the order of
//! insertion). The result does not depend on the order of the requests, and a node that joins or
//! leaves disturbs little. A shard may be left with too few nodes if only a chain of exchanges
//! helps:
//!
//! ```text
//!   shard 4 ─wants→ n1 (full) ─gives up→ shard 2 ─takes→ n3 (below its bound)
//! ```
//!
//! The second step finds the shortest such chain (an augmenting path, as in matroid intersection).
//! So a bound is exceeded only if no placement keeps it, and then at the node with the lowest load
//! for its weight.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::points::Step;
use crate::zones::{ZoneCounts, ZoneRule};

/// The bound and the weight of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// The maximum number of replicas.
    pub(crate) bound: usize,
    /// The weight relative to other nodes; not 0.
    pub(crate) weight: u32,
}

/// The problem: shards, their walks, and the limits of the nodes.
pub(crate) struct Assignment<'a> {
    /// Every shard's walk.
    pub(crate) walks: &'a [Vec<Step>],
    /// The rule for nodes of the same zone.
    pub(crate) zones: &'a ZoneRule,
    /// Nodes for each shard.
    pub(crate) replicas: usize,
    /// Every node's limit.
    pub(crate) limits: &'a [Limit],
}

/// A link of a chain of exchanges: a shard that may take one more node.
#[derive(Clone, Copy)]
struct Visit {
    shard: usize,
    /// The visit whose shard would take a node from this shard, and that node. None at the start of
    /// a chain.
    released: Option<(usize, usize)>,
}

impl Assignment<'_> {
    /// The nodes of every shard, in the order of its walk.
    pub(crate) fn solve(&self) -> Vec<Vec<usize>> {
        let mut chosen = self.settle();
        let mut loads = vec![0; self.limits.len()];
        chosen.iter().flatten().for_each(|&node| loads[node] += 1);
        for shard in 0..chosen.len() {
            while chosen[shard].len() < self.replicas {
                self.extend(shard, &mut chosen, &mut loads);
            }
        }
        let ordered = |(nodes, walk): (&Vec<usize>, &Vec<Step>)| {
            walk.iter().map(|step| step.node).filter(|node| nodes.contains(node)).collect()
        };
        chosen.iter().zip(self.walks).map(ordered).collect()
    }

    /// The first step: requests until no request is refused.
    fn settle(&self) -> Vec<Vec<usize>> {
        let mut refused = vec![vec![false; self.limits.len()]; self.walks.len()];
        loop {
            let mut requests: Vec<Vec<(u64, usize)>> = vec![Vec::new(); self.limits.len()];
            let mut chosen = Vec::with_capacity(self.walks.len());
            for (shard, walk) in self.walks.iter().enumerate() {
                let steps = self.choose(walk, &refused[shard]);
                steps.iter().for_each(|step| requests[step.node].push((step.distance, shard)));
                chosen.push(steps.iter().map(|step| step.node).collect());
            }
            let mut settled = true;
            for (node, shards) in requests.iter_mut().enumerate() {
                shards.sort_unstable();
                for &(_, shard) in shards.iter().skip(self.limits[node].bound) {
                    refused[shard][node] = true;
                    settled = false;
                }
            }
            if settled {
                return chosen;
            }
        }
    }

    /// The first nodes of a walk that the zones allow together, without those that refused.
    fn choose(&self, walk: &[Step], refused: &[bool]) -> Vec<Step> {
        let mut counts = self.zones.counts([]);
        let mut steps = Vec::with_capacity(self.replicas);
        for &step in walk.iter().filter(|step| !refused[step.node]) {
            if steps.len() < self.replicas && self.zones.admits(&counts, step.node, None) {
                counts.add(self.zones.zone(step.node));
                steps.push(step);
            }
        }
        steps
    }

    /// The second step: gives `shard` one more node along the shortest chain of exchanges that ends
    /// at a node below its bound, or else at the node with the lowest load for its weight.
    fn extend(&self, shard: usize, chosen: &mut [Vec<usize>], loads: &mut [usize]) {
        let counts: Vec<ZoneCounts> = chosen.iter().map(|nodes| self.zones.counts(nodes.iter().copied())).collect();
        let mut visits = vec![Visit { shard, released: None }];
        let mut visited = BTreeSet::new();
        // The possible ends of a chain: the visit that takes a node, and that node.
        let mut ends: Vec<(usize, usize)> = Vec::new();
        let mut reached = vec![false; self.limits.len()];
        let mut next = 0;
        let below_bound = 'search: loop {
            let Some(visit) = visits.get(next) else { break None };
            let (at, released) = (visit.shard, visit.released.map(|(_, node)| self.zones.zone(node)));
            for &Step { node, .. } in &self.walks[at] {
                if reached[node] || chosen[at].contains(&node) || !self.zones.admits(&counts[at], node, released) {
                    continue;
                }
                reached[node] = true;
                ends.push((next, node));
                if loads[node] < self.limits[node].bound {
                    break 'search Some((next, node));
                }
                for holder in (0..chosen.len()).filter(|&holder| chosen[holder].contains(&node)) {
                    if visited.insert((holder, self.zones.zone(node))) {
                        visits.push(Visit { shard: holder, released: Some((next, node)) });
                    }
                }
            }
            next += 1;
        };
        let least = || ends.iter().copied().min_by(|&(_, a), &(_, b)| self.compare_loads(loads, a, b));
        let end = below_bound
            .or_else(least)
            .expect("there are more nodes than the shard has, and the zones admit as many as it needs");
        loads[end.1] += 1;
        self.exchange(&visits, end, chosen);
    }

    /// Walks a chain back to its start. Every shard on it takes a node, and gives up the node that
    /// the previous shard takes.
    fn exchange(&self, visits: &[Visit], end: (usize, usize), chosen: &mut [Vec<usize>]) {
        let mut link = Some(end);
        while let Some((at, node)) = link {
            let Visit { shard, released } = visits[at];
            let nodes = &mut chosen[shard];
            if let Some((_, given)) = released {
                nodes.retain(|&node| node != given);
            }
            nodes.push(node);
            link = released;
        }
        for visit in visits {
            let counts = self.zones.counts(chosen[visit.shard].iter().copied());
            assert!(self.zones.allows(&counts), "an exchange on a shortest chain keeps to the zones");
        }
    }

    /// Orders two nodes by their load for their weight with one more replica.
    fn compare_loads(&self, loads: &[usize], a: usize, b: usize) -> Ordering {
        let scaled = |node: usize, other: usize| (loads[node] as u128 + 1) * u128::from(self.limits[other].weight);
        scaled(a, b).cmp(&scaled(b, a))
    }
}
