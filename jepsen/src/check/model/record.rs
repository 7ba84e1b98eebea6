//! What one key holds: the models `cas-register`, `kv` and `kv-version`.
//!
//! Values are numbers given out as they appear, so that a state is small. A key that is absent holds [`ABSENT`].

use std::cell::RefCell;
use std::rc::Rc;

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::super::Limits;
use super::super::search::{Call, Model};
use super::super::unknown;
use super::{Compiled, ModelName, unfit};
use crate::history::{Action, Operation, Outcome};

/// A value's number.
pub(crate) type Id = u32;

/// The number of null, which a key holds that is absent.
pub(crate) const ABSENT: Id = 0;

/// What an operation on a key does and has seen. A version is there where the reply said it and the model looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Saw this; none: anything.
    Read { value: Option<Id>, version: Option<u64> },
    /// Wrote or deleted.
    Write { value: Id, version: Option<u64> },
    /// Wrote over this value.
    Cas { expected: Id, new: Id, version: Option<u64> },
    /// Wrote over this version.
    CasVersion { expected: u64, new: Id, version: Option<u64> },
    /// Did not write, because the key did not hold what was expected.
    Refused { expected: Expected, found: Option<Id>, version: Option<u64> },
    /// Wrote what was there with this after it.
    Append { value: Id, version: Option<u64> },
}

/// What a conditional write expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Expected {
    /// A value.
    Value(Id),
    /// A version.
    Version(u64),
}

impl Step {
    /// The value that it leaves, if it always leaves the same one.
    pub(crate) fn writes(&self) -> Option<Id> {
        match self {
            Step::Write { value, .. } => Some(*value),
            Step::Cas { new, .. } | Step::CasVersion { new, .. } => Some(*new),
            Step::Read { .. } | Step::Refused { .. } | Step::Append { .. } => None,
        }
    }

    /// The value that must be there for it to happen as it did.
    pub(crate) fn sees(&self) -> Option<Id> {
        match self {
            Step::Read { value, .. } => *value,
            Step::Cas { expected, .. } => Some(*expected),
            Step::CasVersion { expected: 0, .. } => Some(ABSENT),
            Step::Refused { found, .. } => *found,
            Step::Write { .. } | Step::CasVersion { .. } | Step::Append { .. } => None,
        }
    }

    /// The version that it saw the value to have.
    pub(crate) fn sees_version(&self) -> Option<u64> {
        match self {
            Step::Read { version, .. } | Step::Refused { version, .. } => *version,
            _ => None,
        }
    }

    /// The version that it wrote.
    pub(crate) fn wrote_version(&self) -> Option<u64> {
        match self {
            Step::Write { version, .. }
            | Step::Cas { version, .. }
            | Step::CasVersion { version, .. }
            | Step::Append { version, .. } => *version,
            Step::Read { .. } | Step::Refused { .. } => None,
        }
    }

    /// Says which version it wrote.
    pub(crate) fn set_version(&mut self, wrote: Option<u64>) {
        match self {
            Step::Write { version, .. }
            | Step::Cas { version, .. }
            | Step::CasVersion { version, .. }
            | Step::Append { version, .. } => *version = wrote,
            Step::Read { .. } | Step::Refused { .. } => {}
        }
    }
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    value: Id,
    /// The record's version.
    version: Version,
}

/// What is known of versions. Where a model does not look at versions it is always `Known(0)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    /// The newest mutation had this version; so has the record, unless the key is absent.
    Known(u64),
    /// The newest mutation did not say its version; it is at least this.
    AtLeast(u64),
}

impl Version {
    /// After a mutation with this version; none if it did not grow.
    fn then(self, version: Option<u64>) -> Option<Version> {
        let least = match self {
            Version::Known(last) => last + 1,
            Version::AtLeast(least) => least + 1,
        };
        match version {
            Some(version) => (version >= least).then_some(Version::Known(version)),
            None => Some(Version::AtLeast(least)),
        }
    }

    /// Once somebody saw the record to have this version; none if it cannot have.
    fn seen_as(self, value: Id, seen: Option<u64>) -> Option<Version> {
        match (seen, self) {
            (None, _) => Some(self),
            (Some(seen), _) if value == ABSENT => (seen == 0).then_some(self),
            (Some(seen), Version::Known(known)) => (seen == known).then_some(self),
            (Some(seen), Version::AtLeast(least)) => (seen >= least).then_some(Version::Known(seen)),
        }
    }
}

/// A key, and the values that it ever held.
pub(crate) struct Record {
    initial: Id,
    versioned: bool,
    values: RefCell<Values>,
    /// The values that somebody wrote, and the initial one.
    written: Vec<Id>,
}

#[derive(Default)]
struct Values {
    known: Vec<Rc<Value>>,
    numbers: FxHashMap<Rc<Value>, Id>,
    /// What an append to a value makes.
    appended: FxHashMap<(Id, Id), Option<Id>>,
}

impl Values {
    fn number(&mut self, value: &Value) -> Id {
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        let number = Id::try_from(self.known.len()).expect("a history has fewer than 2^32 values");
        let value = Rc::new(value.clone());
        self.known.push(Rc::clone(&value));
        self.numbers.insert(value, number);
        number
    }

    /// One text after another; none if they are not both texts (or, the first, absent).
    fn append(&mut self, to: Id, what: Id) -> Option<Id> {
        if let Some(made) = self.appended.get(&(to, what)) {
            return *made;
        }
        let made = match (&*self.known[to as usize], &*self.known[what as usize]) {
            (Value::Null, Value::String(what)) => Some(what.clone()),
            (Value::String(to), Value::String(what)) => Some(format!("{to}{what}")),
            _ => None,
        };
        let made = made.map(|text| self.number(&Value::String(text)));
        self.appended.insert((to, what), made);
        made
    }
}

