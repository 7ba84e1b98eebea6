//! The replay finds defects planted into histories of a correct store: each kind of wrong result,
//! hundreds of times.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::time::Instant;

use quorate_jepsen::check::Verdict;
use quorate_jepsen::check::replay::replay;
use quorate_jepsen::history::generate::{Generator, Kind, Shape};
use quorate_jepsen::history::operation::pair;
use quorate_jepsen::history::{Action, Level, Operation, Outcome};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

const SEEDS: u64 = 60;

/// A history in which every write reports its version, so that no unobserved write can explain an
/// alteration.
fn history(seed: u64) -> Vec<Operation> {
    let shape = Shape { kind: Kind::KvVersion, operations: 1_500, keys: 15, unknown: 0.0, seed, ..Shape::default() };
    pair(Generator::new(shape)).unwrap()
}

fn is_write(operation: &Operation) -> bool {
    operation.outcome == Outcome::Done && operation.action != Action::Read
}

fn is_strong_read(operation: &Operation) -> bool {
    operation.action == Action::Read && operation.level == Level::Strong
}

/// The value that a write leaves.
fn left(operation: &Operation) -> Value {
    match operation.action {
        Action::Write => operation.argument.clone(),
        Action::Cas | Action::CasVersion => operation.argument[1].clone(),
        _ => Value::Null,
    }
}

/// Alters one operation, chosen among those that `alter` applies to. The replay must find it.
fn planted(name: &str, alter: impl Fn(&[Operation], usize) -> Option<Operation>) {
    let mut planted = 0;
    for seed in 0..SEEDS {
        let mut operations = history(seed);
        assert_eq!(replay(&operations).verdict, Verdict::Valid, "seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let first = rng.random_range(0..operations.len());
        let mut places = (first..operations.len()).chain(0..first);
        let Some((place, altered)) = places.find_map(|place| Some((place, alter(&operations, place)?))) else {
            continue;
        };
        let before = operations[place].describe();
        operations[place] = altered;
        let verdict = replay(&operations).verdict;
        assert!(
            matches!(verdict, Verdict::Invalid(_)),
            "{name}, seed {seed}: '{before}' became '{}'",
            operations[place].describe()
        );
        planted += 1;
    }
    println!("{name}: {planted} planted and found");
    assert!(planted > SEEDS / 2, "{name}: only {planted} could be planted");
}

/// The newest write of the operation's key with a version below this one.
fn write_below<'a>(operations: &'a [Operation], of: &Operation, below: u64) -> Option<&'a Operation> {
    let of_key = |write: &&Operation| is_write(write) && write.key == of.key && write.version < Some(below);
    operations.iter().filter(of_key).max_by_key(|write| write.version)
}

#[test]
fn stale_read_is_found() {
    planted("stale read", |operations, place| {
        let read = Some(&operations[place]).filter(|read| read.action == Action::Read && read.version > Some(0))?;
        let older = write_below(operations, read, read.version?).filter(|older| !left(older).is_null())?;
        Some(Operation { version: older.version, result: Some(left(older)), ..read.clone() })
    });
}

#[test]
fn lost_write_is_found() {
    planted("lost write", |operations, place| {
        let read = Some(&operations[place]).filter(|read| read.action == Action::Read && read.version > Some(0))?;
        Some(Operation { version: Some(0), result: Some(Value::Null), ..read.clone() })
    });
}

#[test]
fn resurrected_record_is_found() {
    planted("deleted record", |operations, place| {
        let read = Some(&operations[place]).filter(|read| read.action == Action::Read && read.version == Some(0))?;
        let older = write_below(operations, read, read.revision?)?;
        let older = write_below(operations, read, older.version?).filter(|older| !left(older).is_null())?;
        Some(Operation { version: older.version, result: Some(left(older)), ..read.clone() })
    });
}

#[test]
fn duplicate_version_is_found() {
    planted("version given twice", |operations, place| {
        let write = Some(&operations[place]).filter(|write| is_write(write))?;
        let other = operations.iter().find(|other| {
            is_write(other) && other.shard == write.shard && other.key != write.key && other.version != write.version
        })?;
        Some(Operation { version: other.version, ..write.clone() })
    });
}

