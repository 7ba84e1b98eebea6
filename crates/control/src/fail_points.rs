//! The crash points of the reconciler's steps.

use quorate_testpoints::FailPoint;
use quorate_types::report::OrderKind;
use quorate_types::topology::Command;

/// The crash points around an order.
pub(crate) struct OrderPoints {
    /// The order is about to be sent.
    pub(crate) planned: FailPoint,
    /// The leader received it.
    pub(crate) received: FailPoint,
    /// The leader executed it, or failed to.
    pub(crate) done: FailPoint,
}

/// The crash points around a topology command.
pub(crate) struct CommandPoints {
    /// The command is about to be proposed.
    pub(crate) planned: FailPoint,
    /// It was applied.
    pub(crate) done: FailPoint,
}

pub(crate) const fn of_order(what: OrderKind) -> OrderPoints {
    use FailPoint::*;
    let (planned, received, done) = match what {
        OrderKind::AddLearner(_) => (AddLearnerPlanned, AddLearnerReceived, AddLearnerDone),
        OrderKind::RemoveLearner(_) => (RemoveLearnerPlanned, RemoveLearnerReceived, RemoveLearnerDone),
        OrderKind::ChangeVoters { .. } => (ChangeVotersPlanned, ChangeVotersReceived, ChangeVotersDone),
        OrderKind::FinishJoint => (FinishJointPlanned, FinishJointReceived, FinishJointDone),
        OrderKind::TransferLeader(_) => (TransferLeaderPlanned, TransferLeaderReceived, TransferLeaderDone),
        OrderKind::ConfirmAbsent(_) => (ConfirmAbsentPlanned, ConfirmAbsentReceived, ConfirmAbsentDone),
    };
    OrderPoints { planned, received, done }
}

pub(crate) const fn of_command(command: &Command) -> CommandPoints {
    use FailPoint::*;
    let (planned, done) = match command {
        Command::StartMove { .. } => (StartMovePlanned, StartMoveDone),
        Command::FinishMove(_) => (FinishMovePlanned, FinishMoveDone),
        Command::FinishCancelledMove(_) => (FinishCancelledMovePlanned, FinishCancelledMoveDone),
        Command::CancelMove(_) => (CancelMovePlanned, CancelMoveDone),
        Command::FinishOperation { .. } => (FinishOperationPlanned, FinishOperationDone),
        _ => (CommandPlanned, CommandDone),
    };
    CommandPoints { planned, done }
}
