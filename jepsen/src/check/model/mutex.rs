//! A lock: acquired only while it is free, released only while it is held.

use super::super::search::{Call, Model};
use super::compiled::{Compiled, unfit};
use super::name::ModelName;
use crate::history::{Action, Operation, Outcome};

/// An operation on a lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Acquire,
    Release,
    /// A refused acquire shows that the lock was held; a refused release, that it was free.
    Refused {
        held: bool,
    },
}

pub(crate) struct Mutex;

impl Mutex {
    pub(crate) fn compile(operations: &[Operation], part: &[usize]) -> Compiled<Mutex> {
        let mut calls = Vec::with_capacity(part.len());
        for origin in part.iter().copied() {
            let operation = &operations[origin];
            let step = match (operation.action, operation.outcome == Outcome::Refused) {
                (Action::Acquire, false) => Step::Acquire,
                (Action::Release, false) => Step::Release,
                (Action::Acquire, true) => Step::Refused { held: true },
                (Action::Release, true) => Step::Refused { held: false },
                _ => return Err(unfit(ModelName::Mutex, operation)),
            };
            calls.push(Call { invoked: operation.invoked, returned: operation.returned, step, origin });
        }
        Ok((Mutex, calls))
    }
}

impl Model for Mutex {
    type Step = Step;
    /// Whether the lock is held.
    type State = bool;

    fn initial(&self) -> bool {
        false
    }

    fn apply(&self, held: &bool, step: &Step) -> Option<bool> {
        match step {
            Step::Acquire => (!held).then_some(true),
            Step::Release => held.then_some(false),
            Step::Refused { held: found } => (held == found).then_some(*held),
        }
    }

    fn states(&self) -> Option<Vec<bool>> {
        Some(vec![false, true])
    }

    fn is_read(&self, step: &Step) -> bool {
        matches!(step, Step::Refused { .. })
    }

    fn describe(&self, held: &bool) -> String {
        if *held { "held" } else { "free" }.to_owned()
    }
}
