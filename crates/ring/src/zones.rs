//! Limits the replicas of one shard in each zone.
//!
//! With at least as many zones as replicas, every replica has a zone to itself. With fewer, the
//! replicas are spread as evenly as the sizes of the zones allow: every zone gives `level - 1`
//! nodes (or all it has), and the rest come from different zones.
//!
//! ```text
//!   5 replicas over zones of 1, 2 and 4 nodes:   level 2:   1 of 1,   2 of 2,   2 of 4
//!   5 replicas over zones of 3, 3 and 3 nodes:   level 2:   1 each, and one more from two of them
//! ```
//!
//! Sets of nodes that keep the rule are the independent sets of a matroid (a union of two partition
//! matroids). That is why a greedy choice along the walk finds the earliest full set, and why
//! single exchanges suffice to repair one.

use std::collections::BTreeMap;

use crate::candidate::Candidate;

/// The rule, for one set of candidates and a number of replicas.
#[derive(Clone, Debug)]
pub(crate) struct ZoneRule {
    /// The zone of every candidate.
    zone_of: Vec<usize>,
    /// The number of nodes that every zone gives.
    base: Vec<u32>,
    /// The number of nodes that it gives if other zones do not use up the rest (0 or 1).
    most: Vec<u32>,
    /// The number of replicas that the zones' bases do not cover.
    extras: u32,
}

/// The number of replicas of a shard in each zone.
#[derive(Clone, Debug)]
pub(crate) struct ZoneCounts(Vec<u32>);

impl ZoneRule {
    /// The rule for `replicas` of the candidates, of which there are at least as many. Nodes
    /// without a zone count as one zone: they may fail together.
    pub(crate) fn new(candidates: &[Candidate], replicas: u32) -> Self {
        let mut names = BTreeMap::new();
        let mut sizes: Vec<u32> = Vec::new();
        let mut zone_of = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let zone = *names.entry(candidate.zone.as_str()).or_insert(sizes.len());
            if zone == sizes.len() {
                sizes.push(0);
            }
            sizes[zone] += 1;
            zone_of.push(zone);
        }
        let filled = |level: u32| sizes.iter().map(|&size| size.min(level)).sum::<u32>();
        let level = (1..=replicas).find(|&level| filled(level) >= replicas).expect("there are enough candidates");
        let at = |level: u32| sizes.iter().map(|&size| size.min(level)).collect::<Vec<u32>>();
        ZoneRule { extras: replicas - filled(level - 1), base: at(level - 1), most: at(level), zone_of }
    }

    /// The zone of a candidate.
    pub(crate) fn zone(&self, node: usize) -> usize {
        self.zone_of[node]
    }

    /// The counts of these nodes.
    pub(crate) fn counts(&self, nodes: impl IntoIterator<Item = usize>) -> ZoneCounts {
        let mut counts = ZoneCounts(vec![0; self.most.len()]);
        for node in nodes {
            counts.add(self.zone(node));
        }
        counts
    }

    /// Whether the counts keep the rule.
    pub(crate) fn allows(&self, counts: &ZoneCounts) -> bool {
        let over = |(&count, &base): (&u32, &u32)| count.saturating_sub(base);
        counts.0.iter().zip(&self.most).all(|(count, most)| count <= most)
            && counts.0.iter().zip(&self.base).map(over).sum::<u32>() <= self.extras
    }

    /// Whether a node may be added, after a node of the zone `released` has left if there is one.
    pub(crate) fn admits(&self, counts: &ZoneCounts, node: usize, released: Option<usize>) -> bool {
        let mut after = counts.clone();
        if let Some(zone) = released {
            after.0[zone] -= 1;
        }
        after.add(self.zone(node));
        self.allows(&after)
    }
}

impl ZoneCounts {
    /// Counts one more replica in the zone.
    pub(crate) fn add(&mut self, zone: usize) {
        self.0[zone] += 1;
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::NodeId;

    use super::*;

    /// The counts that the rule allows for a full set: `sizes` are the nodes of zone 0, 1, …
    fn full_sets(sizes: &[u32], replicas: u32) -> Vec<Vec<u32>> {
        let mut candidates = Vec::new();
        for (zone, &size) in sizes.iter().enumerate() {
            for _ in 0..size {
                let id = NodeId(candidates.len() as u64 + 1);
                candidates.push(Candidate { id, zone: format!("zone {zone}"), weight: 100 });
            }
        }
        let rule = ZoneRule::new(&candidates, replicas);
        let mut sets = vec![vec![]];
        for &size in sizes {
            sets = sets.iter().flat_map(|set| (0..=size).map(move |n| [&set[..], &[n]].concat())).collect();
        }
        sets.retain(|set| set.iter().sum::<u32>() == replicas && rule.allows(&ZoneCounts(set.clone())));
        sets
    }

    #[test]
    fn replicas_are_spread_as_evenly_as_the_zones_allow() {
        assert_eq!(full_sets(&[2, 2, 2], 3), [[1, 1, 1]]);
        assert_eq!(full_sets(&[1, 1, 1, 1], 3), [[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]);
        assert_eq!(full_sets(&[3], 3), [[3]]);
        assert_eq!(full_sets(&[3, 3], 3), [[1, 2], [2, 1]]);
        assert_eq!(full_sets(&[1, 4], 3), [[1, 2]]);
        assert_eq!(full_sets(&[1, 4], 5), [[1, 4]]);
        assert_eq!(full_sets(&[1, 2, 4], 5), [[1, 2, 2]]);
        assert_eq!(full_sets(&[3, 3, 3], 5), [[1, 2, 2], [2, 1, 2], [2, 2, 1]]);
        assert_eq!(full_sets(&[2, 2, 2, 2], 5), [[1, 1, 1, 2], [1, 1, 2, 1], [1, 2, 1, 1], [2, 1, 1, 1]]);
    }
}
