//! A shard as it is printed: its replicas, the leader, and how far each replica has applied its
//! log.

use quorate_proto::kv::{self, Role};
use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::output::{self, id, id_or_null};
use crate::presence::Presence;
use crate::survey::Survey;

/// A shard and its replicas.
#[derive(Debug, Serialize)]
pub(crate) struct Shard {
    #[serde(serialize_with = "id")]
    pub(crate) id: u64,
    /// The first token, as 16 hexadecimal digits.
    pub(crate) arc_start: String,
    /// The first token after the arc.
    pub(crate) arc_end: String,
    pub(crate) epoch: u64,
    /// The approximate size of a replica on disk.
    pub(crate) size_bytes: u64,
    /// The node that leads; null: no leader, or it did not respond.
    #[serde(serialize_with = "id_or_null")]
    pub(crate) leader: Option<u64>,
    pub(crate) replicas: Vec<ReplicaRow>,
}

/// A replica of a shard as its node reports it.
#[derive(Debug, Serialize)]
pub(crate) struct ReplicaRow {
    #[serde(serialize_with = "id")]
    pub(crate) replica: u64,
    #[serde(serialize_with = "id")]
    pub(crate) node: u64,
    /// `leader`, `follower`, `candidate`, `learner` or `stopped`; `doubtful`: it lost log entries
    /// and waits for its replacement; `down`: its node is; `unreachable`: its node is up and does
    /// not respond to this machine; `missing`: its node responded and does not have it.
    pub(crate) role: &'static str,
    pub(crate) term: Option<u64>,
    pub(crate) applied_index: Option<u64>,
    pub(crate) last_log_index: Option<u64>,
    /// The approximate size on disk.
    pub(crate) size_bytes: Option<u64>,
}

impl Shard {
    /// All shards, ordered by id.
    pub(crate) fn all(survey: &Survey) -> Vec<Shard> {
        let mut shards: Vec<Shard> = survey.topology.shards.iter().map(|shard| Shard::of(survey, shard)).collect();
        shards.sort_by_key(|shard| shard.id);
        shards
    }

    /// The shard with this id.
    pub(crate) fn find(survey: &Survey, id: u32) -> Result<Shard, Failure> {
        let found = survey.topology.shards.iter().find(|shard| shard.id == id);
        found.map(|shard| Shard::of(survey, shard)).ok_or_else(|| {
            Failure::new(Exit::Usage, format!("the cluster has no shard {id}"))
                .hint(format!("its shards are 1 to {}", survey.topology.shards.len()))
        })
    }

    fn of(survey: &Survey, shard: &kv::Shard) -> Shard {
        let replicas = shard.replicas.iter().map(|placement| ReplicaRow::of(survey, shard.id, placement)).collect();
        Shard {
            id: u64::from(shard.id),
            arc_start: format!("{:016x}", shard.arc_start),
            arc_end: format!("{:016x}", shard.arc_end),
            epoch: shard.epoch,
            size_bytes: survey.size_bytes(shard.id),
            leader: survey.leader(shard.id),
            replicas,
        }
    }

    /// A table of shards; a wide one has more about each replica.
    pub(crate) fn table(shards: &[Shard], wide: bool) -> String {
        const HEADER: [&str; 6] = ["SHARD", "ARC", "EPOCH", "LEADER", "SIZE", "REPLICAS"];
        output::table(HEADER, shards.iter().map(|shard| shard.row(wide)))
    }

    fn row(&self, wide: bool) -> [String; 6] {
        let cell = if wide { ReplicaRow::wide_cell } else { ReplicaRow::cell };
        let replicas: Vec<String> = self.replicas.iter().map(cell).collect();
        [
            self.id.to_string(),
            format!("{}..{}", self.arc_start, self.arc_end),
            self.epoch.to_string(),
            self.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
            output::bytes(self.size_bytes),
            replicas.join("  "),
        ]
    }
}

