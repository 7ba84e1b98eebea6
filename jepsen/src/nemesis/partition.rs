//! The shapes of partitions as sets of directed links to cut. Pure.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt};

use super::fault::Fault;
use crate::cluster::Link;

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// The links to cut.
    pub(crate) cut: BTreeSet<Link>,
    /// The nodes that reach no majority.
    pub(crate) alone: BTreeSet<usize>,
}

/// A partition of a shape. `None` if there are too few nodes, or no leader to cut off.
pub(crate) fn partition(
    shape: Fault,
    nodes: &[usize],
    leaders: &BTreeSet<usize>,
    rng: &mut StdRng,
) -> Option<Partition> {
    let mut order = nodes.to_vec();
    order.shuffle(rng);
    let (count, majority) = (order.len(), order.len() / 2 + 1);
    let leading: Vec<usize> = order.iter().copied().filter(|node| leaders.contains(node)).collect();
    let cut = match shape {
        Fault::PartitionLeader => {
            let leader = *leading.choose(rng)?;
            between(&[leader], &without(&order, leader))
        }
        Fault::PartitionMinority | Fault::PartitionFlapping => {
            let size = rng.random_range(1..=(count - majority).max(1));
            between(&order[..size], &order[size..])
        }
        Fault::PartitionHalves => between(&order[..count / 2], &order[count / 2..]),
        // The first node of the larger half reaches both halves.
        Fault::PartitionBridge => between(&order[..count / 2], &order[count / 2 + 1..]),
        Fault::PartitionRing => {
            let reach = majority.div_ceil(2);
            let far = |a: usize, b: usize| (a + count - b) % count >= reach && (b + count - a) % count >= reach;
            let pairs = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
            pairs.filter(|(a, b)| a != b && far(*a, *b)).map(|(a, b)| Link { from: order[a], to: order[b] }).collect()
        }
        Fault::PartitionOneWay => {
            let deaf_or_mute =
                if rng.random_bool(0.5) { leading.choose(rng).copied() } else { None }.unwrap_or(order[0]);
            let others = without(&order, deaf_or_mute);
            let deaf = rng.next_u32().is_multiple_of(2);
            let link = |other| if deaf { (other, deaf_or_mute) } else { (deaf_or_mute, other) };
            others.iter().map(|other| link(*other)).map(|(from, to)| Link { from, to }).collect()
        }
        Fault::PartitionOnlyOne => {
            let spokes = &order[1..];
            spokes.iter().flat_map(|a| between(&[*a], &without(spokes, *a))).collect()
        }
        _ => return None,
    };
    let alone = nodes.iter().copied().filter(|node| reached(*node, nodes, &cut) < majority).collect();
    (!cut.is_empty()).then_some(Partition { cut, alone })
}

/// The number of nodes that exchange messages with this one in both directions, itself included.
fn reached(node: usize, nodes: &[usize], cut: &BTreeSet<Link>) -> usize {
    let open = |other: &&usize| {
        !cut.contains(&Link { from: node, to: **other }) && !cut.contains(&Link { from: **other, to: node })
    };
    nodes.iter().filter(open).count()
}

fn without(nodes: &[usize], one: usize) -> Vec<usize> {
    nodes.iter().copied().filter(|node| *node != one).collect()
}

/// The links between two sides, in both directions.
fn between(one: &[usize], other: &[usize]) -> BTreeSet<Link> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b)));
    pairs.flat_map(|(a, b)| [Link { from: a, to: b }, Link { from: b, to: a }]).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const NODES: [usize; 5] = [1, 2, 3, 4, 5];

    fn all(shape: Fault) -> Vec<Partition> {
        let leaders = BTreeSet::from([2, 4]);
        (0..50).map(|seed| partition(shape, &NODES, &leaders, &mut StdRng::seed_from_u64(seed)).unwrap()).collect()
    }

    /// How many nodes each node reaches, in ascending order.
    fn reach(partition: &Partition) -> Vec<usize> {
        let mut reach: Vec<usize> = NODES.iter().map(|node| reached(*node, &NODES, &partition.cut)).collect();
        reach.sort_unstable();
        reach
    }

    #[test]
    fn shapes_match_their_names() {
        for partition in all(Fault::PartitionLeader) {
            assert_eq!((reach(&partition), partition.cut.len()), (vec![1, 4, 4, 4, 4], 8));
            assert!(partition.alone.iter().all(|node| [2, 4].contains(node)));
        }
        for partition in all(Fault::PartitionMinority) {
            assert!([vec![1, 4, 4, 4, 4], vec![2, 2, 3, 3, 3]].contains(&reach(&partition)));
            assert!(partition.alone.len() <= 2);
        }
        assert!(all(Fault::PartitionHalves).iter().all(|partition| reach(partition) == [2, 2, 3, 3, 3]));
        assert!(all(Fault::PartitionBridge).iter().all(|partition| reach(partition) == [3, 3, 3, 3, 5]));
        assert!(all(Fault::PartitionOnlyOne).iter().all(|partition| reach(partition) == [2, 2, 2, 2, 5]));
    }

    #[test]
    fn every_node_of_a_ring_reaches_another_majority() {
        for partition in all(Fault::PartitionRing) {
            assert_eq!(reach(&partition), [3, 3, 3, 3, 3]);
            let seen = |node: usize| -> BTreeSet<usize> {
                NODES.iter().copied().filter(|to| !partition.cut.contains(&Link { from: node, to: *to })).collect()
            };
            assert_eq!(NODES.map(seen).into_iter().collect::<BTreeSet<_>>().len(), 5);
        }
    }

    #[test]
    fn one_way_partition_cuts_one_direction() {
        for partition in all(Fault::PartitionOneWay) {
            let back = |link: &Link| partition.cut.contains(&Link { from: link.to, to: link.from });
            assert!(partition.cut.len() == 4 && !partition.cut.iter().any(back));
        }
    }

    #[test]
    fn no_partition_without_a_leader_or_with_too_few_nodes() {
        let rng = &mut StdRng::seed_from_u64(1);
        assert_eq!(partition(Fault::PartitionLeader, &NODES, &BTreeSet::new(), rng), None);
        assert_eq!(partition(Fault::PartitionHalves, &[1], &BTreeSet::new(), rng), None);
    }
}
