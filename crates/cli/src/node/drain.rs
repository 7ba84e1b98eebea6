//! `node drain`, `node undrain`.

use clap::Args;
use quorate_types::NodeId;
use quorate_types::operation::Intent;

use crate::change::{Change, Wanted, carry_out};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::output::{self, count};
use crate::survey::Survey;

#[derive(Args, Debug)]
pub(crate) struct OneArgs {
    /// The node's id.
    id: u64,
    #[command(flatten)]
    change: Change,
}

/// Moves a node's replicas to other nodes.
pub(super) async fn drain(OneArgs { id, change }: OneArgs) -> Result<(), Failure> {
    let survey = Survey::take(&change.connect).await?;
    survey.check_node(id)?;
    let leaders = count(survey.shards_led_by(id), "leader");
    let replicas = count(survey.shards_on(id).count(), "replica");
    let size = output::bytes(survey.held_bytes(id));
    let quorums = if survey.without_quorum().is_empty() { "; every shard keeps its quorum" } else { "" };
    tell!("plan: transfer {leaders}, move {replicas} ({size}) away from node {id}{quorums}");
    survey.warn_of_lost_quorums();
    survey.warn_of_zones(id);
    confirm(&format!("Drain node {id}?"), &change)?;
    let done = format!("node {id} is drained and can be stopped.  next: quorate node remove {id}");
    carry_out(&change, Wanted::now(Intent::Drain { node: NodeId(id) }), &done).await
}

/// Cancels a drain.
pub(super) async fn undrain(OneArgs { id, change }: OneArgs) -> Result<(), Failure> {
    let survey = Survey::take(&change.connect).await?;
    survey.check_node(id)?;
    if change.dry_run {
        tell!("plan: node {id} keeps its replicas and receives new ones again");
    }
    // Replicas that moved away return only with a rebalance.
    let empty = survey.shards_on(id).next().is_none();
    let next = if empty { " and has no replicas.  next: quorate rebalance apply" } else { "" };
    carry_out(&change, Wanted::now(Intent::Undrain { node: NodeId(id) }), &format!("node {id} is active{next}")).await
}
