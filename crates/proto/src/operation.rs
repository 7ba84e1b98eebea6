//! Operations and moves in their wire form.

use quorate_types::operation::{Intent, Operation, OperationId, OperationState, PlannedMove, ReplicaMove};
use quorate_types::{GroupId, NodeId, ShardId};

use crate::admin;
use crate::convert::WireError;

impl From<ReplicaMove> for admin::ReplicaMove {
    fn from(moving: ReplicaMove) -> Self {
        admin::ReplicaMove {
            group: moving.group.0,
            from: moving.from.map(Into::into),
            to: moving.to.map(Into::into),
            operation: moving.operation.0,
            cancelled: moving.cancelled,
        }
    }
}

impl From<admin::ReplicaMove> for ReplicaMove {
    fn from(moving: admin::ReplicaMove) -> Self {
        ReplicaMove {
            group: GroupId(moving.group),
            from: moving.from.map(Into::into),
            to: moving.to.map(Into::into),
            operation: OperationId(moving.operation),
            cancelled: moving.cancelled,
        }
    }
}

impl From<PlannedMove> for admin::PlannedMove {
    fn from(planned: PlannedMove) -> Self {
        admin::PlannedMove { shard: planned.shard.0, from: planned.from.0, to: planned.to.0 }
    }
}

impl From<admin::PlannedMove> for PlannedMove {
    fn from(planned: admin::PlannedMove) -> Self {
        PlannedMove { shard: ShardId(planned.shard), from: NodeId(planned.from), to: NodeId(planned.to) }
    }
}

impl From<Intent> for admin::Intent {
    fn from(intent: Intent) -> Self {
        let about =
            |kind: &str, node: NodeId| admin::Intent { kind: kind.to_owned(), node: node.0, ..Default::default() };
        match intent {
            Intent::Add { node } => about("add", node),
            Intent::Drain { node } => about("drain", node),
            Intent::Undrain { node } => about("undrain", node),
            Intent::Remove { node, dead } => admin::Intent { dead, ..about("remove", node) },
            Intent::Replace { old, new, dead } => admin::Intent { with: new.0, dead, ..about("replace", old) },
            Intent::Move { planned } => {
                admin::Intent { kind: "move".to_owned(), moves: vec![planned.into()], ..Default::default() }
            }
            Intent::Rebalance { moves } => admin::Intent {
                kind: "rebalance".to_owned(),
                moves: moves.into_iter().map(Into::into).collect(),
                ..Default::default()
            },
        }
    }
}

impl TryFrom<admin::Intent> for Intent {
    type Error = WireError;

    fn try_from(intent: admin::Intent) -> Result<Self, WireError> {
        let node = NodeId(intent.node);
        let mut moves = intent.moves.into_iter().map(PlannedMove::from);
        Ok(match intent.kind.as_str() {
            "add" => Intent::Add { node },
            "drain" => Intent::Drain { node },
            "undrain" => Intent::Undrain { node },
            "remove" => Intent::Remove { node, dead: intent.dead },
            "replace" => Intent::Replace { old: node, new: NodeId(intent.with), dead: intent.dead },
            "move" => match (moves.next(), moves.next()) {
                (Some(planned), None) => Intent::Move { planned },
                _ => return Err(WireError::new("a move without exactly one replica to move")),
            },
            "rebalance" => Intent::Rebalance { moves: moves.collect() },
            other => return Err(WireError(format!("the unknown operation '{}'", other.escape_debug()))),
        })
    }
}

impl From<Operation> for admin::Operation {
    fn from(operation: Operation) -> Self {
        admin::Operation {
            id: operation.id.0,
            intent: Some(operation.intent.into()),
            state: match operation.state {
                OperationState::Running => "running",
                OperationState::Done => "done",
                OperationState::Cancelled => "cancelled",
            }
            .to_owned(),
            started_ms: operation.started_ms,
            ended_ms: operation.ended_ms,
            moved: operation.moved,
            ..Default::default()
        }
    }
}

impl TryFrom<admin::Operation> for Operation {
    type Error = WireError;

    fn try_from(operation: admin::Operation) -> Result<Self, WireError> {
        let intent = operation.intent.ok_or_else(|| WireError::new("an operation without an intent"))?;
        Ok(Operation {
            id: OperationId(operation.id),
            intent: intent.try_into()?,
            state: match operation.state.as_str() {
                "running" => OperationState::Running,
                "done" => OperationState::Done,
                "cancelled" => OperationState::Cancelled,
                other => return Err(WireError(format!("the unknown state '{}'", other.escape_debug()))),
            },
            started_ms: operation.started_ms,
            ended_ms: operation.ended_ms,
            moved: operation.moved,
            node_was: None,
        })
    }
}
