//! A plan of moves: printed, written to a file as JSON, and read back.

use std::path::Path;

use quorate_types::operation::PlannedMove;
use serde::{Deserialize, Serialize};

use crate::advice::down_target;
use crate::failure::{Exit, Failure};
use crate::output::{self, count};
use crate::survey::Survey;

/// A plan as it is printed and read.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The cluster of the plan.
    #[serde(default)]
    cluster_id: String,
    /// The revision of the topology at which it was planned.
    pub(crate) revision: u64,
    pub(crate) moves: Vec<SizedMove>,
    /// The approximate bytes of all moves.
    #[serde(default)]
    size_bytes: u64,
    /// Warnings for the operator.
    #[serde(default)]
    warnings: Vec<String>,
}

/// The file of a plan.
#[derive(Deserialize)]
struct Document {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    #[serde(flatten)]
    plan: Plan,
}

/// A move and its approximate size.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SizedMove {
    #[serde(flatten)]
    planned: PlannedMove,
    #[serde(default)]
    size_bytes: u64,
}

impl Plan {
    /// The kind of the JSON document.
    pub(crate) const KIND: &'static str = "RebalancePlan";

    /// Reads a plan from its file.
    pub(crate) fn read(file: &Path) -> Result<Plan, Failure> {
        let bad = |error: &dyn std::fmt::Display| {
            Failure::new(Exit::Usage, format!("cannot read the plan {}", file.display()))
                .cause(error)
                .hint("create a plan: quorate rebalance plan -o json > FILE")
        };
        let text = std::fs::read_to_string(file).map_err(|error| bad(&error))?;
        let document: Document = serde_json::from_str(&text).map_err(|error| bad(&error))?;
        if document.kind != Self::KIND || document.api_version != output::API_VERSION {
            let Document { api_version, kind, .. } = document;
            return Err(bad(&format!(
                "it is a {} of {}, not a {} of {}",
                kind.escape_debug(),
                api_version.escape_debug(),
                Self::KIND,
                output::API_VERSION
            )));
        }
        // The cluster accepts revision 0 without comparing it with its own.
        match document.plan.revision {
            0 => Err(bad(&"its revision is 0, which never exists")),
            _ => Ok(document.plan),
        }
    }

    /// A plan of the leader, with sizes and warnings from the survey.
    pub(crate) fn new(revision: u64, moves: Vec<PlannedMove>, survey: &Survey) -> Plan {
        let sized = |planned: PlannedMove| SizedMove { planned, size_bytes: survey.size_bytes(planned.shard.0) };
        let moves: Vec<SizedMove> = moves.into_iter().map(sized).collect();
        let size_bytes = moves.iter().map(|sized| sized.size_bytes).sum();
        let down = survey.down(moves.iter().map(|sized| sized.planned.to.0));
        let warnings = survey.scarce_zones(None).into_iter().chain(down.into_iter().map(down_target)).collect();
        Plan { cluster_id: survey.topology.cluster_id.clone(), revision, moves, size_bytes, warnings }
    }

    /// Refuses the plan of another cluster, whose nodes, shards and revisions have the same
    /// numbers.
    pub(crate) fn check_cluster(&self, survey: &Survey) -> Result<(), Failure> {
        let own = &survey.topology.cluster_id;
        if self.cluster_id == *own {
            return Ok(());
        }
        let planned_for = if self.cluster_id.is_empty() { "no cluster" } else { &self.cluster_id };
        Err(Failure::new(Exit::Refused, "the plan is for another cluster")
            .cause(format!("it was created for {}, this is {own}", planned_for.escape_debug()))
            .hint("create a plan: quorate rebalance plan -o json > FILE"))
    }

    /// The moves, the sum of their sizes and the warnings, for people.
    pub(crate) fn screen(&self) -> String {
        let row = |SizedMove { planned: PlannedMove { shard, from, to }, size_bytes }: &SizedMove| {
            [shard.to_string(), from.to_string(), to.to_string(), output::bytes(*size_bytes)]
        };
        let warnings: String = self.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
        format!(
            "{}{} to move, {} in total (planned at revision {})\n{warnings}",
            output::table(["SHARD", "FROM", "TO", "SIZE"], self.moves.iter().map(row)),
            count(self.moves.len(), "replica"),
            output::bytes(self.size_bytes),
            self.revision,
        )
    }

    /// The moves without their sizes.
    pub(crate) fn into_moves(self) -> Vec<PlannedMove> {
        self.moves.into_iter().map(|sized| sized.planned).collect()
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{NodeId, ShardId};

    use super::*;
    use crate::survey::tests::survey;

    /// A plan of revision 0 was once applied to a changed cluster, and so were other documents.
    #[test]
    fn a_file_that_is_no_plan_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plan");
        let moves = r#""moves": [{"shard": 1, "from": 1, "to": 4}]"#;
        for (head, exit) in [
            (r#""apiVersion": "quorate/v1", "kind": "RebalancePlan", "revision": 7"#, None),
            (r#""apiVersion": "quorate/v1", "kind": "RebalancePlan", "revision": 0"#, Some(Exit::Usage)),
            (r#""apiVersion": "quorate/v2", "kind": "RebalancePlan", "revision": 7"#, Some(Exit::Usage)),
            (r#""apiVersion": "quorate/v1", "kind": "Shard", "revision": 7"#, Some(Exit::Usage)),
            (r#""revision": 7"#, Some(Exit::Usage)),
        ] {
            std::fs::write(&file, format!("{{{head}, {moves}}}")).unwrap();
            assert_eq!(Plan::read(&file).err().map(|failure| failure.exit()), exit, "{head}");
        }
    }

    /// The file of a plan is read back as it was written, and so is one without sizes.
    #[test]
    fn a_plan_has_the_bytes_of_each_move_and_their_sum() {
        let moves = [(1, 1, 4), (2, 3, 4)].map(|(shard, from, to)| PlannedMove {
            shard: ShardId(shard),
            from: NodeId(from),
            to: NodeId(to),
        });
        let plan = Plan::new(7, moves.to_vec(), &survey(&[]));
        assert_eq!(plan.size_bytes, 9 << 20);
        let screen = plan.screen();
        assert!(screen.contains(" 1      1     4   3.0 MiB\n"), "{screen}");
        assert!(screen.ends_with("2 replicas to move, 9.0 MiB in total (planned at revision 7)\n"), "{screen}");

        let read: Plan = serde_json::from_str(&output::json(Plan::KIND, &plan)).unwrap();
        assert_eq!(read.moves[1].planned, moves[1]);
        read.check_cluster(&survey(&[])).unwrap();
        let old = r#"{"revision": 7, "moves": [{"shard": 1, "from": 1, "to": 4}]}"#;
        let read: Plan = serde_json::from_str(old).unwrap();
        assert_eq!((read.moves[0].planned, read.size_bytes), (moves[0], 0));
        assert_eq!(
            read.check_cluster(&survey(&[])).unwrap_err().exit(),
            Exit::Refused,
            "it may be for another cluster"
        );
    }
}