#[test]
fn wrong_value_is_found() {
    planted("wrong value", |operations, place| {
        let read = Some(&operations[place]).filter(|read| read.action == Action::Read && read.version > Some(0))?;
        Some(Operation { result: Some(json!(77_777_777)), ..read.clone() })
    });
}

/// A deposed leader may serve an old state that is consistent in itself.
#[test]
fn strong_read_of_an_old_state_is_found() {
    planted("real time of a read", |operations, place| {
        let read = Some(&operations[place]).filter(|read| is_strong_read(read))?;
        let earlier = operations.iter().filter(|other| {
            other.shard == read.shard && other.returned.is_some_and(|returned| returned < read.invoked)
        });
        let floor = earlier.filter_map(|other| other.revision).max().filter(|floor| *floor > 1)?;
        let state = write_below(operations, read, floor)?;
        let (value, version) = (left(state), state.version?);
        let version = if value.is_null() { 0 } else { version };
        Some(Operation { revision: Some(floor - 1), version: Some(version), result: Some(value), ..read.clone() })
    });
}

#[test]
fn write_below_an_observed_revision_is_found() {
    planted("real time of a write", |operations, place| {
        let write = Some(&operations[place]).filter(|write| write.action == Action::Write && write.invoked > 100)?;
        let used =
            |version| operations.iter().any(|o| is_write(o) && o.shard == write.shard && o.version == Some(version));
        // The generator assigns every revision; only version 0 is free.
        (!used(0)).then(|| Operation { version: Some(0), ..write.clone() })
    });
}

#[test]
fn write_with_an_unmet_condition_is_found() {
    planted("unmet condition", |operations, place| {
        let write = Some(&operations[place]).filter(|write| is_write(write))?;
        let argument = match write.action {
            Action::Cas => json!([88_888_888, write.argument[1]]),
            Action::CasVersion => json!([write.version? - 1, write.argument[1]]),
            _ => return None,
        };
        (argument != write.argument).then(|| Operation { argument, ..write.clone() })
    });
}

#[test]
fn refusal_of_a_met_condition_is_found() {
    planted("refused although it held", |operations, place| {
        let refused = Some(&operations[place]).filter(|refused| refused.outcome == Outcome::Refused)?;
        let expected = match refused.action {
            Action::Cas => refused.result.clone()?,
            _ => json!(refused.version?),
        };
        Some(Operation { argument: json!([expected, refused.argument[1]]), ..refused.clone() })
    });
}

#[test]
fn refusal_by_an_old_record_is_found() {
    planted("refused by an old record", |operations, place| {
        let refused = Some(&operations[place]).filter(|refused| refused.outcome == Outcome::Refused)?;
        // The newest write of the key that returned before this one began, and the write before
        // that.
        let of_key =
            |write: &&Operation| is_write(write) && write.key == refused.key && write.returned < Some(refused.invoked);
        let newest = operations.iter().filter(of_key).max_by_key(|write| write.version)?;
        let older = write_below(operations, refused, newest.version?).filter(|older| !left(older).is_null())?;
        let argument = json!([99_999_999, refused.argument[1]]);
        Some(Operation { version: older.version, result: Some(left(older)), argument, ..refused.clone() })
    });
}

/// A history without positions does not count as valid.
#[test]
fn history_without_positions_is_unknown() {
    let mut operations = history(1);
    for operation in &mut operations {
        operation.revision = None;
        operation.version = None;
    }
    let report = replay(&operations);
    assert!(matches!(report.verdict, Verdict::Unknown(_)), "{report:?}");
    assert_eq!((report.placed, report.left_out), (0, operations.len()));
}

/// Time grows linearly with the history. The README states the time of an optimised build for a
/// million operations.
#[test]
fn long_history_is_replayed_in_seconds() {
    let shape = Shape { kind: Kind::KvVersion, operations: 200_000, keys: 400, ..Shape::default() };
    let operations = pair(Generator::new(shape)).unwrap();
    let begun = Instant::now();
    let report = replay(&operations);
    let took = begun.elapsed();
    println!("{} operations in {took:?}", operations.len());
    assert_eq!(report.verdict, Verdict::Valid);
    assert!(took.as_secs() < 30, "{took:?}");
}