impl ReplicaRow {
    fn of(survey: &Survey, group: u32, placement: &kv::Placement) -> Self {
        let report =
            survey.reports(group).find(|(_, report)| report.replica == placement.replica).map(|(_, report)| report);
        let role = match report {
            Some(report) if report.doubtful => "doubtful",
            Some(report) => role_name(report.role()),
            None => match survey.presence(placement.node) {
                Presence::Up => "missing",
                Presence::Unreachable(_) => "unreachable",
                Presence::Down => "down",
            },
        };
        ReplicaRow {
            replica: placement.replica,
            node: placement.node,
            role,
            term: report.map(|report| report.term),
            applied_index: report.map(|report| report.applied_index),
            last_log_index: report.map(|report| report.last_log_index),
            size_bytes: report.map(|report| report.data_bytes),
        }
    }

    /// Node, role, and how far it has applied its log.
    fn cell(&self) -> String {
        match (self.applied_index, self.last_log_index) {
            (Some(applied), Some(last)) => format!("{}:{} {applied}/{last}", self.node, self.role),
            _ => format!("{}:{}", self.node, self.role),
        }
    }

    /// The cell of a wide table: also the replica's id, term and size.
    fn wide_cell(&self) -> String {
        let (term, size) = match (self.term, self.size_bytes) {
            (Some(term), Some(size)) => (format!(" term {term}"), format!(" {}", output::bytes(size))),
            _ => (String::new(), String::new()),
        };
        format!("{} (replica {}{term}{size})", self.cell(), self.replica)
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
        Role::Unspecified => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::survey::tests::{survey, unreachable};

    #[test]
    fn shards_have_their_arcs_and_leaders() {
        let shards = Shard::all(&survey(&[]));
        assert_eq!((shards[0].id, shards[0].leader), (1, Some(1)));
        assert_eq!((shards[1].id, shards[1].leader), (2, Some(2)));
        assert_eq!(shards[1].arc_end, "8000000000000000");
    }

    #[test]
    fn a_shard_without_a_quorum_shows_no_leader() {
        let shards = Shard::all(&survey(&[1, 3]));
        assert_eq!([shards[0].leader, shards[1].leader], [None, None]);
    }

    #[test]
    fn a_missing_replica_is_told_apart_from_a_dead_node() {
        let mut survey = survey(&[]);
        let status = survey.nodes[2].1.as_mut().unwrap();
        status.replicas.retain(|report| report.group != 1);
        assert_eq!(Shard::all(&survey)[0].replicas[2].role, "missing");
        assert_eq!(survey.margin(1).spare, 0);
        assert_eq!(Shard::all(&crate::survey::tests::survey(&[3]))[0].replicas[2].role, "down");
        assert_eq!(Shard::all(&unreachable(&[3]))[0].replicas[2].role, "unreachable");
    }

    #[test]
    fn the_table_shows_leaders_and_nodes_that_are_down() {
        let shards = Shard::all(&survey(&[3]));
        let wide = Shard::table(&shards, true);
        assert!(wide.contains("1:leader 99/100 (replica 11 term 3 3.0 MiB)"), "{wide}");
        let table = Shard::table(&shards, false);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        let arc = "8000000000000000..0000000000000000";
        assert_eq!(words, ["1", arc, "1", "1", "3.0", "MiB", "1:leader", "99/100", "2:follower", "98/100", "3:down"]);
    }

    #[test]
    fn json_lists_items_with_ids_as_strings() {
        let items = Shard::all(&survey(&[3]));
        let document: Value = serde_json::from_str(&output::json("ShardList", &output::Items { items })).unwrap();
        assert_eq!(document["kind"], "ShardList");
        let shard = &document["items"][0];
        assert_eq!((&shard["id"], &shard["leader"], &shard["epoch"]), (&json!("1"), &json!("1"), &json!(1)));
        let down = json!({
            "replica": "13", "node": "3", "role": "down", "term": null, "applied_index": null, "last_log_index": null,
            "size_bytes": null,
        });
        assert_eq!(shard["replicas"][2], down);
    }
}
