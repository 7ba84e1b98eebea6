//! `node remove`.

use clap::Args;
use quorate_types::NodeId;
use quorate_types::operation::Intent;

use super::dead::DeadArgs;
use crate::change::{Change, Wanted, carry_out};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::output::count;
use crate::survey::Survey;

#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    /// The node's id.
    id: u64,
    #[command(flatten)]
    dead: DeadArgs,
    #[command(flatten)]
    change: Change,
}

/// Removes a node permanently.
pub(super) async fn remove(RemoveArgs { id, dead, change }: RemoveArgs) -> Result<(), Failure> {
    let survey = Survey::take(&change.connect).await?;
    let removed = survey.is_removed(id);
    if !removed {
        survey.check_node(id)?;
    }
    if dead.dead {
        let replicas = count(survey.shards_on(id).count(), "replica");
        tell!("plan: re-create {replicas} elsewhere, then remove node {id}; data only on node {id} is lost");
    } else {
        tell!("plan: remove node {id} permanently; its id is never reused");
    }
    survey.warn_of_zones(id);
    let question = format!("Remove node {id}?");
    if dead.dead && !removed {
        dead.check(&survey, id, &question, &change)?;
    } else if !removed {
        confirm(&question, &change)?;
    }
    let intent = Intent::Remove { node: NodeId(id), dead: dead.dead };
    let wanted = Wanted { confirm: dead.confirmed(), ..Wanted::now(intent) };
    carry_out(&change, wanted, &format!("node {id} is removed")).await
}
