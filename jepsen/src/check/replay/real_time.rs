//! Checks real time: an operation invoked after a revision was observed must not precede that
//! revision.

use rustc_hash::FxHashMap;

use super::super::verdict::Violation;
use super::first::First;
use super::position::is_placed;
use crate::history::{Action, Level, Operation, Outcome};

/// Per operation: the newest revision of its shard observed before it was invoked, and the
/// observer.
pub(super) struct Floors(Vec<Option<(u64, usize)>>);

impl Floors {
    /// The floor of one operation; 0 if no revision was observed before it.
    pub(super) fn of(&self, place: usize) -> u64 {
        self.0[place].map_or(0, |(revision, _)| revision)
    }
}

/// Computes the floors, and notes every operation below its own floor.
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
    // Operations are in invocation order.
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
            && let Some(message) = below(operation, revision)
        {
            first.note(Violation::of(message, operations, place, &[other]));
        }
    }
    Floors(floors)
}

/// The newest revision that an operation proves to exist.
fn shown(operation: &Operation) -> Option<u64> {
    let wrote = operation.version.filter(|_| operation.outcome == Outcome::Done && operation.action != Action::Read);
    operation.revision.max(wrote)
}

/// The error of an operation that was invoked after this revision was observed.
fn below(operation: &Operation, floor: u64) -> Option<String> {
    if !is_placed(operation) || operation.level == Level::Eventual {
        return None;
    }
    let (shard, revision) = (operation.shard?, operation.revision.unwrap_or(u64::MAX));
    let is_write = operation.outcome == Outcome::Done && operation.action != Action::Read;
    if is_write {
        let version = operation.version?;
        let message = || {
            format!("a write became version {version} of shard {shard}, but began after revision {floor} was observed")
        };
        return (version <= floor).then(message);
    }
    let message = || {
        format!("an operation saw revision {revision} of shard {shard}, but began after revision {floor} was observed")
    };
    (revision < floor).then(message)
}
