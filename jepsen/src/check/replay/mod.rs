//! Index replay: takes the order of operations from the store's replies and compares every result
//! with it.
//!
//! Replies contain the shard, its *revision* (the number of mutations applied in the state that was
//! read) and a *version*: for a read, that of the record; for a write, the revision that the write
//! created, which no other mutation of the shard has. So the order of a shard's writes is known,
//! and a read at revision R must return the newest write of its key up to R.
//!
//! ```text
//!   shard 3   version   1      2      3      4      5 …
//!             key a     put x                put y
//!             key b            put z  delete
//!             reads            └ a at 2: x   └ a at 4: y, b at 4: absent
//! ```
//!
//! The replay checks, in one pass over the history and one over each key:
//!
//! * No two mutations of a shard have the same version. A version that was read was written, with
//!   the value that was read.
//! * Each read, strong or eventual, returns the newest write up to its revision; a later state
//!   never shows an older write.
//! * A conditional write found the value that it expected. A refused one did not, at some moment
//!   while it was open.
//! * Real time: a strong operation invoked after a revision was observed has at least that
//!   revision, and a write a higher one. Eventual reads are exempt, but the state that they return
//!   is committed and binds later strong operations.
//!
//! Writes with an unknown outcome fill gaps: each may explain one observed version without another
//! writer, if it began early enough and wrote that value; a deletion may explain one absence. The
//! same holds for completed writes whose reply has no version.
//!
//! The replay trusts the store's order (the search in `check` does not), but takes linear time: it
//! handles millions of operations.

mod fillers;
mod first;
mod holding;
mod key;
mod position;
mod real_time;

use rustc_hash::FxHashMap;

use super::verdict::{Verdict, Violation};
use crate::history::{Action, Operation, Outcome};
use fillers::Fillers;
use first::First;
use key::KeyReplay;
use position::is_placed;

/// Result of a replay.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Valid or invalid; unknown if no operation has a position.
    pub verdict: Verdict,
    /// Number of operations with a position in the order of their shard.
    pub placed: usize,
    /// Number of operations with a known outcome but no position: their replies lack shard,
    /// revision or version.
    pub left_out: usize,
}

/// Replays a history in the order of its shards.
pub fn replay(operations: &[Operation]) -> Report {
    let known = operations.iter().filter(|operation| operation.outcome != Outcome::Unknown).count();
    let placed = operations.iter().filter(|operation| is_placed(operation)).count();
    let left_out = known - placed;
    if placed == 0 {
        let reason = "no reply contains shard, revision and version: there is no order to replay".to_owned();
        return Report { verdict: Verdict::Unknown(reason), placed, left_out };
    }
    let verdict = match first_violation(operations) {
        Some(violation) => Verdict::Invalid(Box::new(violation)),
        None => Verdict::Valid,
    };
    Report { verdict, placed, left_out }
}

/// Whether any operation has a position, so that a replay can check something.
pub fn is_replayable(operations: &[Operation]) -> bool {
    operations.iter().any(is_placed)
}

/// (shard, key) → the replay of that key.
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
            let message = format!("shard {shard} gave version {version} to two writes");
            first.note(Violation::of(message, operations, place, &[other]));
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
                let message = format!("version {version} of shard {shard} was read as the write of another key");
                first.note(Violation::of(message, operations, place, &[other]));
            }
        }
    }
    first.found
}
