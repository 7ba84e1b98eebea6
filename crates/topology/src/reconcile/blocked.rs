//! The reasons why a move waits, as operators read them.

use std::fmt;

use quorate_types::NodeId;
use quorate_types::operation::OperationId;

use super::room::NoSpace;

/// The reason why the move of a replica does not start or continue. The text follows the name of
/// the group and a colon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Blocked {
    #[error("it is electing a leader")]
    Electing,
    #[error("it has no leader; {0}")]
    NoLeader(Silent),
    #[error("it has no quorum; {0}")]
    NoQuorum(Silent),
    #[error("its group has not started yet")]
    NotStarted,
    #[error("a change of its members is not committed yet")]
    ChangeNotCommitted,
    #[error("target node {0} is unreachable")]
    TargetUnreachable(NodeId),
    #[error("its new replica on node {0} lost log entries; another one takes its place")]
    TargetDoubtful(NodeId),
    #[error("target node {0} is out of disk space")]
    TargetFull(NodeId),
    #[error(transparent)]
    NoSpace(#[from] NoSpace),
    #[error("node {0} has not created its replica yet")]
    NotCreated(NodeId),
    #[error("{0}")]
    Behind(Behind),
    #[error("the change would leave {alive} of {all} voters reachable; start the nodes that are down")]
    VotersDown { alive: usize, all: usize },
    #[error("it leads, and no other voter has caught up enough to become the leader")]
    NoSuccessor,
    #[error("moves are paused; resume them with: quorate rebalance resume")]
    Paused,
    #[error("node {0} no longer has a replica of it")]
    NoReplica(NodeId),
    #[error("operation {0} moves it first: quorate op show {0}")]
    OtherOperation(OperationId),
    #[error("a cancelled move must finish first: quorate status")]
    CancelledMove,
    #[error("no other active node is reachable and can take its replica")]
    NoTarget,
    #[error("it should have more voters, but no other active node is reachable and can vote")]
    NoVoter,
}

/// A new replica that has not caught up, and the reasons known for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Behind {
    /// The new replica's node.
    pub(super) node: NodeId,
    /// Entries that it lacks; none while it has no entry and receives a snapshot.
    pub(super) entries: Option<u64>,
    /// The leader's node throttles transfers in favour of its user requests.
    pub(super) throttled: bool,
    /// The new replica's node is out of disk space.
    pub(super) disk_full: bool,
    /// The error of the last snapshot transfer, if it failed.
    pub(super) snapshot_failure: Option<String>,
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node;
        match self.entries {
            Some(entries) => write!(f, "catching up on node {node}, {entries} entries behind")?,
            None => write!(f, "receiving a snapshot on node {node}")?,
        }
        if self.throttled {
            f.write_str("; throttled in favour of user requests")?;
        }
        if self.disk_full {
            write!(f, "; node {node} is out of disk space")?;
        }
        if let Some(failure) = &self.snapshot_failure {
            write!(f, "; the last snapshot failed: {failure}")?;
        }
        Ok(())
    }
}

/// The nodes whose replicas do not answer, by reason. Displays as a phrase:
/// `nodes down: 2; nodes with a doubtful replica: 3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Silent {
    pub(super) down: Vec<NodeId>,
    /// Their replicas lost log entries.
    pub(super) doubtful: Vec<NodeId>,
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |nodes: &[NodeId], name: &str| (!nodes.is_empty()).then(|| format!("{name}: {}", list(nodes)));
        let parts = [part(&self.down, "nodes down"), part(&self.doubtful, "nodes with a doubtful replica")];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}

fn list(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
