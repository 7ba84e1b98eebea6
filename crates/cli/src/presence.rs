//! Whether a node that does not respond to this machine is down: the others receive no pings from
//! it. Pure.

use std::collections::BTreeSet;

use crate::survey::{ACTIVE, Survey};

/// A node that sent no ping to any node that responds for this long is down: it has missed three.
const SILENCE_MIN_MS: u32 = 3_000;

/// How a node appears from this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It responds.
    Up,
    /// It does not respond to this machine, but these nodes receive its pings.
    Unreachable(Vec<u64>),
    /// It does not respond, and no node that responds receives its pings.
    Down,
}

impl Survey {
    /// How a node appears from this machine. A node that is not in the cluster is down.
    pub(crate) fn presence(&self, id: u64) -> Presence {
        if self.nodes.iter().any(|(node, status)| node.id == id && status.is_some()) {
            return Presence::Up;
        }
        let receivers = self.receivers(id, SILENCE_MIN_MS);
        if receivers.is_empty() { Presence::Down } else { Presence::Unreachable(receivers) }
    }

    /// Whether a node does not respond, although others receive its pings.
    pub(crate) fn is_unreachable(&self, id: u64) -> bool {
        matches!(self.presence(id), Presence::Unreachable(_))
    }

    /// The nodes of the cluster among these that are down, once each.
    pub(crate) fn down(&self, nodes: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
        let is_known = |id: &u64| self.nodes.iter().any(|(node, _)| node.id == *id);
        nodes.into_iter().filter(|id| is_known(id) && self.presence(*id) == Presence::Down).collect()
    }

    /// Whether the cluster would let a node be given up as dead: no node that responds received a
    /// ping from it lately, and those are a majority of the other active nodes. (The cluster counts
    /// the pings of 10 s, as the nodes report them.)
    pub(crate) fn counts_as_dead(&self, id: u64) -> bool {
        let others = self.nodes.iter().filter(|(node, _)| node.id != id && node.state == ACTIVE);
        let respond = others.clone().filter(|(_, status)| status.is_some()).count();
        2 * respond > others.count() && self.receivers(id, u32::MAX).is_empty()
    }

    /// The nodes that received a ping from a node within this time.
    fn receivers(&self, id: u64, within_ms: u32) -> Vec<u64> {
        let answers = self.nodes.iter().filter_map(|(node, status)| Some((node.id, status.as_ref()?)));
        let received =
            answers.filter(|(_, status)| status.pings.iter().any(|ping| ping.from == id && ping.ago_ms <= within_ms));
        received.map(|(node, _)| node).collect()
    }
}

/// Node ids as a text.
pub(crate) fn listed(nodes: &[u64]) -> String {
    let plural = if nodes.len() == 1 { "node" } else { "nodes" };
    let ids: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    format!("{plural} {}", ids.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::tests::{survey, unreachable};

    /// Three missed pings make a node down; it counts as dead only when the cluster agrees.
    #[test]
    fn node_is_down_when_the_others_miss_its_pings() {
        let mut survey = unreachable(&[3]);
        assert_eq!([1, 2].map(|node| survey.presence(node)), [Presence::Up, Presence::Up]);
        assert_eq!(survey.presence(3), Presence::Unreachable(vec![1, 2]));
        let age = |survey: &mut Survey, ago_ms| {
            for (_, status) in &mut survey.nodes {
                let pings = status.iter_mut().flat_map(|status| &mut status.pings);
                pings.filter(|ping| ping.from == 3).for_each(|ping| ping.ago_ms = ago_ms);
            }
        };
        age(&mut survey, SILENCE_MIN_MS);
        assert!(survey.is_unreachable(3));
        age(&mut survey, SILENCE_MIN_MS + 1);
        assert_eq!(survey.presence(3), Presence::Down);
        assert_eq!(survey.down([1, 3, 3, 9]), BTreeSet::from([3]));
        assert!(!survey.counts_as_dead(3), "the cluster still counts its last pings");
    }

    /// Without answers of a majority of the others, the cluster may know better than this machine.
    #[test]
    fn node_counts_as_dead_only_by_a_majority_of_the_others() {
        assert!(survey(&[3]).counts_as_dead(3));
        assert!(!survey(&[2, 3]).counts_as_dead(3), "one of two others responds");
        assert!(!unreachable(&[3]).counts_as_dead(3));
    }

    #[test]
    fn nodes_are_listed_with_the_right_word() {
        assert_eq!((listed(&[4]).as_str(), listed(&[1, 2]).as_str()), ("node 4", "nodes 1, 2"));
    }
}
