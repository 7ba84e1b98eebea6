//! Checks eventual reads: the value must have been the key's value at some time, never a future
//! one.
//!
//! A read is correct if it returned the initial value, or a value whose write had begun before the
//! read returned. Counters and sets combine many writes: an eventual read of a set may return any
//! elements whose additions had begun, one of a counter any sum between the bounds. Strings that
//! are appended to are left to the workload, which knows its elements.

use std::collections::HashSet;

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::model::name::ModelName;
use super::verdict::{Verdict, Violation};
use crate::history::{Action, Level, Operation, Outcome};

/// The values written to one key, each with the earliest beginning of its write.
#[derive(Default)]
struct Writes<'a> {
    begun: FxHashMap<&'a Value, (u64, usize)>,
    /// (position, sum of positive additions, sum of negative additions) begun by that position.
    sums: Vec<(u64, i128, i128)>,
    appends: bool,
}

/// Checks every eventual read of the history.
pub(super) fn check(model: ModelName, operations: &[Operation], initial: &Value) -> Verdict {
    let reads = || {
        operations.iter().enumerate().filter(|(_, operation)| {
            operation.level == Level::Eventual && operation.action == Action::Read && operation.outcome == Outcome::Done
        })
    };
    let keys: HashSet<Option<&str>> = reads().map(|(_, read)| read.key.as_deref()).collect();
    let mut writes: FxHashMap<Option<&str>, Writes<'_>> = FxHashMap::default();
    for (place, operation) in operations.iter().enumerate() {
        let key = operation.key.as_deref();
        if keys.contains(&key) {
            writes.entry(key).or_default().note(place, operation);
        }
    }
    for (place, read) in reads() {
        let (Some(value), Some(returned)) = (&read.result, read.returned) else { continue };
        if value == initial || value.is_null() {
            continue;
        }
        let written = writes.get(&read.key.as_deref());
        let wrong = written.and_then(|written| written.wrong(model, value, returned));
        if let Some((message, others)) = wrong {
            return Verdict::Invalid(Box::new(Violation::of(message, operations, place, &others)));
        }
    }
    Verdict::Valid
}

impl<'a> Writes<'a> {
    fn note(&mut self, place: usize, operation: &'a Operation) {
        if operation.outcome == Outcome::Refused {
            return;
        }
        let value = match operation.action {
            Action::Write | Action::Add => Some(&operation.argument),
            Action::Cas | Action::CasVersion => operation.argument.get(1),
            Action::Append => {
                self.appends = true;
                None
            }
            _ => None,
        };
        if let Some(value) = value {
            self.begun.entry(value).or_insert((operation.invoked, place));
        }
        if let (Action::Add, Some(number)) = (operation.action, operation.argument.as_i64()) {
            let (_, more, less) = self.sums.last().copied().unwrap_or_default();
            let number = i128::from(number);
            self.sums.push((operation.invoked, more + number.max(0), less + number.min(0)));
        }
    }

    /// The error in a read that returned this value at this position, and the other operations
    /// involved.
    fn wrong(&self, model: ModelName, value: &Value, returned: u64) -> Option<(String, Vec<usize>)> {
        match (model, value) {
            (ModelName::Counter, _) => {
                let until = self.sums.partition_point(|(position, ..)| *position < returned);
                let (_, more, less) = until.checked_sub(1).map(|last| self.sums[last]).unwrap_or_default();
                let fits = value.as_i64().is_some_and(|sum| (less..=more).contains(&i128::from(sum)));
                let message = || {
                    format!(
                        "an eventual read of a counter returned {value}; the additions begun by then sum to {less} to {more}"
                    )
                };
                (!fits).then(|| (message(), Vec::new()))
            }
            (ModelName::Set, Value::Array(elements)) => {
                elements.iter().find_map(|element| self.never_written(element, returned))
            }
            _ if self.appends => None,
            _ => self.never_written(value, returned),
        }
    }

    fn never_written(&self, value: &Value, returned: u64) -> Option<(String, Vec<usize>)> {
        match self.begun.get(value) {
            None => Some((format!("an eventual read returned {value}, which was never written"), Vec::new())),
            Some((begun, place)) if *begun > returned => {
                Some((format!("an eventual read returned {value} before its write began"), vec![*place]))
            }
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::jsonl;

    fn verdict(model: ModelName, lines: &[&str]) -> Verdict {
        let numbered = lines
            .iter()
            .zip(0..)
            .map(|(line, index)| format!("{{\"index\":{index},\"time\":{index},{line},\"key\":\"k\"}}\n"));
        let operations = jsonl::read(numbered.collect::<String>().as_bytes()).unwrap();
        check(model, &operations, &Value::Null)
    }

    const WRITE: [&str; 2] =
        [r#""process":1,"type":"invoke","f":"write","value":5"#, r#""process":1,"type":"ok","f":"write","value":5"#];
    const BEGIN: &str = r#""process":2,"type":"invoke","f":"read","level":"eventual""#;

    fn end(value: &str) -> String {
        format!(r#""process":2,"type":"ok","f":"read","level":"eventual","value":{value}"#)
    }

    #[test]
    fn eventual_read_may_be_stale_but_not_from_the_future() {
        let register = |lines: &[&str]| verdict(ModelName::KvVersion, lines);
        assert_eq!(register(&[WRITE[0], WRITE[1], BEGIN, &end("null")]), Verdict::Valid);
        assert_eq!(register(&[BEGIN, WRITE[0], &end("5")]), Verdict::Valid);
        let future = register(&[BEGIN, &end("5"), WRITE[0], WRITE[1]]);
        assert!(matches!(&future, Verdict::Invalid(why) if why.message.contains("before")), "{future:?}");
        let made_up = register(&[WRITE[0], WRITE[1], BEGIN, &end("6")]);
        assert!(matches!(&made_up, Verdict::Invalid(why) if why.message.contains("never written")), "{made_up:?}");
    }

    #[test]
    fn eventual_sum_stays_between_its_bounds() {
        let add = r#""process":1,"type":"invoke","f":"add","value":5"#;
        let counter = |sum: &str| verdict(ModelName::Counter, &[add, BEGIN, &end(sum)]);
        assert_eq!(counter("5"), Verdict::Valid);
        assert_eq!(counter("0"), Verdict::Valid);
        assert!(matches!(counter("6"), Verdict::Invalid(_)));
    }
}
