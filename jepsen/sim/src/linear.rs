//! The client oracle: checks that the operations on a key are linearizable. It is the search of
//! Wing and Gong with Lowe's memory ("Testing for linearizability", 2017), for one register with
//! put, delete and conditional put.
//!
//! An operation of unknown outcome may take effect at any time after its invocation, or never. A
//! separate check shows that the versions assigned by the store follow real time.

use std::collections::HashSet;
use std::time::Duration;

use crate::history::{Asked, Came, Operation, ValueId};
use crate::violations::Violation;

/// Steps after which a key is left undecided.
const STEPS_MAX: usize = 3_000_000;

/// The result of the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    /// No order explains the clients' observations. Names an operation that fits in no order.
    Violated(String),
    Undecided,
}

/// An operation in the form that the search uses.
#[derive(Clone, Copy)]
struct Op {
    asked: Asked,
    came: Came,
    invoked: Duration,
    /// None if the outcome is unknown.
    returned: Option<Duration>,
}

impl Op {
    /// The register's value after the operation takes effect on `value`; none if it cannot.
    fn step(&self, value: ValueId) -> Option<ValueId> {
        match (self.asked, self.came) {
            (Asked::Read, Came::Found(found)) => (found == value).then_some(value),
            (Asked::Put(new), _) => Some(new),
            (Asked::Delete, _) => Some(0),
            (Asked::Swap { expected, .. }, Came::Refused) => (expected != value).then_some(value),
            (Asked::Swap { expected, new }, _) => (expected == value).then_some(new),
            (Asked::Read, _) => None,
        }
    }
}

/// The set of operations that the search has placed in the order.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Placed(Vec<u64>);

impl Placed {
    fn has(&self, op: usize) -> bool {
        self.0[op / 64] & (1 << (op % 64)) != 0
    }

    fn flip(&mut self, op: usize) {
        self.0[op / 64] ^= 1 << (op % 64);
    }
}

/// Searches for an order of the operations that gives every recorded answer, with each operation
/// between its invocation and its return.
pub(crate) fn check(operations: &[Operation]) -> Verdict {
    let counts = |operation: &&Operation| {
        !matches!((operation.asked, operation.came), (_, Came::Failed) | (Asked::Read, Came::Unknown))
    };
    let mut ops: Vec<Op> = operations
        .iter()
        .filter(counts)
        .map(|operation| Op {
            asked: operation.asked,
            came: operation.came,
            invoked: operation.invoked,
            returned: (operation.came != Came::Unknown).then_some(operation.returned),
        })
        .collect();
    ops.sort_by_key(|op| op.invoked);
    search(&ops)
}

fn search(ops: &[Op]) -> Verdict {
    let known = ops.iter().filter(|op| op.returned.is_some()).count();
    let mut placed = Placed(vec![0; ops.len().div_ceil(64).max(1)]);
    let mut seen: HashSet<(Placed, ValueId)> = HashSet::new();
    // The placed operations in order, each with the value before it.
    let mut path: Vec<(usize, ValueId)> = Vec::new();
    let (mut value, mut done, mut next, mut first) = (0, 0, 0, 0);
    let (mut furthest, mut stuck) = (0, String::new());
    for _ in 0..STEPS_MAX {
        if done == known {
            return Verdict::Linearizable;
        }
        while first < ops.len() && placed.has(first) {
            first += 1;
        }
        // An operation that was invoked after another one returned cannot precede it.
        let open = || (first..ops.len()).filter(|op| !placed.has(*op));
        let end = open().filter_map(|op| ops[op].returned).min().expect("not all known operations are placed");
        let candidate = open().filter(|op| *op >= next).take_while(|op| ops[*op].invoked <= end).find_map(|op| {
            let after = ops[op].step(value)?;
            let mut with = placed.clone();
            with.flip(op);
            seen.insert((with, after)).then_some((op, after))
        });
        if let Some((op, after)) = candidate {
            path.push((op, value));
            placed.flip(op);
            done += usize::from(ops[op].returned.is_some());
            (value, next) = (after, 0);
            continue;
        }
        if done >= furthest {
            furthest = done;
            let blocked = open().filter(|op| ops[*op].returned == Some(end)).map(|op| describe(&ops[op]));
            stuck = blocked.collect::<Vec<_>>().join("; ");
        }
        let Some((op, before)) = path.pop() else {
            return Verdict::Violated(format!("after {furthest} of {known} operations nothing explains {stuck}"));
        };
        placed.flip(op);
        done -= usize::from(ops[op].returned.is_some());
        first = first.min(op);
        (value, next) = (before, op + 1);
    }
    Verdict::Undecided
}

