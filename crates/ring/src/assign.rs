//! Shards to nodes: every shard as near its walk's start as zones and load bounds allow.
//!
//! Two steps. In the first, shards ask nodes in the order of their walks and a node that is asked for more than its bound
//! keeps the shards that are nearest to its points (deferred acceptance, as in "Consistent Hashing with Bounded Loads" but
//! without its dependence on the order of insertion): who gets what does not depend on the order in which they ask, and a
//! node that comes or goes disturbs little. It may leave a shard with too few nodes where only a chain of exchanges helps:
//!
//! ```text
//!   shard 4 ─wants→ n1 (full) ─gives up→ shard 2 ─takes→ n3 (has room)
//! ```
//!
//! The second step finds the shortest such chain (an augmenting path, as in matroid intersection), so that a bound is exceeded
//! only where no placement at all keeps it, and then by the node that carries least for its weight.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::points::Step;
use crate::zones::{ZoneCounts, ZoneRule};

/// What nodes may and should carry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// At most so many replicas.
    pub(crate) bound: usize,
    /// Relative to other nodes; not 0.
    pub(crate) weight: u32,
}

/// What is to be assigned.
pub(crate) struct Assignment<'a> {
    /// Every shard's walk.
    pub(crate) walks: &'a [Vec<Step>],
    /// Which nodes go together.
    pub(crate) zones: &'a ZoneRule,
    /// Nodes for each shard.
    pub(crate) replicas: usize,
    /// Every node's limit.
    pub(crate) limits: &'a [Limit],
}

/// A place on a chain of exchanges: a shard that may take one more node.
#[derive(Clone, Copy)]
struct Visit {
    shard: usize,
    /// The visit that would take a node from this shard, and that node. None where the chain starts.
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

    /// The first step: asks until nobody is refused any more.
    fn settle(&self) -> Vec<Vec<usize>> {
        let mut refused = vec![vec![false; self.limits.len()]; self.walks.len()];
        loop {
            let mut asked: Vec<Vec<(u64, usize)>> = vec![Vec::new(); self.limits.len()];
            let mut chosen = Vec::with_capacity(self.walks.len());
            for (shard, walk) in self.walks.iter().enumerate() {
                let steps = self.choose(walk, &refused[shard]);
                steps.iter().for_each(|step| asked[step.node].push((step.distance, shard)));
                chosen.push(steps.iter().map(|step| step.node).collect());
            }
            let mut content = true;
            for (node, shards) in asked.iter_mut().enumerate() {
                shards.sort_unstable();
                for &(_, shard) in shards.iter().skip(self.limits[node].bound) {
                    refused[shard][node] = true;
                    content = false;
                }
            }
            if content {
                return chosen;
            }
        }
    }

    /// The first nodes of a walk that may be together, without those that refused.
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

    /// The second step: gives `shard` one more node along the shortest chain of exchanges that ends at a node with room, or,
    /// if none does, at the node that carries least for its weight.
    fn extend(&self, shard: usize, chosen: &mut [Vec<usize>], loads: &mut [usize]) {
        let counts: Vec<ZoneCounts> = chosen.iter().map(|nodes| self.zones.counts(nodes.iter().copied())).collect();
        let mut visits = vec![Visit { shard, released: None }];
        let mut visited = BTreeSet::new();
        // Nodes that a chain can end at, and the visit that takes them.
        let mut ends: Vec<(usize, usize)> = Vec::new();
        let mut reached = vec![false; self.limits.len()];
        let mut next = 0;
        let room = 'search: loop {
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
        let end =
            room.or_else(least).expect("there are more nodes than the shard has, and zones admit as many as it needs");
        loads[end.1] += 1;
        self.exchange(&visits, end, chosen);
    }

    /// Walks a chain back to its start: every shard on it takes a node and gives up the one that the shard before it takes.
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

    /// Orders two nodes by what they would carry for their weight with one replica more.
    fn compare_loads(&self, loads: &[usize], a: usize, b: usize) -> Ordering {
        let scaled = |node: usize, other: usize| (loads[node] as u128 + 1) * u128::from(self.limits[other].weight);
        scaled(a, b).cmp(&scaled(b, a))
    }
}
