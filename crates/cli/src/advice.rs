//! Advice to the operator: how to get a node back that does not respond, and warnings before a
//! change.

use quorate_proto::admin::Node;

use crate::presence::{Presence, listed};
use crate::survey::{ACTIVE, DRAINING, Survey};

impl Survey {
    /// The next step for a node that does not respond.
    pub(crate) fn way_back(&self, node: &Node) -> String {
        let Node { id, client_address, .. } = node;
        if let Presence::Unreachable(receivers) = self.presence(*id) {
            let (receive, them) = (listed(&receivers), if receivers.len() == 1 { "receives" } else { "receive" });
            return format!(
                "node {id} is up: {receive} {them} its pings; repair the network between this machine and {client_address}"
            );
        }
        if self.is_drained(*id) {
            return format!("node {id} is drained and stopped: quorate node remove {id}");
        }
        // Removing it as dead would be refused, and its replicas cannot move.
        if !self.without_quorum().is_empty() {
            return format!("restart node {id}: shards without a quorum need it");
        }
        if node.state == DRAINING {
            return format!("node {id} is draining, which continues while it is down: quorate op list");
        }
        if !self.counts_as_dead(*id) {
            return format!("restart node {id}, it catches up automatically");
        }
        let dead = format!("quorate node remove {id} --dead --confirm {client_address}");
        let dead = match self.can_do_without(*id) {
            true => dead,
            false => format!("start another node with --join, then: {dead}"),
        };
        match self.strangers.contains(id) {
            true => format!("the process at {client_address} is not node {id}; if node {id} lost its data: {dead}"),
            false => format!("restart node {id}, it catches up automatically; if it is lost for good: {dead}"),
        }
    }

    /// Whether the other nodes suffice for the replicas of every shard. Otherwise the node can be
    /// neither drained nor removed.
    pub(crate) fn can_do_without(&self, id: u64) -> bool {
        let takes = |node: &&Node| node.id != id && node.state == ACTIVE && node.weight > 0;
        self.topology.nodes.iter().filter(takes).count() >= self.topology.replicas as usize
    }

    /// Warns of targets that are down.
    pub(crate) fn warn_of_down(&self, targets: impl IntoIterator<Item = u64>) {
        for node in self.down(targets) {
            tell!("warning: {}", down_target(node));
        }
    }

    /// Warns of shards that cannot move because they have no quorum.
    pub(crate) fn warn_of_lost_quorums(&self) {
        let lost: Vec<String> = self.without_quorum().iter().map(ToString::to_string).collect();
        if !lost.is_empty() {
            tell!("warning: shards {} have no quorum and cannot move until they regain it", lost.join(", "));
        }
    }

    /// Warns if the replicas of a shard can no longer be in distinct zones once a node has left.
    pub(crate) fn warn_of_zones(&self, leaving: u64) {
        if let Some(scarce) = self.scarce_zones(Some(leaving)) {
            tell!("warning: {scarce}; they will be spread as far as possible");
        }
    }
}

/// The consequence for moves whose target is down.
pub(crate) fn down_target(node: u64) -> String {
    format!("node {node} is down; moves to it wait until it responds")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::tests::{survey, unreachable};

    /// A node that was drained and stopped is not to be restarted, and neither is one that lost its
    /// data.
    #[test]
    fn the_next_step_for_a_node_that_is_down_fits_its_state() {
        let mut survey = survey(&[3]);
        let way = |survey: &Survey| survey.way_back(&survey.nodes[2].0.clone());
        assert!(way(&survey).starts_with("restart node 3, it catches up automatically"), "{}", way(&survey));
        let dead = "quorate node remove 3 --dead --confirm 127.0.0.1:7120";
        assert!(way(&survey).ends_with(&format!("start another node with --join, then: {dead}")));
        let fourth = Node { id: 4, ..survey.topology.nodes[0].clone() };
        survey.topology.nodes.push(fourth);
        assert!(way(&survey).ends_with(&format!("if it is lost for good: {dead}")), "{}", way(&survey));
        survey.strangers.insert(3);
        assert!(way(&survey).starts_with("the process at 127.0.0.1:7120 is not node 3"), "{}", way(&survey));
        for state in [&mut survey.topology.nodes[2].state, &mut survey.nodes[2].0.state] {
            *state = DRAINING.into();
        }
        assert!(!survey.is_drained(3), "it holds replicas");
        let draining = "node 3 is draining, which continues while it is down";
        assert!(way(&survey).starts_with(draining), "{}", way(&survey));
        for shard in &mut survey.topology.shards {
            shard.replicas.retain(|at| at.node != 3);
        }
        survey.topology.topology_replicas.retain(|at| at.node != 3);
        assert_eq!(way(&survey), "node 3 is drained and stopped: quorate node remove 3");
    }

    /// Only this machine does not reach the node: nothing is proposed that the cluster refuses.
    #[test]
    fn advice_for_a_living_node_is_about_the_network() {
        let mut survey = unreachable(&[3]);
        let way = |survey: &Survey| survey.way_back(&survey.nodes[2].0.clone());
        let network = "node 3 is up: nodes 1, 2 receive its pings; repair the network between this machine and";
        assert_eq!(way(&survey), format!("{network} 127.0.0.1:7120"));
        for (_, status) in &mut survey.nodes {
            status.iter_mut().flat_map(|status| &mut status.pings).for_each(|ping| ping.ago_ms = 9_000);
        }
        assert_eq!(way(&survey), "restart node 3, it catches up automatically", "its last pings still count");
    }
}