fn describe(op: &Op) -> String {
    let until = op.returned.map_or(f64::INFINITY, |returned| returned.as_secs_f64());
    format!("{:?} -> {:?} [{:.6}, {until:.6}]", op.asked, op.came, op.invoked.as_secs_f64())
}

/// Checks that a shard assigns each version once, and that a write which began after another one
/// returned has the larger version.
pub(crate) fn check_versions(operations: &[Operation]) -> Result<(), Violation> {
    let mut written: Vec<(&Operation, u64)> = operations
        .iter()
        .filter_map(|operation| match operation.came {
            Came::Written { version } => Some((operation, version)),
            _ => None,
        })
        .collect();
    written.sort_by_key(|(_, version)| *version);
    let mut latest_invoked = Duration::ZERO;
    for pair in written.windows(2) {
        let [(earlier, version), (later, next)] = pair else { continue };
        if version == next {
            return Err(Violation(format!("version {version} was given out twice: {earlier:?} and {later:?}")));
        }
        latest_invoked = latest_invoked.max(earlier.invoked);
        if later.returned < latest_invoked {
            return Err(Violation(format!(
                "version {next} is larger than one that was invoked after it returned: {later:?}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(asked: Asked, came: Came, invoked: u64, returned: u64) -> Operation {
        let at = Duration::from_millis;
        Operation { asked, came, invoked: at(invoked), returned: at(returned) }
    }

    fn put(value: ValueId, invoked: u64, returned: u64) -> Operation {
        op(Asked::Put(value), Came::Written { version: u64::from(value) }, invoked, returned)
    }

    fn read(value: ValueId, invoked: u64, returned: u64) -> Operation {
        op(Asked::Read, Came::Found(value), invoked, returned)
    }

    #[test]
    fn a_stale_read_is_found() {
        assert_eq!(check(&[put(1, 0, 1), put(2, 2, 3), read(2, 4, 5)]), Verdict::Linearizable);
        assert!(matches!(check(&[put(1, 0, 1), put(2, 2, 3), read(1, 4, 5)]), Verdict::Violated(_)));
        assert_eq!(check(&[put(1, 0, 1), put(2, 2, 9), read(1, 4, 5)]), Verdict::Linearizable);
    }

    #[test]
    fn a_write_that_takes_effect_twice_is_found() {
        let twice = [put(1, 0, 10), read(1, 1, 2), put(2, 3, 4), read(2, 5, 6), read(1, 7, 8)];
        assert!(matches!(check(&twice), Verdict::Violated(_)));
    }

    #[test]
    fn an_unknown_write_may_take_effect_late_or_never_but_not_before_it_was_asked_for() {
        let unknown = |at| op(Asked::Put(2), Came::Unknown, at, at + 1);
        assert_eq!(check(&[put(1, 0, 1), unknown(2), read(1, 4, 5), read(2, 6, 7)]), Verdict::Linearizable);
        assert_eq!(check(&[put(1, 0, 1), unknown(2), read(1, 4, 5)]), Verdict::Linearizable);
        assert!(matches!(check(&[put(1, 0, 1), read(2, 2, 3), unknown(4)]), Verdict::Violated(_)));
        assert!(matches!(check(&[put(1, 0, 1), unknown(2), read(2, 4, 5), read(1, 6, 7)]), Verdict::Violated(_)));
    }

    #[test]
    fn a_swap_needs_its_value_and_a_refusal_another_one() {
        let swap = |came| op(Asked::Swap { expected: 1, new: 2 }, came, 2, 3);
        let written = Came::Written { version: 2 };
        assert_eq!(check(&[put(1, 0, 1), swap(written), read(2, 4, 5)]), Verdict::Linearizable);
        assert!(matches!(check(&[put(3, 0, 1), swap(written)]), Verdict::Violated(_)));
        assert!(matches!(check(&[put(1, 0, 1), swap(Came::Refused)]), Verdict::Violated(_)));
        let deleted = op(Asked::Delete, Came::Written { version: 3 }, 4, 5);
        assert_eq!(check(&[put(1, 0, 1), deleted, read(0, 6, 7)]), Verdict::Linearizable);
    }

    #[test]
    fn versions_follow_real_time() {
        assert!(check_versions(&[put(1, 0, 1), put(2, 2, 3)]).is_ok());
        assert!(check_versions(&[put(2, 0, 1), put(1, 2, 3)]).is_err());
        assert!(check_versions(&[put(1, 0, 1), put(1, 2, 3)]).is_err());
        assert!(check_versions(&[put(2, 0, 5), put(1, 2, 3)]).is_ok());
    }
}
