//! `node remove`.

use clap::Args;
use quorate_types::NodeId;
use quorate_types::operation::Intent;

use crate::change::{Change, carry_out, confirm};
use crate::failure::{Exit, Failure};
use crate::output::count;
use crate::survey::Survey;

#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    /// The node's id.
    id: u64,
    /// The node is lost for good: its replicas are re-created on other nodes.
    #[arg(long, requires = "confirm")]
    dead: bool,
    /// The node's client address, as a safeguard against the wrong id.
    #[arg(long, value_name = "HOST:PORT", requires = "dead")]
    confirm: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// Removes a node permanently.
pub(super) async fn remove(RemoveArgs { id, dead, confirm: typed, change }: RemoveArgs) -> Result<(), Failure> {
    let survey = Survey::take(&change.connect).await?;
    let removed = survey.is_removed(id);
    if !removed {
        survey.check_node(id)?;
    }
    if dead {
        let replicas = count(survey.shards_on(id).count(), "replica");
        tell!("plan: re-create {replicas} elsewhere, then remove node {id}; data only on node {id} is lost");
    } else {
        tell!("plan: remove node {id} permanently; its id is never reused");
    }
    survey.warn_of_zones(id);
    if dead && !removed {
        check_dead(&survey, id, typed.as_deref().unwrap_or_default())?;
    } else if !removed {
        confirm(&format!("Remove node {id}?"), &change)?;
    }
    let intent = Intent::Remove { node: NodeId(id), dead };
    carry_out(&change, intent, 0, &format!("node {id} is removed")).await
}

/// Checks that a node may be removed as dead: it is unreachable, the user typed its address, and no
/// shard depends on its data.
fn check_dead(survey: &Survey, id: u64, typed: &str) -> Result<(), Failure> {
    let (node, status) = survey.nodes.iter().find(|(node, _)| node.id == id).expect("the caller checked the id");
    if status.is_some() {
        return Err(Failure::new(Exit::Refused, format!("cannot remove node {id} as dead"))
            .cause(format!("it responds at {}", node.client_address))
            .hint(match survey.can_do_without(id) {
                true => format!("drain it, then remove it: quorate node drain {id}"),
                false => format!("start another node with --join, then drain this one: quorate node drain {id}"),
            }));
    }
    if typed != node.client_address {
        return Err(Failure::new(Exit::Usage, format!("node {id} is at {}, not at '{typed}'", node.client_address))
            .hint(format!("to confirm, pass its address: --confirm {}", node.client_address)));
    }
    let stuck = survey.shards_on(id).filter(|shard| survey.margin(shard.id).spare < 0);
    let stuck: Vec<String> = stuck.map(|shard| shard.id.to_string()).collect();
    if stuck.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("cannot remove node {id}"))
        .cause(format!("shards {} have no quorum; node {id} may have the only copy of their data", stuck.join(", ")))
        .hint("restart the nodes that are down first: quorate status"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::tests::survey;

    #[test]
    fn only_an_unreachable_node_is_removed_as_dead_and_only_by_its_address() {
        let refused = |down: &[u64], typed| check_dead(&survey(down), 3, typed).unwrap_err();
        let alive = refused(&[], "127.0.0.1:7120");
        assert_eq!(alive.exit(), Exit::Refused);
        assert!(alive.to_string().contains("it responds at 127.0.0.1:7120"), "{alive}");
        let wrong = refused(&[3], "127.0.0.1:7100");
        assert_eq!(wrong.exit(), Exit::Usage);
        assert!(wrong.to_string().contains("--confirm 127.0.0.1:7120"), "{wrong}");
        let last = refused(&[1, 3], "127.0.0.1:7120");
        assert_eq!(last.exit(), Exit::Refused);
        assert!(last.to_string().contains("shards 1, 2 have no quorum"), "{last}");
        assert!(check_dead(&survey(&[3]), 3, "127.0.0.1:7120").is_ok());
    }
}
