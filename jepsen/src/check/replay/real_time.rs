//! Real time against the order: what was invoked after somebody saw a revision must not be before it.

use rustc_hash::FxHashMap;

use super::super::Violation;
use super::{First, is_placed};
use crate::history::{Action, Level, Operation, Outcome};

/// The newest revision of its shard that was seen before each operation was invoked, and by whom.
pub(super) struct Floors(Vec<Option<(u64, usize)>>);

impl Floors {
    /// Of one operation; 0 if nothing was seen before it.
    pub(super) fn of(&self, place: usize) -> u64 {
        self.0[place].map_or(0, |(revision, _)| revision)
    }
}

/// Computes the floors, and notes every operation that is below its own.
pub(super) fn floors(operations: &[Operation], shards: &FxHashMap<&str, u64>, first: &mut First<'_>) -> Floors {
    let mut returns: Vec<(u64, usize)> = operations
        .iter()
        .enumerate()
        .filter(|(_, operation)| is_placed(operation))
        .filter_map(|(place, operation)| Some((operation.returned?, place)))
        .collect();
    returns.sort_unstable();
    let mut returns = returns.into_iter().peekable();
    let mut reached: FxHashMap<u64, (u64, usize)> = FxHashMap::default();
    let mut floors = vec![None; operations.len()];
    // Operations are in the order of their invocations.
    for (place, operation) in operations.iter().enumerate() {
        while let Some((_, returned)) = returns.next_if(|(position, _)| *position < operation.invoked) {
            let returned_operation = &operations[returned];
            let (Some(shard), Some(revision)) = (returned_operation.shard, shown(returned_operation)) else { continue };
            let highest = reached.entry(shard).or_insert((revision, returned));
            if highest.0 < revision {
                *highest = (revision, returned);
            }
        }
        let key = operation.key.as_deref().unwrap_or_default();
        let shard = operation.shard.or_else(|| shards.get(key).copied());
        let floor = shard.and_then(|shard| reached.get(&shard).copied());
        floors[place] = floor;
        if let Some((revision, other)) = floor
            && let Some(what) = below(operation, revision)
        {
            first.note(Violation::of(what, operations, place, &[other]));
        }
    }
    Floors(floors)
}

/// The newest revision that an operation shows to exist.
fn shown(operation: &Operation) -> Option<u64> {
    let wrote = operation.version.filter(|_| operation.outcome == Outcome::Done && operation.action != Action::Read);
    operation.revision.max(wrote)
}

/// What is wrong with an operation that was invoked after this revision was seen.
fn below(operation: &Operation, floor: u64) -> Option<String> {
    if !is_placed(operation) || operation.level == Level::Eventual {
        return None;
    }
    let (shard, revision) = (operation.shard?, operation.revision.unwrap_or(u64::MAX));
    let is_write = operation.outcome == Outcome::Done && operation.action != Action::Read;
    if is_write {
        let version = operation.version?;
        let what =
            || format!("a write became version {version} of shard {shard}, but began after revision {floor} was seen");
        return (version <= floor).then(what);
    }
    let what =
        || format!("an operation saw revision {revision} of shard {shard}, but began after revision {floor} was seen");
    (revision < floor).then(what)
}
