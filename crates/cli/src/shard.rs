//! `shard`: lists, shows, moves and verifies shards, and transfers their leadership.

use clap::{Args, Subcommand};

use crate::connect::Ask;
use crate::failure::Failure;
use crate::move_replica::MoveArgs;
use crate::output::{self, Format, Kinds};
use crate::shard_row::Shard;
use crate::survey::Survey;
use crate::transfer::{TransferArgs, transfer_leader};
use crate::{signals, verify};

/// Inspect, move and verify shards.
#[derive(Debug, Subcommand)]
pub(crate) enum ShardCommand {
    /// List shards with their arcs, leaders and replicas. An unreachable node is shown as down.
    List(ListArgs),
    /// Show one shard and its replicas.
    Show(ShowArgs),
    /// Move a replica to another node.
    Move(MoveArgs),
    /// Transfer a shard's leadership to another node, whose replica must be up to date. The cluster
    /// later balances the leaders again.
    TransferLeader(TransferArgs),
    /// Compare the states of all replicas at one log index. Exit 8 if they differ.
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
pub(crate) struct VerifyArgs {
    /// The shard's id; by default all shards.
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
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            ShardCommand::List(args) => signals::or_interrupted(list(args)).await,
            ShardCommand::Show(args) => signals::or_interrupted(show(args)).await,
            ShardCommand::Move(args) => args.run().await,
            ShardCommand::TransferLeader(args) => transfer_leader(args).await,
            ShardCommand::Verify(args) => signals::or_interrupted(verify::run(args.id, &args.ask)).await,
        }
    }
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let survey = Survey::take(&args.ask.connect).await?;
    let shards = selected(&survey, args.node)?;
    let format = args.ask.format();
    output::show_all(format, KINDS, shards, |shards| Shard::table(shards, format == Format::Wide))
}

async fn show(args: ShowArgs) -> Result<(), Failure> {
    let survey = Survey::take(&args.ask.connect).await?;
    let shard = Shard::find(&survey, args.id)?;
    let format = args.ask.format();
    output::show(format, KINDS.item, &shard, || Shard::table(std::slice::from_ref(&shard), format == Format::Wide))
}

fn selected(survey: &Survey, node: Option<u64>) -> Result<Vec<Shard>, Failure> {
    let Some(node) = node else { return Ok(Shard::all(survey)) };
    survey.check_node(node)?;
    let on_node = |shard: &Shard| shard.replicas.iter().any(|replica| replica.node == node);
    Ok(Shard::all(survey).into_iter().filter(on_node).collect())
}

const KINDS: Kinds = Kinds { list: "ShardList", item: "Shard" };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::tests::survey;

    #[test]
    fn shards_are_selected_by_node() {
        assert_eq!(selected(&survey(&[]), Some(2)).unwrap().len(), 2);
        let failure = selected(&survey(&[]), Some(9)).unwrap_err();
        assert_eq!(failure.to_string(), "error: the cluster has no node 9\n  hint:  its nodes are 1, 2, 3\n");
    }
}
