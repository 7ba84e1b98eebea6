//! `shard move`: moves one replica of a shard to another node.

use clap::Args;
use quorate_types::operation::{Intent, PlannedMove};
use quorate_types::{NodeId, ShardId};

use crate::change::{Change, Wanted, carry_out};
use crate::confirm::confirm;
use crate::failure::{Exit, Failure};
use crate::shard_row::Shard;
use crate::survey::Survey;

#[derive(Args, Debug)]
pub(crate) struct MoveArgs {
    /// The shard's id.
    id: u32,
    /// The node that the replica is moved from.
    #[arg(long, value_name = "NODE")]
    from: u64,
    /// The node that the replica is moved to.
    #[arg(long, value_name = "NODE")]
    to: u64,
    #[command(flatten)]
    change: Change,
}

impl MoveArgs {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let MoveArgs { id, from, to, change } = self;
        let survey = Survey::take(&change.connect).await?;
        Shard::find(&survey, id)?;
        if from == to {
            return Err(Failure::new(Exit::Usage, "--from and --to are the same node")
                .hint("choose another node: quorate node list"));
        }
        tell!(
            "plan: add a replica of shard {id} on node {to}, then remove the one on node {from} once the new one votes"
        );
        survey.warn_of_down([to]);
        confirm(&format!("Move shard {id} from node {from} to node {to}?"), &change)?;
        let planned = PlannedMove { shard: ShardId(id), from: NodeId(from), to: NodeId(to) };
        carry_out(&change, Wanted::now(Intent::Move { planned }), &format!("shard {id} is on node {to}")).await
    }
}
