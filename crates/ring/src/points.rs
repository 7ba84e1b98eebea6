//! The ring of the nodes' points, and every shard's walk on it. Only this file uses hashring.
//!
//! ```text
//!   0 ──·─────·──·────────·───·──·───────·─────·── 2^64
//!       n2    n1 n3       n1  n2 n2      n3    n1    one dot: one VNode, at its hash
//!                  ↑ arc start
//!                  └──────→ n1, n2, n3               the walk: nodes by their first dot clockwise
//! ```
//!
//! hashring has no virtual nodes, hashes through Rust's `Hash`, breaks ties by insertion order, and
//! copies the whole ring for each look-up of replicas. So the points are types of this file that
//! hash one run of bytes; they are added sorted and in one batch, and the ring's order is read
//! once.

use std::hash::{BuildHasher, Hash, Hasher};

use hashring::HashRing;
use quorate_types::{NodeId, Token};
use siphasher::sip::SipHasher24;

use crate::candidate::Candidate;

/// Points of a node of weight 100. With 512 the fullest of 3 to 8 nodes has about 1.03 times the
/// mean of the ring.
const POINTS_PER_NODE: u32 = 512;
/// The weight of a node with [`POINTS_PER_NODE`] points.
const WEIGHT_UNIT: u32 = 100;

/// One point of a node on the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct VNode {
    node: NodeId,
    number: u32,
}

impl Hash for VNode {
    /// Writes once, in a fixed byte order: the derived `Hash` depends on platform and compiler.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.node.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.number.to_le_bytes());
        state.write(&bytes);
    }
}

/// SipHash-2-4 under the cluster's hash key.
#[derive(Clone, Copy)]
struct KeyedHash<'a>(&'a [u8; 16]);

impl BuildHasher for KeyedHash<'_> {
    type Hasher = SipHasher24;

    fn build_hasher(&self) -> SipHasher24 {
        SipHasher24::new_with_key(self.0)
    }
}

/// A step of a walk: a node that it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The node's place among the candidates.
    pub(crate) node: usize,
    /// The distance from the start of the walk to the node's first point. It depends only on this
    /// node and this shard, not on other nodes.
    pub(crate) distance: u64,
}

/// The points of all nodes, in ring order.
pub(crate) struct Points {
    at: Vec<u64>,
    nodes: Vec<usize>,
    candidates: usize,
}

impl Points {
    /// The points of `candidates`, which are sorted by id and have a weight each.
    pub(crate) fn new(hash_key: &[u8; 16], candidates: &[Candidate]) -> Self {
        let mut points = Vec::new();
        for candidate in candidates {
            // At least one, so that walks reach the lightest node too.
            let count = (POINTS_PER_NODE * candidate.weight).div_ceil(WEIGHT_UNIT);
            points.extend((0..count).map(|number| VNode { node: candidate.id, number }));
        }
        let hash = KeyedHash(hash_key);
        let Some(&any) = points.first() else { return Points { at: vec![], nodes: vec![], candidates: 0 } };
        let mut ring = HashRing::with_hasher(hash);
        ring.batch_add(points);
        // The point itself and all others after it. (The ring iterates only with its default
        // hasher, and a request for as many as it has would repeat the first.)
        let order = ring.get_with_replicas(&any, ring.len() - 1).expect("the ring is not empty");
        let (mut at, mut nodes): (Vec<u64>, Vec<usize>) = order
            .into_iter()
            .map(|point| {
                let node = candidates.binary_search_by_key(&point.node, |candidate| candidate.id);
                (hash.hash_one(point), node.expect("every point was made of a candidate, and they are sorted"))
            })
            .unzip();
        let lowest = at.windows(2).position(|pair| pair[0] > pair[1]).map_or(0, |last| last + 1);
        at.rotate_left(lowest);
        nodes.rotate_left(lowest);
        assert!(at.is_sorted(), "the ring is in the order of its points");
        Points { at, nodes, candidates: candidates.len() }
    }

    /// The points of one candidate.
    pub(crate) fn of(&self, node: usize) -> PointsOfNode {
        let own = self.at.iter().zip(&self.nodes).filter(|&(_, &of)| of == node);
        PointsOfNode(own.map(|(&at, _)| at).collect())
    }

    /// Every candidate once, in the order in which a walk clockwise from `start` reaches them.
    pub(crate) fn walk(&self, start: Token) -> Vec<Step> {
        let first = self.at.partition_point(|&at| at < start.0);
        let mut met = vec![false; self.candidates];
        let mut steps = Vec::with_capacity(self.candidates);
        for i in (first..self.at.len()).chain(0..first) {
            let node = self.nodes[i];
            if std::mem::replace(&mut met[node], true) {
                continue;
            }
            steps.push(Step { node, distance: self.at[i].wrapping_sub(start.0) });
            if steps.len() == self.candidates {
                break;
            }
        }
        steps
    }
}

/// The points of one node, in ring order.
pub(crate) struct PointsOfNode(Vec<u64>);

impl PointsOfNode {
    /// The distance of a walk clockwise from `start` to the node's first point.
    pub(crate) fn distance(&self, start: Token) -> u64 {
        let next = self.0.partition_point(|&at| at < start.0);
        self.0.get(next).or(self.0.first()).map_or(u64::MAX, |at| at.wrapping_sub(start.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        let candidate =
            |(i, &weight): (usize, &u32)| Candidate { id: NodeId(i as u64 + 1), zone: String::new(), weight };
        weights.iter().enumerate().map(candidate).collect()
    }

    #[test]
    fn a_walk_meets_every_node_once_from_anywhere() {
        let points = Points::new(&[7; 16], &candidates(&[100, 1, 300, 50]));
        for start in [0, 1, u64::MAX / 3, u64::MAX] {
            let steps = points.walk(Token(start));
            let mut nodes: Vec<usize> = steps.iter().map(|step| step.node).collect();
            assert!(steps.is_sorted_by_key(|step| step.distance), "from {start}");
            nodes.sort_unstable();
            assert_eq!(nodes, [0, 1, 2, 3], "from {start}");
            let alone = steps.iter().map(|step| points.of(step.node).distance(Token(start)));
            assert!(alone.eq(steps.iter().map(|step| step.distance)), "from {start}");
        }
    }

    #[test]
    fn points_are_in_order_and_scale_with_weight() {
        let points = Points::new(&[7; 16], &candidates(&[100, 1, 300]));
        assert!(points.at.is_sorted());
        let count = |node| points.nodes.iter().filter(|&&n| n == node).count();
        assert_eq!([count(0), count(1), count(2)], [512, 6, 1536]);
    }

    /// A node's points do not depend on the other nodes: this makes the hashing consistent.
    #[test]
    fn another_node_moves_no_point() {
        let (few, more) =
            (Points::new(&[7; 16], &candidates(&[100; 3])), Points::new(&[7; 16], &candidates(&[100; 4])));
        let old: Vec<u64> = more.at.iter().zip(&more.nodes).filter(|&(_, &node)| node < 3).map(|(&at, _)| at).collect();
        assert_eq!(old, few.at);
    }
}