impl Record {
    /// The key of these operations (places in the history), and its calls.
    pub(crate) fn compile(
        model: ModelName,
        operations: &[Operation],
        part: &[usize],
        limits: &Limits,
    ) -> Compiled<Record> {
        let mut values = Values::default();
        values.number(&Value::Null);
        let initial = values.number(&limits.initial);
        let versioned = model == ModelName::KvVersion;
        let mut calls = Vec::with_capacity(part.len());
        for origin in part.iter().copied() {
            let operation = &operations[origin];
            let step = step(model, operation, &mut values).ok_or_else(|| unfit(model, operation))?;
            calls.push(Call { invoked: operation.invoked, returned: operation.returned, step, origin });
        }
        let mut written: Vec<Id> = calls.iter().filter_map(|call| call.step.writes()).chain([initial]).collect();
        written.sort_unstable();
        written.dedup();
        unknown::shrink(&mut calls, initial, limits.passes);
        Ok((Record { initial, versioned, values: RefCell::new(values), written }, calls))
    }

    fn wrote(&self, state: &State, value: Id, version: Option<u64>) -> Option<State> {
        let version = if self.versioned { state.version.then(version)? } else { state.version };
        Some(State { value, version })
    }
}

/// None: the model has no such operation, or its argument is of another shape.
fn step(model: ModelName, operation: &Operation, values: &mut Values) -> Option<Step> {
    let versioned = model == ModelName::KvVersion;
    let version = operation.version.filter(|_| versioned);
    let argument = &operation.argument;
    let pair = || match argument.as_array().map(Vec::as_slice) {
        Some([expected, new]) => Some((expected, new)),
        _ => None,
    };
    let refused = operation.outcome == Outcome::Refused;
    let found = operation.result.as_ref();
    match operation.action {
        Action::Read if !refused => Some(Step::Read { value: found.map(|value| values.number(value)), version }),
        Action::Write if !refused => Some(Step::Write { value: values.number(argument), version }),
        Action::Delete if !refused => Some(Step::Write { value: ABSENT, version }),
        Action::Append if !refused && model != ModelName::CasRegister && argument.is_string() => {
            Some(Step::Append { value: values.number(argument), version })
        }
        Action::Cas => {
            let (expected, new) = pair()?;
            let expected = values.number(expected);
            Some(if refused {
                let found = found.map(|value| values.number(value));
                Step::Refused { expected: Expected::Value(expected), found, version }
            } else {
                Step::Cas { expected, new: values.number(new), version }
            })
        }
        Action::CasVersion if versioned => {
            let (expected, new) = pair()?;
            let expected = expected.as_u64()?;
            Some(if refused {
                let found = found.map(|value| values.number(value));
                Step::Refused { expected: Expected::Version(expected), found, version }
            } else {
                Step::CasVersion { expected, new: values.number(new), version }
            })
        }
        _ => None,
    }
}

impl Model for Record {
    type Step = Step;
    type State = State;

    fn initial(&self) -> State {
        State { value: self.initial, version: Version::Known(0) }
    }

    fn apply(&self, state: &State, step: &Step) -> Option<State> {
        let held = state.value;
        match step {
            Step::Read { value, version } => {
                let fits = value.is_none_or(|value| value == held);
                let version = if self.versioned { state.version.seen_as(held, *version) } else { Some(state.version) };
                version.filter(|_| fits).map(|version| State { value: held, version })
            }
            Step::Write { value, version } => self.wrote(state, *value, *version),
            Step::Cas { expected, new, version } => {
                if *expected == held {
                    self.wrote(state, *new, *version)
                } else {
                    None
                }
            }
            Step::CasVersion { expected, new, version } => {
                let version_seen = state.version.seen_as(held, Some(*expected))?;
                self.wrote(&State { value: held, version: version_seen }, *new, *version)
            }
            Step::Refused { expected, found, version } => {
                let fits = found.is_none_or(|found| found == held);
                let seen = if self.versioned { state.version.seen_as(held, *version)? } else { state.version };
                let differs = match (expected, seen) {
                    (Expected::Value(expected), _) => *expected != held,
                    (Expected::Version(expected), _) if held == ABSENT => *expected != 0,
                    (Expected::Version(expected), Version::Known(known)) => *expected != known,
                    // Some other version than the expected one can always be it.
                    (Expected::Version(_), Version::AtLeast(_)) => true,
                };
                (fits && differs).then_some(State { value: held, version: seen })
            }
            Step::Append { value, version } => {
                let value = self.values.borrow_mut().append(held, *value)?;
                self.wrote(state, value, *version)
            }
        }
    }

    fn rank(&self, step: &Step) -> Option<u64> {
        if self.versioned { step.wrote_version() } else { None }
    }

    fn states(&self) -> Option<Vec<State>> {
        let listed = !self.versioned && self.values.borrow().appended.is_empty();
        listed.then(|| self.written.iter().map(|value| State { value: *value, version: Version::Known(0) }).collect())
    }

    fn is_read(&self, step: &Step) -> bool {
        matches!(step, Step::Read { .. } | Step::Refused { .. })
    }

    fn describe(&self, state: &State) -> String {
        let values = self.values.borrow();
        let value = &values.known[state.value as usize];
        match (self.versioned, state.version) {
            (false, _) => value.to_string(),
            (true, Version::Known(version)) => format!("{value}, last written as version {version}"),
            (true, Version::AtLeast(version)) => format!("{value}, last written as some version from {version} on"),
        }
    }
}
