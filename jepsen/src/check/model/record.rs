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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    value: Id,
    /// The record's version.
    version: Version,
}

/// What is known of versions. Where a model does not look at versions it is always `Known(0)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    /// The newest mutation had this version; so has the record, unless the key is absent.
    Known(u64),
    /// The newest mutation did not say its version; it is at least this, and none of these, which are larger and in their order.
    AtLeast(u64, Rc<[u64]>),
}

impl Version {
    /// After a mutation with this version; none if it did not grow.
    fn then(&self, version: Option<u64>) -> Option<Version> {
        let (Version::Known(last) | Version::AtLeast(last, _)) = self;
        let least = last.checked_add(1)?;
        match version {
            Some(version) => (version >= least).then_some(Version::Known(version)),
            None => Some(Version::from(least)),
        }
    }

    /// Some version from this one on.
    fn from(least: u64) -> Version {
        Version::AtLeast(least, Rc::new([]))
    }

    /// Once somebody saw the record to have this version; none if it cannot have.
    fn seen_as(&self, value: Id, seen: Option<u64>) -> Option<Version> {
        match (seen, self) {
            (None, _) => Some(self.clone()),
            (Some(seen), _) if value == ABSENT => (seen == 0).then(|| self.clone()),
            (Some(seen), Version::Known(known)) => (seen == *known).then_some(Version::Known(seen)),
            (Some(seen), Version::AtLeast(least, never)) => {
                (seen >= *least && !never.contains(&seen)).then_some(Version::Known(seen))
            }
        }
    }

    /// Once somebody saw the record not to have this version; none if it must have.
    fn seen_not_as(&self, value: Id, refused: u64) -> Option<Version> {
        match self {
            _ if value == ABSENT => (refused != 0).then(|| self.clone()),
            Version::Known(known) => (refused != *known).then(|| self.clone()),
            Version::AtLeast(least, never) if refused < *least || never.contains(&refused) => {
                Some(Version::AtLeast(*least, Rc::clone(never)))
            }
            Version::AtLeast(least, never) => {
                let (mut least, mut never) = (*least, never.to_vec());
                never.push(refused);
                never.sort_unstable();
                while never.first() == Some(&least) {
                    never.remove(0);
                    least = least.checked_add(1)?;
                }
                Some(Version::AtLeast(least, never.into()))
            }
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
        let version = if self.versioned { state.version.then(version)? } else { Version::Known(0) };
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
        // A record that is there at first was written before the history begins: nobody knows as which version.
        let written = self.versioned && self.initial != ABSENT;
        State { value: self.initial, version: if written { Version::from(1) } else { Version::Known(0) } }
    }

    fn apply(&self, state: &State, step: &Step) -> Option<State> {
        let held = state.value;
        match step {
            Step::Read { value, version } => {
                let fits = value.is_none_or(|value| value == held);
                let version = if self.versioned { *version } else { None };
                let version = state.version.seen_as(held, version)?;
                fits.then_some(State { value: held, version })
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
                let version = if self.versioned { *version } else { None };
                let seen = state.version.seen_as(held, version)?;
                let seen = match expected {
                    Expected::Value(expected) => (*expected != held).then_some(seen)?,
                    Expected::Version(expected) => seen.seen_not_as(held, *expected)?,
                };
                fits.then_some(State { value: held, version: seen })
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
        match (self.versioned, &state.version) {
            (false, _) => value.to_string(),
            (true, Version::Known(version)) => format!("{value}, last written as version {version}"),
            (true, Version::AtLeast(version, never)) => {
                let never: String = never.iter().map(|version| format!(", but not {version}")).collect();
                format!("{value}, last written as some version from {version} on{never}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::{Verdict, check};
    use super::*;
    use crate::history::{Event, EventKind, operation::pair};

    /// An operation that begins and ends at once, as if it had answered so.
    fn done(f: Action, argument: Value, answer: Event) -> [Event; 2] {
        [Event::new(1, EventKind::Invoke, f, argument), Event { process: 1, kind: EventKind::Ok, f, ..answer }]
    }

    fn answer(value: Value) -> Event {
        Event::new(1, EventKind::Ok, Action::Read, value)
    }

    fn verdict(initial: Value, events: &[[Event; 2]]) -> Verdict {
        let operations = pair(events.iter().flatten().cloned()).unwrap();
        check(ModelName::KvVersion, &operations, &Limits { initial, ..Limits::default() })
    }

    /// A write did not say its version, a condition on versions was refused, and a read gave the version that it was refused for.
    #[test]
    fn the_version_that_a_refusal_ruled_out_was_forgotten() {
        let write = done(Action::Write, json!(7), answer(Value::Null));
        let refused = |expected: u64| {
            let said = Event { refused: true, found: Some(json!(7)), ..answer(Value::Null) };
            done(Action::CasVersion, json!([expected, 8]), said)
        };
        let read = |version: u64| done(Action::Read, Value::Null, Event { version: Some(version), ..answer(json!(7)) });
        let refused_then_read = |ruled_out: &[u64], version: u64| {
            let refusals = ruled_out.iter().map(|version| refused(*version));
            let events: Vec<_> = std::iter::once(write.clone()).chain(refusals).chain([read(version)]).collect();
            verdict(Value::Null, &events)
        };
        for ruled_out in [&[1][..], &[3], &[3, 1, 2], &[5, 9]] {
            for version in 1..7 {
                let holds = refused_then_read(ruled_out, version) == Verdict::Valid;
                assert_eq!(holds, !ruled_out.contains(&version), "version {version} after {ruled_out:?}");
            }
        }
    }

    /// A record that was there at first has some version, and keeps it until it is written.
    #[test]
    fn the_first_record_had_no_version_that_could_be_read() {
        let read = |version: u64| done(Action::Read, Value::Null, Event { version: Some(version), ..answer(json!(5)) });
        assert_eq!(verdict(json!(5), &[read(3), read(3)]), Verdict::Valid);
        assert!(matches!(verdict(json!(5), &[read(3), read(4)]), Verdict::Invalid(_)));
        assert!(matches!(verdict(json!(5), &[read(0)]), Verdict::Invalid(_)), "0 is absent");
        assert!(matches!(verdict(Value::Null, &[read(3)]), Verdict::Invalid(_)), "nobody wrote it");
    }
}
