//! `shard`: the shards of a cluster: listed, shown, moved, led by another, compared replica by replica.

use clap::{Args, Subcommand};

use quorate_proto::admin::TransferLeaderRequest;
use quorate_types::operation::{Intent, PlannedMove};
use quorate_types::{NodeId, ShardId};
use serde::Serialize;

use crate::args::Ask;
use crate::failure::{Exit, Failure};
use crate::nodes::warn_of_silence;
use crate::operation::{Change, carry_out, confirm, unknown_or_refused};
use crate::output::{self, Format, Kinds, id};
use crate::survey::{Replica, Shard, Survey};
use crate::{admin, signals, verify};

/// Inspect shards.
#[derive(Debug, Subcommand)]
pub(crate) enum ShardCommand {
    /// List shards with their arcs, leaders and replicas. A node that does not answer is shown as down.
    List(ListArgs),
    /// Show one shard: its members, how far each is, and what moves.
    Show(ShowArgs),
    /// Move a replica to another node.
    Move(MoveArgs),
    /// Let another replica of a shard lead. It must have caught up and answer. The cluster spreads leaders evenly again by and by.
    TransferLeader(TransferArgs),
    /// Compare the states of all replicas at one index. Exit 8 if they differ.
    Verify(VerifyArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// The shard's id.
    id: u32,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Args, Debug)]
pub(crate) struct MoveArgs {
    /// The shard's id.
    id: u32,
    /// The node that gives its replica away.
    #[arg(long, value_name = "NODE")]
    from: u64,
    /// The node that gets it.
    #[arg(long, value_name = "NODE")]
    to: u64,
    #[command(flatten)]
    change: Change,
}

#[derive(Args, Debug)]
pub(crate) struct TransferArgs {
    /// The shard's id.
    id: u32,
    /// The node that is to lead.
    #[arg(long, value_name = "NODE")]
    to: u64,
    #[command(flatten)]
    ask: Ask,
}

/// A shard, and who leads it.
#[derive(Serialize)]
struct Led {
    #[serde(serialize_with = "id")]
    id: u64,
    #[serde(serialize_with = "id")]
    leader: u64,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The shard's id; without one all shards.
    id: Option<u32>,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Only shards with a replica on this node.
    #[arg(long, value_name = "ID")]
    node: Option<u64>,
    #[command(flatten)]
    ask: Ask,
}

impl ShardCommand {
    /// Asks the cluster and prints, or changes it.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            ShardCommand::List(args) => signals::or_interrupted(list(args)).await,
            ShardCommand::Show(args) => signals::or_interrupted(show(args)).await,
            ShardCommand::Move(args) => move_replica(args).await,
            ShardCommand::TransferLeader(args) => transfer_leader(args).await,
            ShardCommand::Verify(args) => signals::or_interrupted(verify::run(args.id, &args.ask)).await,
        }
    }
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let survey = Survey::take(&args.ask.connect).await?;
    let shards = selected(&survey, args.node)?;
    let format = args.ask.format();
    output::show_all(format, KINDS, shards, |shards| table(shards, format == Format::Wide))
}

async fn show(args: ShowArgs) -> Result<(), Failure> {
    let survey = Survey::take(&args.ask.connect).await?;
    let shard = known(&survey, args.id)?;
    let format = args.ask.format();
    output::show(format, KINDS.item, &shard, || table(std::slice::from_ref(&shard), format == Format::Wide))
}

async fn move_replica(MoveArgs { id, from, to, change }: MoveArgs) -> Result<(), Failure> {
    let survey = Survey::take(&change.connect).await?;
    known(&survey, id)?;
    if from == to {
        return Err(Failure::new(Exit::Usage, format!("node {from} is both where it is and where it should go"))
            .hint("name two nodes: quorate node list"));
    }
    tell!("plan: a new replica of shard {id} on node {to} catches up and votes, then the one on node {from} leaves");
    warn_of_silence(&survey, [to]);
    confirm(&format!("Move shard {id} from node {from} to node {to}?"), &change)?;
    let planned = PlannedMove { shard: ShardId(id), from: NodeId(from), to: NodeId(to) };
    carry_out(&change, Intent::Move { planned }, 0, &format!("shard {id} is on node {to}")).await
}

