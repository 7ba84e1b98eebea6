//! `node replace`.

use clap::Args;
use quorate_types::NodeId;
use quorate_types::operation::Intent;

use super::dead::DeadArgs;
use crate::change::{Change, Wanted, carry_out};
use crate::confirm::confirm;
use crate::failure::{Exit, Failure};
use crate::output::{self, count};
use crate::survey::Survey;

#[derive(Args, Debug)]
pub(crate) struct ReplaceArgs {
    /// The id of the node that leaves.
    id: u64,
    /// The id of the node that replaces it.
    #[arg(long, value_name = "ID")]
    with: u64,
    #[command(flatten)]
    dead: DeadArgs,
    #[command(flatten)]
    change: Change,
}

/// Moves a node's replicas to another node and removes it. The replicas of a dead node are
/// re-created there.
pub(super) async fn replace(ReplaceArgs { id, with, dead, change }: ReplaceArgs) -> Result<(), Failure> {
    let survey = Survey::take(&change.connect).await?;
    let intent = Intent::Replace { old: NodeId(id), new: NodeId(with), dead: dead.dead };
    let wanted = Wanted { confirm: dead.confirmed(), ..Wanted::now(intent) };
    let done = match dead.dead {
        true => format!("node {id} is replaced and removed"),
        false => format!("node {id} is replaced and removed; it can be stopped"),
    };
    // A repetition after the operation has ended: the cluster knows whether it removed the node.
    if survey.is_removed(id) {
        return carry_out(&change, wanted, &done).await;
    }
    survey.check_node(id)?;
    survey.check_node(with)?;
    if id == with {
        return Err(Failure::new(Exit::Usage, format!("node {id} cannot replace itself"))
            .hint("choose another node: quorate node list"));
    }
    tell!("plan: {}", plan(&survey, id, with, dead.dead));
    if !survey.down([with]).is_empty() {
        tell!("warning: node {with} is down; unless it returns within 30 s, the replicas go to other nodes");
    }
    survey.warn_of_zones(id);
    let question = format!("Replace node {id} with node {with}?");
    match dead.dead {
        true => dead.check(&survey, id, &question, &change)?,
        false => confirm(&question, &change)?,
    }
    carry_out(&change, wanted, &done).await
}

/// The moves of the replacement, and their end.
fn plan(survey: &Survey, id: u64, with: u64, dead: bool) -> String {
    let size = output::bytes(survey.held_bytes(id));
    let (there, elsewhere) = split(survey, id, with);
    let there = count(there, "replica");
    let beside = match elsewhere {
        0 => String::new(),
        some => {
            let some = count(some, "replica");
            let way = if dead { "on" } else { "to" };
            format!(" and {some} {way} other nodes (node {with} already has a replica of the same shard)")
        }
    };
    match dead {
        true => format!(
            "re-create {there} ({size} in total) of node {id} on node {with}{beside}, then remove node {id} \
             permanently; data only on node {id} is lost"
        ),
        false => format!(
            "move {there} ({size} in total) from node {id} to node {with}{beside}, then remove node {id} permanently"
        ),
    }
}

/// The number of replicas that the new node can receive, and of those that must go elsewhere
/// because it already has a replica of their shard.
fn split(survey: &Survey, old: u64, new: u64) -> (usize, usize) {
    let leaving = survey.shards_on(old).count();
    let shared = survey.shards_on(old).filter(|shard| shard.replicas.iter().any(|at| at.node == new)).count();
    (leaving - shared, shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::tests::survey;

    /// The plan once counted replicas whose shard the new node already had.
    #[test]
    fn a_node_receives_only_replicas_of_shards_that_it_does_not_have() {
        let mut survey = survey(&[]);
        assert_eq!(split(&survey, 1, 2), (0, 2));
        survey.topology.shards[0].replicas.retain(|at| at.node != 2);
        assert_eq!(split(&survey, 1, 2), (1, 1));
        assert_eq!(split(&survey, 1, 9), (2, 0));
    }
}
