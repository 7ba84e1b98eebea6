//! The value of one key: the models `cas-register`, `kv` and `kv-version`.
//!
//! Values are numbered in order of appearance, so that a state is small. An absent key has the
//! value [`ABSENT`].

use std::cell::RefCell;
use std::rc::Rc;

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::super::limits::Limits;
use super::super::search::{Call, Model};
use super::super::unknown;
use super::compiled::{Compiled, unfit};
use super::name::ModelName;
use super::step::{ABSENT, Expected, Id, Step};
use super::version::Version;
use crate::history::{Action, Operation, Outcome};

/// The state of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    value: Id,
    /// The record's version.
    version: Version,
}

/// A key and its possible values.
pub(crate) struct Record {
    initial: Id,
    versioned: bool,
    values: RefCell<Values>,
    /// The initial value and all values that were written.
    written: Vec<Id>,
}

#[derive(Default)]
struct Values {
    known: Vec<Rc<Value>>,
    numbers: FxHashMap<Rc<Value>, Id>,
    /// (value, appended string) → the resulting value, or none if the append does not fit.
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

    /// Concatenates two strings. An absent key counts as empty; none if either is another kind of
    /// value.
    fn append(&mut self, to: Id, suffix: Id) -> Option<Id> {
        if let Some(made) = self.appended.get(&(to, suffix)) {
            return *made;
        }
        let made = match (&*self.known[to as usize], &*self.known[suffix as usize]) {
            (Value::Null, Value::String(suffix)) => Some(suffix.clone()),
            (Value::String(to), Value::String(suffix)) => Some(format!("{to}{suffix}")),
            _ => None,
        };
        let made = made.map(|text| self.number(&Value::String(text)));
        self.appended.insert((to, suffix), made);
        made
    }
}

impl Record {
    /// Compiles the operations of one key (indices into the history) into calls.
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

/// Converts an operation; none if the model does not support it or its argument has another shape.
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
        // An initial record was written before the history begins, with an unknown version.
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
                format!("{value}, last written as some version of at least {version}{never}")
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

    /// The two events of an operation with this reply and nothing in between.
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

    /// A refused condition on a version rules that version out for later reads. (The record here
    /// was written without a known version.)
    #[test]
    fn refusal_rules_out_the_expected_version() {
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

    /// An initial record has an unknown version and keeps it until the next write.
    #[test]
    fn initial_record_has_some_version() {
        let read = |version: u64| done(Action::Read, Value::Null, Event { version: Some(version), ..answer(json!(5)) });
        assert_eq!(verdict(json!(5), &[read(3), read(3)]), Verdict::Valid);
        assert!(matches!(verdict(json!(5), &[read(3), read(4)]), Verdict::Invalid(_)));
        assert!(matches!(verdict(json!(5), &[read(0)]), Verdict::Invalid(_)), "0 is absent");
        assert!(matches!(verdict(Value::Null, &[read(3)]), Verdict::Invalid(_)), "it was never written");
    }
}
