//! Giving up a node as dead: its flags, and the checks before the cluster judges.

use clap::Args;

use crate::change::Change;
use crate::confirm::confirm;
use crate::failure::{Exit, Failure};
use crate::presence::{Presence, listed};
use crate::survey::Survey;

#[derive(Args, Debug)]
pub(super) struct DeadArgs {
    /// The node is lost for good: its replicas are re-created from the remaining ones. Refused
    /// while a majority of the other active nodes receives its pings.
    #[arg(long)]
    pub(super) dead: bool,
    /// The client address of the dead node: confirms its loss although some nodes received its
    /// pings within the last 10 s, and without a question.
    #[arg(long, value_name = "HOST:PORT", requires = "dead")]
    confirm: Option<String>,
}

impl DeadArgs {
    /// The typed address; empty if none was typed.
    pub(super) fn confirmed(&self) -> String {
        self.confirm.clone().unwrap_or_default()
    }

    /// Checks that the node's replicas can be re-created without it, and that the operator means
    /// this node. Whether it is dead is the cluster's judgement.
    pub(super) fn check(&self, survey: &Survey, id: u64, question: &str, change: &Change) -> Result<(), Failure> {
        check_replaceable(survey, id, self.confirm.as_deref())?;
        match survey.presence(id) {
            Presence::Up => tell!("warning: node {id} responds to this machine"),
            Presence::Unreachable(receivers) => tell!("warning: node {id} sends pings to {}", listed(&receivers)),
            Presence::Down => {}
        }
        match self.confirm {
            Some(_) => Ok(()),
            None => confirm(question, change),
        }
    }
}

/// Checks the typed address, and that no shard depends on the data of the node.
fn check_replaceable(survey: &Survey, id: u64, typed: Option<&str>) -> Result<(), Failure> {
    let (node, _) = survey.nodes.iter().find(|(node, _)| node.id == id).expect("the caller checked the id");
    if let Some(typed) = typed.filter(|typed| *typed != node.client_address) {
        return Err(Failure::new(Exit::Usage, format!("node {id} is at {}, not at '{typed}'", node.client_address))
            .hint(format!("to confirm, pass its address: --confirm {}", node.client_address)));
    }
    let stuck = survey.shards_on(id).filter(|shard| survey.margin(shard.id).spare < 0);
    let stuck: Vec<String> = stuck.map(|shard| shard.id.to_string()).collect();
    if stuck.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("cannot give up node {id}"))
        .cause(format!("shards {} have no quorum; node {id} may have the only copy of their data", stuck.join(", ")))
        .hint("restart the nodes that are down first: quorate status"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::tests::survey;

    /// The address guards against the wrong id, and a shard without a quorum needs every node.
    #[test]
    fn a_dead_node_is_confirmed_by_its_own_address() {
        let refused = |down: &[u64], typed| check_replaceable(&survey(down), 3, typed).unwrap_err();
        let wrong = refused(&[3], Some("127.0.0.1:7100"));
        assert_eq!(wrong.exit(), Exit::Usage);
        assert!(wrong.to_string().contains("--confirm 127.0.0.1:7120"), "{wrong}");
        let last = refused(&[1, 3], Some("127.0.0.1:7120"));
        assert_eq!(last.exit(), Exit::Refused);
        assert!(last.to_string().contains("shards 1, 2 have no quorum"), "{last}");
        assert!(check_replaceable(&survey(&[3]), 3, Some("127.0.0.1:7120")).is_ok());
        assert!(check_replaceable(&survey(&[3]), 3, None).is_ok());
        assert!(check_replaceable(&survey(&[]), 3, None).is_ok(), "the cluster judges, not this machine");
    }
}
