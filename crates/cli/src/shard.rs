//! `shard`: the shards of a cluster.

use clap::{Args, Subcommand};

use crate::args::Connect;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format, Items, Output};
use crate::survey::{Replica, Shard, Survey};

/// Inspect shards.
#[derive(Debug, Subcommand)]
pub(crate) enum ShardCommand {
    /// List shards with their arcs, leaders and replicas. A node that does not answer is shown as down.
    List(ListArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Only shards with a replica on this node.
    #[arg(long, value_name = "ID")]
    node: Option<u64>,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    output: Output,
}

impl ShardCommand {
    /// Asks the cluster and prints.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let ShardCommand::List(args) = self;
        let survey = Survey::take(&args.connect).await?;
        let shards = selected(&survey, args.node)?;
        output::print(match args.output.output {
            Format::Json => output::json("ShardList", &Items { items: shards }),
            Format::Table => output::table(HEADER, shards.iter().map(row)),
        })
    }
}

fn selected(survey: &Survey, node: Option<u64>) -> Result<Vec<Shard>, Failure> {
    let Some(node) = node else { return Ok(survey.shards()) };
    if !survey.nodes.iter().any(|(member, _)| member.id == node) {
        let known: Vec<String> = survey.nodes.iter().map(|(member, _)| member.id.to_string()).collect();
        return Err(Failure::new(Exit::Usage, format!("the cluster has no node {node}"))
            .hint(format!("its nodes are {}", known.join(", "))));
    }
    let on_node = |shard: &Shard| shard.replicas.iter().any(|replica| replica.node == node);
    Ok(survey.shards().into_iter().filter(on_node).collect())
}

const HEADER: [&str; 5] = ["SHARD", "ARC", "EPOCH", "LEADER", "REPLICAS"];

fn row(shard: &Shard) -> [String; 5] {
    let replicas: Vec<String> = shard.replicas.iter().map(cell).collect();
    [
        shard.id.to_string(),
        format!("{}..{}", shard.arc_start, shard.arc_end),
        shard.epoch.to_string(),
        shard.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
        replicas.join("  "),
    ]
}

/// A replica in one word: its node, its role, and how far it has applied its log.
fn cell(replica: &Replica) -> String {
    match (replica.applied_index, replica.last_log_index) {
        (Some(applied), Some(last)) => format!("{}:{} {applied}/{last}", replica.node, replica.role),
        _ => format!("{}:{}", replica.node, replica.role),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::survey::tests::survey;

    #[test]
    fn the_table_shows_who_leads_and_who_is_down() {
        let shards = selected(&survey(&[3]), None).unwrap();
        let table = output::table(HEADER, shards.iter().map(row));
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        let arc = "8000000000000000..0000000000000000";
        assert_eq!(words, ["1", arc, "1", "1", "1:leader", "99/100", "2:follower", "98/100", "3:down"]);
    }

    #[test]
    fn json_lists_items_with_ids_as_strings() {
        let items = selected(&survey(&[3]), None).unwrap();
        let document: Value = serde_json::from_str(&output::json("ShardList", &Items { items })).unwrap();
        assert_eq!(document["kind"], "ShardList");
        let shard = &document["items"][0];
        assert_eq!((&shard["id"], &shard["leader"], &shard["epoch"]), (&json!("1"), &json!("1"), &json!(1)));
        let down = json!({
            "replica": "13", "node": "3", "role": "down", "term": null, "applied_index": null, "last_log_index": null,
        });
        assert_eq!(shard["replicas"][2], down);
    }

    #[test]
    fn a_node_that_is_not_there_is_named() {
        assert_eq!(selected(&survey(&[]), Some(2)).unwrap().len(), 2);
        let failure = selected(&survey(&[]), Some(9)).unwrap_err();
        assert_eq!(failure.to_string(), "error: the cluster has no node 9\n  hint:  its nodes are 1, 2, 3\n");
    }
}
