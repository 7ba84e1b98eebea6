//! Proposes topology commands: at this node if it leads the topology group, else at the node that
//! does.

use std::collections::VecDeque;
use std::time::Duration;

use quorate_types::Rejection;
use quorate_types::topology::{Command, Outcome};
use tokio::time::Instant;
use tracing::{Instrument, debug, info_span};

use crate::dead::{self, Verdict};
use crate::peers::{PeerAddress, Peers, Proposed, known_nodes};
use crate::plane::Plane;

/// How long the topology group may take to apply one command.
pub(crate) const APPLY_TIMEOUT: Duration = Duration::from_secs(4);
/// The pause after every node was asked without success. An election takes a few of these.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// Why a topology command was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node recorded another bootstrap: the command can never be proposed here.
    #[error("this node has recorded the bootstrap of another cluster")]
    OtherBootstrap,
    /// This node's replica of the topology group rejected the command.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The leader of the topology group cannot decide yet. Nothing was proposed: try again.
    #[error("{0}")]
    NotYet(String),
    /// No node confirmed the command in time; it may have been applied.
    #[error("the topology group did not answer in time ({last})")]
    Unanswered {
        /// The last failure.
        last: String,
    },
}

/// Proposes topology commands for a node, or for a machine that has no node id yet.
pub struct Proposer<'a> {
    peers: &'a dyn Peers,
    own: Option<&'a Plane>,
    others: Vec<PeerAddress>,
}

impl<'a> Proposer<'a> {
    /// A node proposes at its own replica and at the voters of the topology group that it knows.
    pub fn of_node(plane: &'a Plane) -> Self {
        let store = &plane.store;
        let map = store.feed.latest();
        let topology = map.as_ref().map(|map| &*map.topology);
        let (nodes, voters) = known_nodes(topology, store.bootstrap.as_ref());
        let voters = voters.iter().filter(|placement| placement.node != store.identity.node);
        let known = voters.filter_map(|voter| nodes.iter().find(|node| node.id == voter.node));
        Proposer { peers: &*plane.peers, own: Some(plane), others: known.map(PeerAddress::from).collect() }
    }

    /// A machine without a node id proposes at these nodes.
    pub fn of_stranger(peers: &'a dyn Peers, nodes: Vec<PeerAddress>) -> Self {
        Proposer { peers, own: None, others: nodes }
    }

    /// Proposes until the command is done or refused, for at most `within`. The command must be
    /// one that may be applied twice.
    pub async fn propose(&self, command: &Command, within: Duration) -> Result<Outcome, ProposeError> {
        let deadline = Instant::now() + within;
        let mut last = "no node of the topology group is known".to_owned();
        let mut hint = None;
        loop {
            if let Some(own) = self.own {
                match propose_here(own, command).await {
                    Ok(Proposed::Outcome(outcome)) => return Ok(outcome),
                    Ok(Proposed::NotLeader(leader)) => hint = leader,
                    Ok(Proposed::NotYet(reason)) => return Err(ProposeError::NotYet(reason)),
                    Err(error) => last = error.to_string(),
                }
            }
            let mut order: VecDeque<_> = self.others.iter().collect();
            if let Some(at) = order.iter().position(|peer| Some(peer.node) == hint) {
                order.rotate_left(at);
            }
            for peer in order {
                match self.peers.propose(peer, command.clone()).await {
                    Ok(Proposed::Outcome(outcome)) => return Ok(outcome),
                    Ok(Proposed::NotLeader(leader)) => hint = leader.or(hint),
                    Ok(Proposed::NotYet(reason)) => return Err(ProposeError::NotYet(reason)),
                    Err(error) => last = format!("node {} at {}: {error}", peer.node, peer.address),
                }
                if Instant::now() >= deadline {
                    break;
                }
            }
            if Instant::now() >= deadline {
                return Err(ProposeError::Unanswered { last });
            }
            debug!(reason = last, "topology command not accepted yet");
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }
}

/// Proposes at this node's own replica of the topology group. The command that bootstraps the
/// cluster also starts the group: it is sent only after every initial node has recorded it. A
/// command that gives up a node as dead is proposed only if the cluster receives no pings from it.
pub async fn propose_here(plane: &Plane, command: &Command) -> Result<Proposed, ProposeError> {
    let store = &plane.store;
    let Some(group) = store.topology_group() else { return Ok(Proposed::NotLeader(None)) };
    if let Command::Bootstrap(bootstrap, _) = command {
        if store.bootstrap.as_ref() != Some(bootstrap) {
            return Err(ProposeError::OtherBootstrap);
        }
        group.initialize(&bootstrap.topology_replicas).await?;
    }
    if let Some(undecided) = judged(plane, command).await? {
        return Ok(undecided);
    }
    let span = info_span!("propose", node = %store.identity.node, group = 0, term = group.status().term);
    match group.propose(command.encode().into(), APPLY_TIMEOUT).instrument(span).await {
        Ok(applied) => Ok(Proposed::Outcome(applied.reply.into_topology())),
        Err(Rejection::NotLeader { leader }) => Ok(Proposed::NotLeader(leader)),
        Err(rejection) => Err(rejection.into()),
    }
}

/// The outcome that a command would have if it were proposed now. Only the leader of the topology
/// group can tell.
pub async fn try_out(plane: &Plane, command: &Command) -> Result<Proposed, ProposeError> {
    match judged(plane, command).await? {
        Some(undecided) => Ok(undecided),
        None => Ok(Proposed::Outcome(plane.confirmed_cluster().await?.outcome_of(command))),
    }
}

/// The answer to a command that must not be proposed, because it gives up a node that is alive.
async fn judged(plane: &Plane, command: &Command) -> Result<Option<Proposed>, ProposeError> {
    match dead::judge(plane, command).await {
        Ok(Verdict::Granted) => Ok(None),
        Ok(Verdict::Refused(reason)) => Ok(Some(Proposed::Outcome(Outcome::Refused(reason)))),
        Ok(Verdict::NotYet(reason)) => Ok(Some(Proposed::NotYet(reason))),
        Err(Rejection::NotLeader { leader }) => Ok(Some(Proposed::NotLeader(leader))),
        Err(rejection) => Err(rejection.into()),
    }
}
