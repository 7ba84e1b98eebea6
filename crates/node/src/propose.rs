//! Proposing a change of the cluster: here, if this node leads the topology group, or at whoever does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use quorate_types::topology::{Command, Outcome};
use quorate_types::{ClusterId, NodeId, Rejection};
use tracing::debug;

use crate::handshake;
use crate::member::Member;
use crate::peer::{PeerCaller, Proposed};
use crate::refusal::Refusal;

/// How long the topology group may take for one command.
const APPLY_TIMEOUT: Duration = Duration::from_secs(4);
/// The pause after everybody was asked in vain: an election is shorter than a few of these.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// Who proposes, and whom it may ask.
pub(crate) struct Proposer<'a> {
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// This node; none while it has no id.
    pub(crate) own: Option<&'a Member>,
    /// Nodes that may lead the topology group, with their peer addresses.
    pub(crate) others: Vec<(NodeId, String)>,
}

impl<'a> Proposer<'a> {
    /// A member asks the nodes of the topology group, as far as it knows them.
    pub(crate) fn of_member(member: &'a Member) -> Self {
        let map = member.feed.latest();
        let (nodes, placements) = match (&map, &member.bootstrap) {
            (Some(map), _) => (map.topology.nodes.as_slice(), map.topology.topology_replicas.as_slice()),
            (None, Some(bootstrap)) => (bootstrap.nodes.as_slice(), bootstrap.topology_replicas.as_slice()),
            (None, None) => (&[][..], &[][..]),
        };
        let voters = placements.iter().filter(|placement| placement.node != member.identity.node);
        let addresses = voters.filter_map(|voter| nodes.iter().find(|node| node.id == voter.node));
        let others = addresses.map(|node| (node.id, node.addresses.peer.clone())).collect();
        Proposer { cluster: member.identity.cluster, own: Some(member), others }
    }

    /// Proposes until it was done or refused, at most `within`. The command must be one that may be repeated.
    pub(crate) async fn propose(&self, command: &Command, within: Duration) -> Result<Outcome, Refusal> {
        let deadline = Instant::now() + within;
        let mut last = "no node of the topology group is known".to_owned();
        let mut hint = None;
        loop {
            if let Some(own) = self.own {
                match here(own, command).await {
                    Ok(Proposed::Outcome(outcome)) => return Ok(outcome),
                    Ok(Proposed::NotLeader(leader)) => hint = leader,
                    Err(refusal) => last = refusal.to_string(),
                }
            }
            let mut order: VecDeque<_> = self.others.iter().collect();
            if let Some(at) = order.iter().position(|(node, _)| Some(*node) == hint) {
                order.rotate_left(at);
            }
            for (node, address) in order {
                match self.propose_at(*node, address, command).await {
                    Ok(Proposed::Outcome(outcome)) => return Ok(outcome),
                    Ok(Proposed::NotLeader(leader)) => hint = leader.or(hint),
                    Err(reason) => last = format!("node {node} at {address}: {reason}"),
                }
                if Instant::now() >= deadline {
                    break;
                }
            }
            if Instant::now() >= deadline {
                return Err(Refusal::Unavailable(format!("the topology group did not answer in time ({last})")));
            }
            debug!(reason = last, "topology command not accepted yet");
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    async fn propose_at(&self, to: NodeId, address: &str, command: &Command) -> Result<Proposed, String> {
        let from = self.own.map_or(NodeId(0), |member| member.identity.node);
        let hello = handshake::hello(self.cluster, from, to);
        PeerCaller::connect(address).await?.propose_topology(hello, command).await
    }
}

/// Proposes at this node's own replica of the topology group. The command that founds the cluster also starts the group: it is
/// sent only when every initial node has the order on record.
pub(crate) async fn here(member: &Member, command: &Command) -> Result<Proposed, Refusal> {
    let Some(group) = member.topology_group() else { return Ok(Proposed::NotLeader(None)) };
    if let Command::Bootstrap(order, _) = command {
        if member.bootstrap.as_ref() != Some(order) {
            return Err(Refusal::AlreadyExists("this node has recorded another order to found a cluster".to_owned()));
        }
        group.initialize(&order.topology_replicas).await?;
    }
    match group.propose(command.encode().into(), APPLY_TIMEOUT).await {
        Ok(applied) => Ok(Proposed::Outcome(applied.reply.into_topology())),
        Err(Rejection::NotLeader { leader }) => Ok(Proposed::NotLeader(leader)),
        Err(rejection) => Err(rejection.into()),
    }
}
