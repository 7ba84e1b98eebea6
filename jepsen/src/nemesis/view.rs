//! The state of the cluster at the moment when a fault is planned.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::admin::NodeStatus;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};

use super::refusal::Skip;
use crate::cluster::leaders_of;

/// The state of the cluster at the moment when a fault is planned.
pub(super) struct View {
    /// The status of every node that answers.
    pub(super) statuses: BTreeMap<usize, NodeStatus>,
    /// Nodes that are members of the cluster.
    pub(super) members: Vec<usize>,
    /// Running members that are not the target of an active fault, network faults aside.
    pub(super) free: Vec<usize>,
}

impl View {
    /// Nodes that lead a group.
    pub(super) fn leading(&self) -> BTreeSet<usize> {
        leaders_of(&self.statuses).into_values().collect()
    }

    /// At least one and at most `count` free nodes.
    pub(super) fn some(&self, count: usize, rng: &mut StdRng) -> Result<Vec<usize>, Skip> {
        let mut chosen = self.free.iter().copied().sample(rng, count.max(1));
        chosen.sort_unstable();
        if chosen.is_empty() { Err(Skip::NoFreeNode) } else { Ok(chosen) }
    }

    /// One free node.
    pub(super) fn one(&self, rng: &mut StdRng) -> Result<usize, Skip> {
        self.free.choose(rng).copied().ok_or(Skip::NoFreeNode)
    }

    /// A free node that will be asked for its vote when the leadership of a shard is transferred:
    /// the voter, the shard, and the id of the candidate. Of the shard's three replicas, one leads
    /// and one is the candidate.
    pub(super) fn voter(&self, rng: &mut StdRng) -> Option<(usize, u32, u64)> {
        let shards = leaders_of(&self.statuses).into_iter().filter(|(group, _)| *group > 0);
        let asked = shards.filter_map(|(shard, leader)| {
            let free = self.statuses.iter().filter(|(number, _)| self.free.contains(number));
            let followers = free.filter(|(number, status)| **number != leader && holds(status, shard));
            let followers: Vec<_> = followers.map(|(number, status)| (*number, status.id)).collect();
            (followers.len() > 1).then_some((shard, followers))
        });
        let (shard, followers) = asked.choose(rng)?;
        let mut two = followers.into_iter().sample(rng, 2).into_iter();
        let ((voter, _), (_, candidate)) = (two.next()?, two.next()?);
        Some((voter, shard, candidate))
    }

    /// Whether the binary has fail points: only test builds do, and their version says so. `None`
    /// if no node answers.
    pub(super) fn has_fail_points(&self) -> Option<bool> {
        let any = self.statuses.values().any(|status| status.version.ends_with("+bugs"));
        (!self.statuses.is_empty()).then_some(any)
    }
}

/// Whether a node has a replica of a group.
pub(super) fn holds(status: &NodeStatus, group: u32) -> bool {
    status.replicas.iter().any(|replica| replica.group == group)
}