async fn transfer_leader(TransferArgs { id, to, ask }: TransferArgs) -> Result<(), Failure> {
    let connect = &ask.connect;
    let led = |text: String| output::show(ask.format(), "Leadership", &Led { id: u64::from(id), leader: to }, || text);
    let survey = Survey::take(connect).await?;
    let shard = known(&survey, id)?;
    if shard.leader == Some(to) {
        return led(format!("already so: node {to} leads shard {id}\n"));
    }
    let leader = survey.claims_to_lead(id).and_then(|leader| survey.nodes.iter().find(|(node, _)| node.id == leader));
    let Some((leader, _)) = leader else {
        return Err(Failure::new(Exit::Unreachable, format!("nobody leads shard {id} just now")).hint("quorate status"));
    };
    let unreachable = |status: tonic::Status| {
        Failure::new(Exit::Unreachable, format!("node {} does not answer", leader.id)).cause(status.message())
    };
    let mut node = admin::connect(&leader.client_address, connect.deadline).await.map_err(unreachable)?;
    let request = TransferLeaderRequest { shard: id, to_node: to };
    let who = format!("node {}", leader.id);
    let asked = node.transfer_leader(tonic::Request::new(request));
    let hint = format!("see who leads it now: quorate shard show {id}");
    let done = signals::or_unknown_value(&hint, admin::timely(&who, connect.deadline, asked)).await?;
    done.map_err(|status| unknown_or_refused(format!("cannot let node {to} lead shard {id}"), &status, &hint))?;
    led(format!("✓ node {to} leads shard {id}\n"))
}

fn known(survey: &Survey, id: u32) -> Result<Shard, Failure> {
    survey.shards().into_iter().find(|shard| shard.id == u64::from(id)).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("the cluster has no shard {id}"))
            .hint(format!("its shards are 1 to {}", survey.topology.shards.len()))
    })
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

const KINDS: Kinds = Kinds { list: "ShardList", item: "Shard" };
const HEADER: [&str; 6] = ["SHARD", "ARC", "EPOCH", "LEADER", "SIZE", "REPLICAS"];

fn table(shards: &[Shard], wide: bool) -> String {
    output::table(HEADER, shards.iter().map(|shard| row(shard, wide)))
}

fn row(shard: &Shard, wide: bool) -> [String; 6] {
    let replicas: Vec<String> = shard.replicas.iter().map(if wide { wide_cell } else { cell }).collect();
    [
        shard.id.to_string(),
        format!("{}..{}", shard.arc_start, shard.arc_end),
        shard.epoch.to_string(),
        shard.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
        output::bytes(shard.size_bytes),
        replicas.join("  "),
    ]
}

/// As [`cell`], with the replica's id, its term and its size.
fn wide_cell(replica: &Replica) -> String {
    let (term, size) = match (replica.term, replica.size_bytes) {
        (Some(term), Some(size)) => (format!(" term {term}"), format!(" {}", output::bytes(size))),
        _ => Default::default(),
    };
    format!("{} (replica {}{term}{size})", cell(replica), replica.replica)
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
        let wide = table(&shards, true);
        assert!(wide.contains("1:leader 99/100 (replica 11 term 3 3.0 MiB)"), "{wide}");
        let table = table(&shards, false);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        let arc = "8000000000000000..0000000000000000";
        assert_eq!(words, ["1", arc, "1", "1", "3.0", "MiB", "1:leader", "99/100", "2:follower", "98/100", "3:down"]);
    }

    #[test]
    fn json_lists_items_with_ids_as_strings() {
        let items = selected(&survey(&[3]), None).unwrap();
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

    #[test]
    fn a_node_that_is_not_there_is_named() {
        assert_eq!(selected(&survey(&[]), Some(2)).unwrap().len(), 2);
        let failure = selected(&survey(&[]), Some(9)).unwrap_err();
        assert_eq!(failure.to_string(), "error: the cluster has no node 9\n  hint:  its nodes are 1, 2, 3\n");
    }
}
