//! Index replay: the order is what the store says it is, and every answer is compared with it.
//!
//! Replies carry the shard, its *revision* (how many mutations it had seen in the state that was read) and a *version*: that of
//! the record read, or, of a write, the revision that the write made, which no other mutation of the shard has. So the order of
//! the writes of a shard is known, and a read of revision R must have seen the newest write of its key up to R.
//!
//! ```text
//!   shard 3   version   1      2      3      4      5 …
//!             key a     put x                put y
//!             key b            put z  delete
//!             reads            └ a at 2: x   └ a at 4: y, b at 4: absent
//! ```
//!
//! What is checked, in one pass over the history and one over each key:
//!
//! * no version of a shard is given to two mutations, and a version that was read was written, with that value;
//! * every read, strong or eventual, sees the newest write up to its revision; a later state never shows an older one;
//! * a conditional write found what it expected, and a refused one did not, at some moment while it was open;
//! * real time: what was invoked after a revision was seen is not before it, and a write is after it. That holds for strong
//!   operations only; but what an eventual read has shown is committed, and binds the strong ones after it.
//!
//! Writes with an unknown outcome fill the gaps: one may explain one version that was read and that nobody else wrote, if it
//! was begun by then and wrote that value; a deletion, one absence. So do writes that were done but did not say their version.
//!
//! This believes the store about the order (the search in `check` does not), but it takes linear time: millions of operations.

mod fillers;
mod holding;
mod key;
mod real_time;

use rustc_hash::FxHashMap;

use super::{Verdict, Violation};
use crate::history::{Action, Operation, Outcome};
use fillers::Fillers;
use key::KeyReplay;

/// What a replay found.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Valid or invalid; unknown where not one operation says its place.
    pub verdict: Verdict,
    /// Operations that have a place in the order of their shard.
    pub placed: usize,
    /// Operations with a known outcome that have none: their replies do not say shard, revision and version.
    pub left_out: usize,
}

/// Replays a history in the order of its shards.
pub fn replay(operations: &[Operation]) -> Report {
    let known = operations.iter().filter(|operation| operation.outcome != Outcome::Unknown).count();
    let placed = operations.iter().filter(|operation| is_placed(operation)).count();
    let left_out = known - placed;
    if placed == 0 {
        let reason = "no reply says its shard, revision and version: there is no order to replay".to_owned();
        return Report { verdict: Verdict::Unknown(reason), placed, left_out };
    }
    let verdict = match first_violation(operations) {
        Some(violation) => Verdict::Invalid(Box::new(violation)),
        None => Verdict::Valid,
    };
    Report { verdict, placed, left_out }
}

/// Whether any reply says its place, so that a replay has something to say.
pub fn is_replayable(operations: &[Operation]) -> bool {
    operations.iter().any(is_placed)
}

fn is_placed(operation: &Operation) -> bool {
    operation.shard.is_some()
        && match (operation.outcome, operation.action) {
            (Outcome::Unknown, _) => false,
            (Outcome::Refused, _) | (_, Action::Read) => operation.revision.is_some(),
            _ => is_mutation(operation.action) && operation.version.is_some(),
        }
}

fn is_mutation(action: Action) -> bool {
    matches!(action, Action::Write | Action::Cas | Action::CasVersion | Action::Delete | Action::Append | Action::Add)
}

/// Of a shard and a key: the replay of that key.
type Keys<'a> = FxHashMap<(u64, &'a str), KeyReplay<'a>>;

fn first_violation(operations: &[Operation]) -> Option<Violation> {
    let mut first = First { operations, found: None };
    let mut keys: Keys<'_> = FxHashMap::default();
    let mut versions: FxHashMap<(u64, u64), usize> = FxHashMap::default();
    let mut shards: FxHashMap<&str, u64> = FxHashMap::default();
    for (place, operation) in operations.iter().enumerate().filter(|(_, operation)| is_placed(operation)) {
        let (Some(shard), key) = (operation.shard, operation.key.as_deref().unwrap_or_default()) else { continue };
        shards.insert(key, shard);
        if operation.outcome == Outcome::Done
            && operation.action != Action::Read
            && let Some(version) = operation.version
            && let Some(other) = versions.insert((shard, version), place)
        {
            let what = format!("shard {shard} gave version {version} to two writes");
            first.note(Violation::of(what, operations, place, &[other]));
        }
        keys.entry((shard, key)).or_insert_with(|| KeyReplay::new(operations)).add(place);
    }
    let floors = real_time::floors(operations, &shards, &mut first);
    let mut fillers = Fillers::new(operations);
    for ((shard, _), mut replay) in keys {
        replay.run(&mut fillers, &floors, &mut first);
        for (version, place) in replay.filled() {
            let other = versions.insert((shard, version), place).filter(|other| *other != place);
            if let Some(other) = other {
                let what = format!("version {version} of shard {shard} was read as the write of another key");
                first.note(Violation::of(what, operations, place, &[other]));
            }
        }
    }
    first.found
}

/// The violation that was complete first.
struct First<'a> {
    operations: &'a [Operation],
    found: Option<Violation>,
}

impl First<'_> {
    fn note(&mut self, violation: Violation) {
        let position = |violation: &Violation| (violation.position(self.operations), violation.operation);
        if self.found.as_ref().is_none_or(|found| position(&violation) < position(found)) {
            self.found = Some(violation);
        }
    }
}
