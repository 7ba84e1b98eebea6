//! Decides append-only lists without a search.
//!
//! A list is a string of elements, each appended once and each ending with its only comma. A read
//! shows which appends came before it and in which order; every read must be a prefix of the
//! longest one.
//!
//! ```text
//!   reads of nothing │ 1st append │ reads of 1 │ 2nd append │ reads of 2 │ … │ appends never read
//! ```
//!
//! An order exists exactly if no operation of a later group returned before one of an earlier group
//! began. The check is linear in the total size of the reads, regardless of the number of unknown
//! outcomes, which make a search explode.

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::groups::{Group, out_of_order};
use super::verdict::{Verdict, Violation};
use crate::history::{Action, Operation, Outcome};

/// Decides one object. None if it needs a search: other operations occur, or its strings are not
/// such lists.
pub(crate) fn check(operations: &[Operation], part: &[usize], initial: &Value) -> Option<Verdict> {
    if !initial.is_null() {
        return None;
    }
    let mut appends: FxHashMap<&str, usize> = FxHashMap::default();
    let mut reads: Vec<(usize, &str)> = Vec::new();
    for place in part.iter().copied() {
        let operation = &operations[place];
        match (operation.action, operation.outcome) {
            (Action::Append, Outcome::Done | Outcome::Unknown) => {
                let element = operation.argument.as_str().filter(|element| is_element(element))?;
                if appends.insert(element, place).is_some() {
                    return None;
                }
            }
            (Action::Read, Outcome::Done) => match &operation.result {
                None => {}
                Some(Value::Null) => reads.push((place, "")),
                Some(Value::String(text)) if text.ends_with(',') => reads.push((place, text)),
                Some(_) => return None,
            },
            (Action::Read, Outcome::Unknown) => {}
            _ => return None,
        }
    }
    if appends.is_empty() {
        return None;
    }
    Some(match violation(operations, &appends, &reads) {
        Some(violation) => Verdict::Invalid(Box::new(violation)),
        None => Verdict::Valid,
    })
}

fn is_element(text: &str) -> bool {
    text.find(',').is_some_and(|comma| comma + 1 == text.len())
}

fn violation(operations: &[Operation], appends: &FxHashMap<&str, usize>, reads: &[(usize, &str)]) -> Option<Violation> {
    let (longest, list) = reads.iter().copied().max_by_key(|(_, text)| text.len()).unwrap_or_default();
    // Reads with the same number of elements form one group. They are prefixes of the same list, so
    // the length of the string identifies the group.
    let mut by_length: FxHashMap<usize, Group> = FxHashMap::default();
    for (place, text) in reads {
        if !list.starts_with(text) {
            let message = format!("reads of a list contradict each other: {text} does not begin {list}");
            return Some(Violation::of(message, operations, *place, &[longest]));
        }
        by_length.entry(text.len()).or_default().push(*place, &operations[*place]);
    }
    let mut groups: Vec<Group> = by_length.remove(&0).into_iter().collect();
    let mut unseen = appends.clone();
    let mut length = 0;
    for element in list.split_inclusive(',') {
        let Some(append) = unseen.remove(element) else {
            let message = match appends.contains_key(element) {
                true => format!("a read of a list saw {element} twice"),
                false => format!("a read of a list saw {element}, which was never appended"),
            };
            return Some(Violation::of(message, operations, longest, &[]));
        };
        let mut alone = Group::default();
        alone.push(append, &operations[append]);
        groups.push(alone);
        length += element.len();
        groups.extend(by_length.remove(&length));
    }
    if let Some(place) = by_length.into_values().find_map(|group| group.first()) {
        let message = "a read of a list ends within an element".to_owned();
        return Some(Violation::of(message, operations, place, &[longest]));
    }
    let mut last = Group::default();
    for append in unseen.into_values().filter(|append| operations[*append].outcome == Outcome::Done) {
        last.push(append, &operations[append]);
    }
    groups.push(last);
    out_of_order(&groups).map(|(earlier, later)| misplaced(operations, earlier, later))
}

/// The violation for `earlier`, which returned before `later` began although the reads order them
/// the other way round.
fn misplaced(operations: &[Operation], earlier: usize, later: usize) -> Violation {
    let element = |place: usize| operations[place].argument.as_str().unwrap_or_default();
    let message = match (operations[earlier].action, operations[later].action) {
        (Action::Append, Action::Append) => {
            format!("{} stands before {}, which was acknowledged before it began", element(later), element(earlier))
        }
        (Action::Append, _) => format!("{} was acknowledged, but a later read does not have it", element(earlier)),
        (_, Action::Append) => format!("a read of a list has {} before it was appended", element(later)),
        _ => "a read of a list has less than one that returned before it began".to_owned(),
    };
    let (shown, other) = if operations[later].action == Action::Read { (later, earlier) } else { (earlier, later) };
    Violation::of(message, operations, shown, &[other])
}
