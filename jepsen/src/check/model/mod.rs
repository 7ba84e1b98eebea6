//! The models: for each kind of object, its state, its operations and their results.

mod compiled;
mod counter;
mod multi_register;
mod mutex;
pub(super) mod name;
mod record;
pub(super) mod set;
pub(super) mod step;
mod version;

use super::explain;
use super::limits::Limits;
use super::search::{Found, Model, search};
use super::verdict::{Verdict, Violation};
use crate::history::{Action, Operation};
use compiled::{Compiled, Unfit};
use name::ModelName;

/// Checks one object: the operations at these indices of the history.
pub(crate) fn check_object(model: ModelName, operations: &[Operation], part: &[usize], limits: &Limits) -> Verdict {
    let object = Object { operations, part, limits };
    match model {
        ModelName::Kv => super::list::check(operations, part, &limits.initial)
            .unwrap_or_else(|| object.search(record::Record::compile(model, operations, part, limits))),
        ModelName::CasRegister | ModelName::KvVersion => {
            object.search(record::Record::compile(model, operations, part, limits))
        }
        ModelName::Counter => match counter::out_of_bounds(operations, part) {
            Some(violation) => Verdict::Invalid(Box::new(violation)),
            None => object.search(counter::Counter::compile(operations, part)),
        },
        ModelName::Set => {
            super::set::check(operations, part).unwrap_or_else(|| object.search(set::Set::compile(operations, part)))
        }
        ModelName::Mutex => object.search(mutex::Mutex::compile(operations, part)),
        ModelName::MultiRegister => object.search(multi_register::MultiRegister::compile(operations, part, limits)),
    }
}

/// One object of a history.
struct Object<'a> {
    operations: &'a [Operation],
    part: &'a [usize],
    limits: &'a Limits,
}

impl Object<'_> {
    fn search<M: Model>(&self, compiled: Compiled<M>) -> Verdict {
        let (model, calls) = match compiled {
            Ok(compiled) => compiled,
            Err(Unfit(reason)) => return Verdict::Unknown(reason),
        };
        match search(&model, &calls, model.initial(), self.limits) {
            Found::Order => Verdict::Valid,
            Found::GaveUp(reason) => Verdict::Unknown(match self.key() {
                Some(key) => format!("key {key}: {reason}"),
                None => reason,
            }),
            Found::Stuck(stuck) => {
                let violation = explain::explain(&model, &calls, &stuck, self.operations, self.limits);
                Verdict::Invalid(Box::new(Violation { key: self.key(), ..violation }))
            }
        }
    }

    fn key(&self) -> Option<String> {
        let first = &self.operations[*self.part.first()?];
        first.key.as_deref().filter(|_| first.action != Action::Txn).map(str::to_owned)
    }
}
