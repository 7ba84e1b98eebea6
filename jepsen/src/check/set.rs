//! Decides grow-only sets without a search.
//!
//! If each element is added by only one operation, the reads fix the order: they form a chain in
//! which each result is a superset of the one before, and each element is added between the last
//! read without it and the first read with it.
//!
//! ```text
//!   adds of R1 │ reads of R1 │ adds of R2 \ R1 │ reads of R2 │ … │ adds never read
//! ```
//!
//! An order exists exactly if no operation of a later group returned before one of an earlier group
//! began. The check is linear in the total size of the reads, so it also handles the large sets of
//! long runs. An acknowledged element missing from a later read is lost; an element without an add
//! is made up; an element that comes and goes breaks the chain.

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::Value;

use super::groups::{Group, out_of_order};
use super::model::set::elements_of;
use super::verdict::{Verdict, Violation};
use crate::history::{Action, Operation, Outcome};

/// Decides one object. None if it needs a search: an element is added twice, or an operation does
/// not belong to sets.
pub(crate) fn check(operations: &[Operation], part: &[usize]) -> Option<Verdict> {
    let mut adds: FxHashMap<&Value, usize> = FxHashMap::default();
    let mut added_twice = false;
    let mut reads: Vec<(usize, &[Value])> = Vec::new();
    for place in part.iter().copied() {
        let operation = &operations[place];
        match (operation.action, operation.outcome) {
            (_, Outcome::Refused) => return None,
            (Action::Add, _) => {
                added_twice |= adds.insert(&operation.argument, place).is_some();
            }
            (Action::Read, Outcome::Done) => {
                if let Some(seen) = elements_of(operation)? {
                    reads.push((place, seen));
                }
            }
            (Action::Read, _) => {}
            _ => return None,
        }
    }
    let twice = reads.iter().find_map(|(place, seen)| Some((*place, twice(seen)?)));
    if let Some((place, element)) = twice {
        let message = format!("a read of a set saw {element} twice");
        return Some(Verdict::Invalid(Box::new(Violation::of(message, operations, place, &[]))));
    }
    if added_twice {
        return None;
    }
    Some(match violation(operations, &adds, reads) {
        Some(violation) => Verdict::Invalid(Box::new(violation)),
        None => Verdict::Valid,
    })
}

fn twice(seen: &[Value]) -> Option<&Value> {
    let mut known: FxHashSet<&Value> = FxHashSet::default();
    seen.iter().find(|element| !known.insert(element))
}

fn violation(
    operations: &[Operation],
    adds: &FxHashMap<&Value, usize>,
    mut reads: Vec<(usize, &[Value])>,
) -> Option<Violation> {
    // Reads that returned the same elements form one group. Reads of equal size with different
    // elements are detected below.
    reads.sort_by_key(|(place, seen)| (seen.len(), operations[*place].invoked));
    let mut groups: Vec<Group> = Vec::new();
    // Element → the read that returned it first.
    let mut first_seen: FxHashMap<&Value, usize> = FxHashMap::default();
    let mut last: Option<usize> = None;
    for (place, seen) in reads {
        let mut added = Group::default();
        let mut distinct = 0;
        for element in seen {
            let Some(add) = adds.get(element) else {
                let message = format!("a read of a set saw {element}, which was never added");
                return Some(Violation::of(message, operations, place, &[]));
            };
            match first_seen.insert(element, place) {
                Some(before) => {
                    first_seen.insert(element, before);
                    distinct += 1;
                }
                None => added.push(*add, &operations[*add]),
            }
        }
        // The read contains all elements of the smaller reads exactly if these counts match.
        if distinct + added.len() != first_seen.len() {
            let missing = first_seen.iter().find(|(element, _)| !seen.contains(element));
            let (element, other) = missing.map_or((&Value::Null, place), |(element, other)| (*element, *other));
            let message =
                format!("reads of a set contradict each other: one saw {element}, and one that saw no less did not");
            return Some(Violation::of(message, operations, place, &[other]));
        }
        if !added.is_empty() || last.is_none() {
            groups.push(added);
            groups.push(Group::default());
        }
        last = Some(place);
        if let Some(group) = groups.last_mut() {
            group.push(place, &operations[place]);
        }
    }
    let mut unseen = Group::default();
    for (element, add) in adds {
        if !first_seen.contains_key(element) && operations[*add].outcome == Outcome::Done {
            unseen.push(*add, &operations[*add]);
        }
    }
    groups.push(unseen);
    out_of_order(&groups).map(|(earlier, later)| misplaced(operations, earlier, later))
}

/// The violation for `earlier`, which returned before `later` began although the reads order them
/// the other way round.
fn misplaced(operations: &[Operation], earlier: usize, later: usize) -> Violation {
    if operations[later].action != Action::Read {
        let message = format!("a read of a set has the element {} before it was added", operations[later].argument);
        return Violation::of(message, operations, earlier, &[later]);
    }
    let element = &operations[earlier].argument;
    let message = match operations[earlier].action {
        Action::Add => format!("the element {element} was acknowledged, but a later read does not have it"),
        _ => "a read of a set has less than one that returned before it began".to_owned(),
    };
    Violation::of(message, operations, later, &[earlier])
}
