//! Lists that only grow, decided without a search.
//!
//! A list is a text to which elements are appended, each once, and each ending with its only comma. What a read saw then says which
//! appends came before it, and in which order; the reads must be beginnings of the longest one.
//!
//! ```text
//!   reads of nothing │ 1st append │ reads of 1 │ 2nd append │ reads of 2 │ … │ appends that nobody saw
//! ```
//!
//! There is an order exactly if no operation of a later group returned before one of an earlier group began. That takes time in
//! proportion to what the reads saw, however many outcomes are unknown: those are what a search chokes on.

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::groups::{Group, out_of_order};
use super::{Verdict, Violation};
use crate::history::{Action, Operation, Outcome};

/// Decides the object; none if it has to be searched: something else happens to it, or its texts are no such lists.
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
    // Reads of as many elements stand together: by the length of their texts, which begin the same list.
    let mut by_length: FxHashMap<usize, Group> = FxHashMap::default();
    for (place, text) in reads {
        if !list.starts_with(text) {
            let what = format!("reads of a list contradict each other: {text} does not begin {list}");
            return Some(Violation::of(what, operations, *place, &[longest]));
        }
        by_length.entry(text.len()).or_default().push(*place, &operations[*place]);
    }
    let mut groups: Vec<Group> = by_length.remove(&0).into_iter().collect();
    let mut unseen = appends.clone();
    let mut length = 0;
    for element in list.split_inclusive(',') {
        let Some(append) = unseen.remove(element) else {
            let what = match appends.contains_key(element) {
                true => format!("a read of a list saw {element} twice"),
                false => format!("a read of a list saw {element}, which nobody appended"),
            };
            return Some(Violation::of(what, operations, longest, &[]));
        };
        let mut alone = Group::default();
        alone.push(append, &operations[append]);
        groups.push(alone);
        length += element.len();
        groups.extend(by_length.remove(&length));
    }
    if let Some(place) = by_length.into_values().find_map(|group| group.first()) {
        let what = "a read of a list ends within an element".to_owned();
        return Some(Violation::of(what, operations, place, &[longest]));
    }
    let mut last = Group::default();
    for append in unseen.into_values().filter(|append| operations[*append].outcome == Outcome::Done) {
        last.push(append, &operations[append]);
    }
    groups.push(last);
    out_of_order(&groups).map(|(earlier, later)| misplaced(operations, earlier, later))
}

/// `earlier` returned before `later` began, and what the reads saw puts them the other way round.
fn misplaced(operations: &[Operation], earlier: usize, later: usize) -> Violation {
    let element = |place: usize| operations[place].argument.as_str().unwrap_or_default();
    let what = match (operations[earlier].action, operations[later].action) {
        (Action::Append, Action::Append) => {
            format!("{} stands before {}, which was acknowledged before it began", element(later), element(earlier))
        }
        (Action::Append, _) => format!("{} was acknowledged, but a later read does not have it", element(earlier)),
        (_, Action::Append) => format!("a read of a list has {} before it was appended", element(later)),
        _ => "a read of a list has less than one that returned before it began".to_owned(),
    };
    let (shown, other) = if operations[later].action == Action::Read { (later, earlier) } else { (earlier, later) };
    Violation::of(what, operations, shown, &[other])
}
