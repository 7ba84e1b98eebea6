//! The wire form of calls that the caller and the receiver must agree on.

use quorate_control::orders::ExecuteError;
use quorate_control::{PeerError, Proposed};
use quorate_proto::peer::{ExecuteResponse, ProposeTopologyResponse};
use quorate_types::NodeId;
use quorate_types::operation::OperationId;
use quorate_types::topology::{Command, Outcome};

/// The answer to a proposed topology command.
pub(crate) fn proposed_to_wire(proposed: Proposed) -> ProposeTopologyResponse {
    let outcome = match proposed {
        Proposed::Outcome(outcome) => outcome,
        Proposed::NotLeader(leader) => {
            let not_leader = leader.map_or(0, |NodeId(node)| node);
            return ProposeTopologyResponse { is_not_leader: true, not_leader, ..Default::default() };
        }
        Proposed::NotYet(not_yet) => return ProposeTopologyResponse { not_yet, ..Default::default() },
    };
    match outcome {
        Outcome::Done | Outcome::Move(_) => ProposeTopologyResponse::default(),
        Outcome::Node(node) => ProposeTopologyResponse { id: node.0, ..Default::default() },
        Outcome::Operation { id, already } => ProposeTopologyResponse { id: id.0, already, ..Default::default() },
        Outcome::Refused(refused) => ProposeTopologyResponse { refused, ..Default::default() },
    }
}

/// Reads the answer to a command: which id it carries depends on the command.
pub(crate) fn proposed_from_wire(reply: ProposeTopologyResponse, command: &Command) -> Proposed {
    if reply.is_not_leader {
        return Proposed::NotLeader((reply.not_leader != 0).then_some(NodeId(reply.not_leader)));
    }
    if !reply.not_yet.is_empty() {
        return Proposed::NotYet(reply.not_yet);
    }
    if !reply.refused.is_empty() {
        return Proposed::Outcome(Outcome::Refused(reply.refused));
    }
    Proposed::Outcome(match command {
        Command::RegisterNode { .. } => Outcome::Node(NodeId(reply.id)),
        Command::StartOperation { .. } if reply.id != 0 => {
            Outcome::Operation { id: OperationId(reply.id), already: reply.already }
        }
        _ => Outcome::Done,
    })
}

/// The answer to an order of the reconciler.
pub(crate) fn executed_to_wire(executed: Result<(), ExecuteError>) -> ExecuteResponse {
    match executed.map_err(PeerError::from) {
        Ok(()) => ExecuteResponse::default(),
        Err(PeerError::Refused(refused)) => ExecuteResponse { refused, ..Default::default() },
        Err(PeerError::Unanswered(unknown)) => ExecuteResponse { unknown, ..Default::default() },
    }
}

/// Reads the answer to an order.
pub(crate) fn executed_from_wire(reply: ExecuteResponse) -> Result<(), PeerError> {
    match reply {
        ExecuteResponse { unknown, .. } if !unknown.is_empty() => Err(PeerError::Unanswered(unknown)),
        ExecuteResponse { refused, .. } if !refused.is_empty() => Err(PeerError::Refused(refused)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use quorate_raft::OrderError;

    use super::*;

    /// A refusal, and the answer that it is too early, arrive as they were sent.
    #[test]
    fn answers_of_the_topology_leader_are_read_as_they_were_written() {
        let command = Command::PauseMoves { paused: true };
        for proposed in [
            Proposed::Outcome(Outcome::Done),
            Proposed::Outcome(Outcome::Refused("node 3 is alive".to_owned())),
            Proposed::NotLeader(Some(NodeId(2))),
            Proposed::NotYet("try again in 4 s".to_owned()),
        ] {
            assert_eq!(proposed_from_wire(proposed_to_wire(proposed.clone()), &command), proposed);
        }
    }

    /// An order that was not done in time used to arrive as refused, although it may take effect.
    #[test]
    fn unknown_outcome_of_an_order_is_no_refusal() {
        let received = |executed| executed_from_wire(executed_to_wire(executed));
        assert_eq!(received(Ok(())), Ok(()));
        let refused = OrderError::Refused("replica 7 has no vote".to_owned());
        assert_eq!(received(Err(refused.into())), Err(PeerError::Refused("replica 7 has no vote".to_owned())));
        let late = OrderError::Unknown("not done within 5000 ms".to_owned());
        assert_eq!(received(Err(late.into())), Err(PeerError::Unanswered("not done within 5000 ms".to_owned())));
    }
}
