//! A counter that starts at 0.

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::super::search::{Call, Model};
use super::super::verdict::Violation;
use super::compiled::{Compiled, unfit, whole};
use super::name::ModelName;
use crate::history::{Action, Operation, Outcome};

/// An operation on a counter, with its result.
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
            // A counter without additions is absent.
            Some(Value::Null) => Some(Step::Read(Some(0))),
            Some(value) => value.as_i64().map(|sum| Step::Read(Some(sum))),
        },
        _ => None,
    }
}

impl Model for Counter {
    type Step = Step;
    /// Wider than the additions, so that no realistic number of them overflows.
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

/// Finds the first read that no order can explain: below the sum of all additions acknowledged
/// before it began, or above the sum of all additions begun before it ended. Takes linear time, so
/// it also covers histories that are too large for a search. For a final read, when only operations
/// with an unknown outcome are open, the check is complete.
pub(crate) fn out_of_bounds(operations: &[Operation], part: &[usize]) -> Option<Violation> {
    // (position, index, whether it is the return)
    let mut events: Vec<(u64, usize, bool)> = Vec::with_capacity(part.len() * 2);
    for place in part.iter().copied() {
        events.push((operations[place].invoked, place, false));
        events.extend(operations[place].returned.map(|returned| (returned, place, true)));
    }
    events.sort_unstable();
    // Sums of the additions that have begun and that have returned, positive and negative apart.
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
                // Additions that had returned before the read began count; concurrent ones may or
                // may not.
                let before = returned_at_begin.remove(&place)?;
                let bounds = before.positive + begun.negative..=before.negative + begun.positive;
                if !bounds.contains(&i128::from(seen)) {
                    let (low, high) = bounds.into_inner();
                    let message = format!(
                        "a counter was read as {seen}, but every order of its additions gives between {low} and {high}"
                    );
                    return Some(Violation::of(message, operations, place, &[]));
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

    /// An intermediate sum may exceed 64 bits.
    #[test]
    fn intermediate_sum_may_exceed_64_bits() {
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
