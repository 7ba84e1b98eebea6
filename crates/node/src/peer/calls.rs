//! The wire form of calls that the caller and the receiver must agree on.

use quorate_control::Proposed;
use quorate_proto::peer::ProposeTopologyResponse;
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
