//! Advice on zones: replicas that share a zone without need, and zones that are too few.

use std::collections::BTreeSet;

use crate::survey::{ACTIVE, Survey};

impl Survey {
    /// Shards whose replicas are in fewer zones than the active nodes allow.
    pub(crate) fn crowded_shards(&self) -> Vec<u32> {
        let zone = |id: u64| self.nodes.iter().find(|(node, _)| node.id == id).map(|(node, _)| node.zone.as_str());
        let active = self.nodes.iter().filter(|(node, _)| node.state == ACTIVE);
        let zones: BTreeSet<&str> = active.map(|(node, _)| node.zone.as_str()).collect();
        let crowded = self.topology.shards.iter().filter(|shard| {
            let used: BTreeSet<&str> = shard.replicas.iter().filter_map(|at| zone(at.node)).collect();
            used.len() < zones.len().min(shard.replicas.len())
        });
        crowded.map(|shard| shard.id).collect()
    }

    /// A warning if nodes have zones, but too few for the replicas of a shard to be in distinct
    /// ones. `without` is a node that is about to leave.
    pub(crate) fn scarce_zones(&self, without: Option<u64>) -> Option<String> {
        let staying = self.nodes.iter().filter(|(node, _)| node.state == ACTIVE && Some(node.id) != without);
        let zones: BTreeSet<&str> = staying.map(|(node, _)| node.zone.as_str()).collect();
        let replicas = self.topology.replicas;
        if zones.iter().all(|zone| zone.is_empty()) || zones.len() >= replicas as usize {
            return None;
        }
        let named = |zone: &&str| if zone.is_empty() { "no zone".to_owned() } else { (*zone).to_owned() };
        let named: Vec<String> = zones.iter().map(named).collect();
        let leaving = without.map(|id| format!(" without node {id}")).unwrap_or_default();
        Some(format!(
            "the {replicas} replicas of a shard cannot be in distinct zones: the active nodes{leaving} are in {} ({})",
            if zones.len() == 1 { "one zone".to_owned() } else { format!("{} zones", zones.len()) },
            named.join(", ")
        ))
    }

    /// The zones of the nodes.
    pub(crate) fn zones(&self) -> BTreeSet<&str> {
        self.nodes.iter().map(|(node, _)| node.zone.as_str()).filter(|zone| !zone.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::tests::survey;

    #[test]
    fn too_few_zones_are_reported_only_if_nodes_have_zones() {
        let mut survey = survey(&[]);
        assert_eq!(survey.scarce_zones(None), None, "no node has a zone");
        let name = |survey: &mut Survey, zones: [&str; 3]| {
            for ((node, _), zone) in survey.nodes.iter_mut().zip(zones) {
                node.zone = zone.to_owned();
            }
        };
        name(&mut survey, ["a", "b", "c"]);
        assert_eq!(survey.scarce_zones(None), None);
        assert!(
            survey.scarce_zones(Some(3)).unwrap().ends_with("the active nodes without node 3 are in 2 zones (a, b)")
        );
        name(&mut survey, ["a", "a", "a"]);
        assert!(survey.scarce_zones(None).unwrap().ends_with("the active nodes are in one zone (a)"));
        name(&mut survey, ["a", "", ""]);
        assert!(survey.scarce_zones(None).unwrap().contains("(no zone, a)"));
        assert_eq!(survey.zones().len(), 1);
    }
}
