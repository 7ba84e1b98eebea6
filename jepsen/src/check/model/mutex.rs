//! A lock: taken only while it is free, given back only while it is held.

use super::super::search::{Call, Model};
use super::{Compiled, ModelName, unfit};
use crate::history::{Action, Operation, Outcome};

/// What an operation on a lock does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Acquire,
    Release,
    /// A lock that was refused was held; a release that was refused found it free.
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
    /// Whether it is held.
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
