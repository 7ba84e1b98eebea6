//! A counter that begins at 0.

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::super::Violation;
use super::super::search::{Call, Model};
use super::{Compiled, ModelName, unfit, whole};
use crate::history::{Action, Operation, Outcome};

/// What an operation on a counter does and has seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Add(i64),
    /// None: any sum.
    Read(Option<i64>),
}

pub(crate) struct Counter;

impl Counter {
    pub(crate) fn compile(operations: &[Operation], part: &[usize]) -> Compiled<Counter> {
        let mut calls = Vec::with_capacity(part.len());
        for origin in part.iter().copied() {
            let operation = &operations[origin];
            let step = step(operation).ok_or_else(|| unfit(ModelName::Counter, operation))?;
            calls.push(Call { invoked: operation.invoked, returned: operation.returned, step, origin });
        }
        Ok((Counter, calls))
    }
}

fn step(operation: &Operation) -> Option<Step> {
    match (operation.action, operation.outcome) {
        (_, Outcome::Refused) => None,
        (Action::Add, _) => whole(operation).map(Step::Add),
        (Action::Read, _) => match &operation.result {
            None => Some(Step::Read(None)),
            // A counter that nobody wrote is absent.
            Some(Value::Null) => Some(Step::Read(Some(0))),
            Some(value) => value.as_i64().map(|sum| Step::Read(Some(sum))),
        },
        _ => None,
    }
}

impl Model for Counter {
    type Step = Step;
    /// Wider than what is added: no history has so many additions that it overflows.
    type State = i128;

    fn initial(&self) -> i128 {
        0
    }

    fn apply(&self, state: &i128, step: &Step) -> Option<i128> {
        match step {
            Step::Add(number) => state.checked_add(i128::from(*number)),
            Step::Read(seen) => seen.is_none_or(|seen| i128::from(seen) == *state).then_some(*state),
        }
    }

    fn is_read(&self, step: &Step) -> bool {
        matches!(step, Step::Read(_))
    }

    fn describe(&self, state: &i128) -> String {
        state.to_string()
    }
}

/// The first read that no order can explain, whatever it is: less than all that was acknowledged before it began, or more than
/// all that had begun when it ended. Linear, and so also right for histories that are too much for a search; and for a final
/// read, after which nothing is open but what is unknown, it is all there is to say.
pub(crate) fn out_of_bounds(operations: &[Operation], part: &[usize]) -> Option<Violation> {
    // (position, place, whether it is the return)
    let mut events: Vec<(u64, usize, bool)> = Vec::with_capacity(part.len() * 2);
    for place in part.iter().copied() {
        events.push((operations[place].invoked, place, false));
        events.extend(operations[place].returned.map(|returned| (returned, place, true)));
    }
    events.sort_unstable();
    // All positive and all negative additions that had begun, and that had returned.
    let (mut begun, mut returned) = (Sums::default(), Sums::default());
    let mut returned_at_begin: FxHashMap<usize, Sums> = FxHashMap::default();
    for (_, place, returns) in events {
        match (step(&operations[place])?, returns) {
            (Step::Add(number), false) => begun.add(number),
            (Step::Add(number), true) => returned.add(number),
            (Step::Read(_), false) => {
                returned_at_begin.insert(place, returned);
            }
            (Step::Read(None), true) => {}
            (Step::Read(Some(seen)), true) => {
                // What had returned before it counts; what had begun since, or was open, counts or not.
                let before = returned_at_begin.remove(&place)?;
                let bounds = before.positive + begun.negative..=before.negative + begun.positive;
                if !bounds.contains(&i128::from(seen)) {
                    let (low, high) = bounds.into_inner();
                    let what = format!(
                        "a counter was read as {seen}, but every order of its additions gives between {low} and {high}"
                    );
                    return Some(Violation::of(what, operations, place, &[]));
                }
            }
        }
    }
    None
}

#[derive(Clone, Copy, Default)]
struct Sums {
    positive: i128,
    negative: i128,
}

impl Sums {
    fn add(&mut self, number: i64) {
        self.positive += i128::from(number.max(0));
        self.negative += i128::from(number.min(0));
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Limits, Verdict, check};
    use super::*;
    use crate::history::{Event, EventKind, operation::pair};

    /// A sum beyond 64 bits on the way to one within them.
    #[test]
    fn a_sum_that_overflowed_was_a_violation() {
        let add = |number: i64| [EventKind::Invoke, EventKind::Ok].map(|kind| (kind, Action::Add, Value::from(number)));
        let verdict = |sum: i64| {
            let read =
                [(EventKind::Invoke, Action::Read, Value::Null), (EventKind::Ok, Action::Read, Value::from(sum))];
            let events = [add(i64::MAX), add(1), add(-5), read].into_iter().flatten();
            let operations = pair(events.map(|(kind, f, value)| Event::new(1, kind, f, value))).unwrap();
            check(ModelName::Counter, &operations, &Limits::default())
        };
        assert_eq!(verdict(i64::MAX - 4), Verdict::Valid);
        assert!(matches!(verdict(i64::MAX - 5), Verdict::Invalid(_)));
    }
}
