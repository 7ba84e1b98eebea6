//! A grow-only set. The search decides only the histories that `check::set` cannot: those that add
//! an element twice.

use std::rc::Rc;

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::super::search::{Call, Model};
use super::compiled::{Compiled, unfit};
use super::name::ModelName;
use crate::history::{Action, Operation, Outcome};

/// Elements, one bit each.
type Bits = Rc<[u64]>;

/// An operation on a set, with its result.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Add(usize),
    /// None: any elements.
    Read(Option<Bits>),
}

pub(crate) struct Set {
    elements: Vec<Value>,
}

impl Set {
    pub(crate) fn compile(operations: &[Operation], part: &[usize]) -> Compiled<Set> {
        let mut numbers: FxHashMap<&Value, usize> = FxHashMap::default();
        let mut elements = Vec::new();
        for place in part {
            let operation = &operations[*place];
            let seen = elements_of(operation).ok_or_else(|| unfit(ModelName::Set, operation))?.unwrap_or_default();
            let added = Some(&operation.argument).filter(|_| operation.action == Action::Add);
            for element in seen.iter().chain(added) {
                numbers.entry(element).or_insert_with(|| {
                    elements.push(element.clone());
                    elements.len() - 1
                });
            }
        }
        let bits = |seen: &[Value]| {
            let mut bits = vec![0_u64; elements.len().div_ceil(64)];
            for element in seen.iter().map(|element| numbers[element]) {
                bits[element / 64] |= 1 << (element % 64);
            }
            Bits::from(bits)
        };
        let mut calls = Vec::with_capacity(part.len());
        for origin in part.iter().copied() {
            let operation = &operations[origin];
            let step = match (operation.action, operation.outcome) {
                (Action::Add, Outcome::Done | Outcome::Unknown) => Step::Add(numbers[&operation.argument]),
                (Action::Read, Outcome::Done | Outcome::Unknown) => {
                    Step::Read(elements_of(operation).flatten().map(bits))
                }
                _ => return Err(unfit(ModelName::Set, operation)),
            };
            calls.push(Call { invoked: operation.invoked, returned: operation.returned, step, origin });
        }
        Ok((Set { elements }, calls))
    }
}

/// The elements that a read returned. Inner none: the reply did not contain them; outer none: the
/// reply is not a set.
pub(crate) fn elements_of(operation: &Operation) -> Option<Option<&[Value]>> {
    match &operation.result {
        None => Some(None),
        Some(Value::Null) => Some(Some(&[])),
        Some(Value::Array(elements)) => Some(Some(elements)),
        Some(_) => None,
    }
}

impl Model for Set {
    type Step = Step;
    type State = Bits;

    fn initial(&self) -> Bits {
        vec![0; self.elements.len().div_ceil(64)].into()
    }

    fn apply(&self, state: &Bits, step: &Step) -> Option<Bits> {
        match step {
            Step::Add(element) => {
                if state[element / 64] >> (element % 64) & 1 == 1 {
                    return Some(Rc::clone(state));
                }
                let mut larger = state.to_vec();
                larger[element / 64] |= 1 << (element % 64);
                Some(larger.into())
            }
            Step::Read(seen) => seen.as_ref().is_none_or(|seen| seen == state).then(|| Rc::clone(state)),
        }
    }

    fn is_read(&self, step: &Step) -> bool {
        matches!(step, Step::Read(_))
    }

    fn describe(&self, state: &Bits) -> String {
        let held = (0..self.elements.len()).filter(|element| state[element / 64] >> (element % 64) & 1 == 1);
        let held: Vec<String> = held.map(|element| self.elements[element].to_string()).collect();
        format!("{{{}}}", held.join(", "))
    }
}
