//! The models: what one object is, what can be done to it and what it answers.

pub(crate) mod counter;
pub(crate) mod multi_register;
pub(crate) mod mutex;
pub(crate) mod record;
pub(crate) mod set;

use std::fmt;
use std::str::FromStr;

use super::search::{Call, Found, Model, search};
use super::{Limits, Verdict, Violation, explain};
use crate::history::{Action, Operation};

/// The models by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelName {
    /// Registers: read, write, compare-and-set, delete. A key each.
    CasRegister,
    /// Keys: read, write, append, compare-and-set, delete. A key each.
    Kv,
    /// Keys whose replies say the record's version: as `Kv`, and compare-and-set by version. Versions of a key grow with every
    /// mutation, and reads and refusals report the version of the record.
    KvVersion,
    /// Counters from 0: add, read. A key each, or one.
    Counter,
    /// Sets that only grow: add, read. A key each, or one.
    Set,
    /// Locks: acquire, release. A key each, or one.
    Mutex,
    /// Registers that are read and written together, in transactions.
    MultiRegister,
}

impl ModelName {
    /// All of them, in the order of the documentation.
    pub const ALL: [ModelName; 7] = [
        ModelName::CasRegister,
        ModelName::Kv,
        ModelName::KvVersion,
        ModelName::Counter,
        ModelName::Set,
        ModelName::Mutex,
        ModelName::MultiRegister,
    ];

    /// Its name, as it is typed.
    pub fn name(self) -> &'static str {
        match self {
            ModelName::CasRegister => "cas-register",
            ModelName::Kv => "kv",
            ModelName::KvVersion => "kv-version",
            ModelName::Counter => "counter",
            ModelName::Set => "set",
            ModelName::Mutex => "mutex",
            ModelName::MultiRegister => "multi-register",
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ModelName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|model| model.name() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|model| model.name()).collect();
            format!("unknown model '{text}'; the models are {}", known.join(", "))
        })
    }
}

/// An object and its calls.
pub(crate) type Compiled<M> = Result<(M, Vec<Call<<M as Model>::Step>>), Unfit>;

/// An operation that the model does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfit(String);

/// Says that the model does not have such an operation.
pub(crate) fn unfit(model: ModelName, operation: &Operation) -> Unfit {
    Unfit(format!("event {}: the model {model} has no '{}'", operation.invoked, operation.describe()))
}

/// The one argument of an operation that has to be a whole number.
fn whole(operation: &Operation) -> Option<i64> {
    operation.argument.as_i64()
}

/// Checks one object: the operations at these places in the history.
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
