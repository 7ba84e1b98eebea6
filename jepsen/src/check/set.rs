//! Sets that only grow, decided without a search.
//!
//! If every element is added by one operation, what the reads saw leaves no choice: they must form a chain, each a superset of
//! the one before, and an element is added between the last read without it and the first read with it.
//!
//! ```text
//!   adds of R1 │ reads of R1 │ adds of R2 \ R1 │ reads of R2 │ … │ adds that nobody saw
//! ```
//!
//! There is an order exactly if no operation of a later group returned before one of an earlier group began. That takes time in
//! proportion to what the reads saw, so it also serves the large sets of long runs: an acknowledged element that is not in a
//! later read is lost, one that nobody added is made up, one that comes and goes breaks the chain.

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::Value;

use super::groups::{Group, out_of_order};
use super::model::set::elements_of;
use super::{Verdict, Violation};
use crate::history::{Action, Operation, Outcome};

/// Decides the object; none if it has to be searched: an element is added twice, or something is no operation of a set.
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
        let what = format!("a read of a set saw {element} twice");
        return Some(Verdict::Invalid(Box::new(Violation::of(what, operations, place, &[]))));
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
    // Reads that saw the same elements form one group; ties in size are broken below, by what they saw.
    reads.sort_by_key(|(place, seen)| (seen.len(), operations[*place].invoked));
    let mut groups: Vec<Group> = Vec::new();
    // Of each element that a read saw: that read.
    let mut first_seen: FxHashMap<&Value, usize> = FxHashMap::default();
    let mut last: Option<usize> = None;
    for (place, seen) in reads {
        let mut added = Group::default();
        let mut distinct = 0;
        for element in seen {
            let Some(add) = adds.get(element) else {
                let what = format!("a read of a set saw {element}, which nobody added");
                return Some(Violation::of(what, operations, place, &[]));
            };
            match first_seen.insert(element, place) {
                Some(before) => {
                    first_seen.insert(element, before);
                    distinct += 1;
                }
                None => added.push(*add, &operations[*add]),
            }
        }
        // It saw everything that smaller reads saw exactly if nothing of that is missing.
        if distinct + added.len() != first_seen.len() {
            let missing = first_seen.iter().find(|(element, _)| !seen.contains(element));
            let (element, other) = missing.map_or((&Value::Null, place), |(element, other)| (*element, *other));
            let what =
                format!("reads of a set contradict each other: one saw {element}, and one that saw no less did not");
            return Some(Violation::of(what, operations, place, &[other]));
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

/// `earlier` returned before `later` began, and what the reads saw puts them the other way round.
fn misplaced(operations: &[Operation], earlier: usize, later: usize) -> Violation {
    if operations[later].action != Action::Read {
        let what = format!("a read of a set has the element {} before it was added", operations[later].argument);
        return Violation::of(what, operations, earlier, &[later]);
    }
    let element = &operations[earlier].argument;
    let what = match operations[earlier].action {
        Action::Add => format!("the element {element} was acknowledged, but a later read does not have it"),
        _ => "a read of a set has less than one that returned before it began".to_owned(),
    };
    Violation::of(what, operations, later, &[earlier])
}
