//! Generated histories of a correct store pass the search and the replay; with one altered result
//! they fail.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use quorate_jepsen::check::replay::replay;
use quorate_jepsen::check::{self, Limits, ModelName, Verdict};
use quorate_jepsen::history::generate::{Generator, Kind, Shape};
use quorate_jepsen::history::operation::pair;
use quorate_jepsen::history::{Action, Operation, Outcome, jsonl};
use serde_json::json;

const KINDS: [(Kind, ModelName); 4] = [
    (Kind::Register, ModelName::CasRegister),
    (Kind::KvVersion, ModelName::KvVersion),
    (Kind::Counter, ModelName::Counter),
    (Kind::Set, ModelName::Set),
];

fn operations(shape: Shape) -> Vec<Operation> {
    pair(Generator::new(shape)).unwrap()
}

/// Covers many unknown outcomes, few keys, unique values and repeated values.
#[test]
fn generated_history_is_valid() {
    for (kind, model) in KINDS {
        for (seed, values) in [(1, 0), (2, 0), (3, 4), (4, 40)] {
            let shape = Shape { kind, operations: 2_000, keys: 20, seed, values, ..Shape::default() };
            let operations = operations(shape);
            let verdict = check::check(model, &operations, &Limits::default());
            assert_eq!(verdict, Verdict::Valid, "{kind:?}, seed {seed}: the search");
            let report = replay(&operations);
            assert_eq!(report.verdict, Verdict::Valid, "{kind:?}, seed {seed}: the replay");
            assert!(report.placed > operations.len() * 8 / 10, "{report:?}");
        }
    }
}

/// A read of a value that was never written is found among thousands of operations, with its key
/// and a short window.
#[test]
fn altered_read_is_found_and_explained() {
    for seed in 0..10 {
        let mut operations = operations(Shape { operations: 5_000, seed, ..Shape::default() });
        let place = operations.iter().rposition(|o| o.action == Action::Read && o.outcome == Outcome::Done).unwrap();
        operations[place].result = Some(json!("never written"));
        let verdict = check::check(ModelName::CasRegister, &operations, &Limits::default());
        let Verdict::Invalid(violation) = verdict else { panic!("seed {seed}: {verdict:?}") };
        assert_eq!(violation.operation, Some(place), "seed {seed}");
        assert_eq!(violation.key.as_deref(), operations[place].key.as_deref());
        let others = violation.window.iter().filter(|other| **other != place);
        let is_read = |other: &usize| operations[*other].action == Action::Read;
        assert!(others.clone().count() < 10 && !others.clone().any(is_read), "{:?}", violation.window);
    }
}

/// A stale read is explained by the read itself and the newer write alone.
#[test]
fn window_of_a_stale_read_is_minimal() {
    let event = |index: u64, process: u64, kind: &str, f: &str, value: i64| {
        let value = if f == "read" && kind == "invoke" { json!(null) } else { json!(value) };
        json!({"index": index, "time": 0, "process": process, "type": kind, "f": f, "value": value, "key": "k"})
            .to_string()
    };
    let mut lines = Vec::new();
    for value in 0..50 {
        let index = lines.len() as u64;
        lines.extend([event(index, 1, "invoke", "write", value), event(index + 1, 1, "ok", "write", value)]);
        lines.extend([event(index + 2, 2, "invoke", "read", value), event(index + 3, 2, "ok", "read", value)]);
    }
    let index = lines.len() as u64;
    lines.extend([event(index, 3, "invoke", "read", 48), event(index + 1, 3, "ok", "read", 48)]);
    let operations = jsonl::read(lines.join("\n").as_bytes()).unwrap();
    let verdict = check::check(ModelName::CasRegister, &operations, &Limits::default());
    let Verdict::Invalid(violation) = verdict else { panic!("{verdict:?}") };
    assert_eq!((violation.operation, violation.window), (Some(100), vec![99, 100]));
    assert_eq!((violation.placed.len(), violation.state.as_str()), (100, "49"));
}

/// Reaching a limit gives *unknown*, never another verdict.
#[test]
fn reached_limit_is_unknown() {
    let hard =
        operations(Shape { operations: 3_000, keys: 1, keys_in_use: 1, values: 3, unknown: 0.3, ..Shape::default() });
    let limits = Limits { timeout: std::time::Duration::ZERO, ..Limits::default() };
    let Verdict::Unknown(why) = check::check(ModelName::CasRegister, &hard, &limits) else {
        panic!("without time there is no verdict")
    };
    assert!(why.contains("no verdict within"), "{why}");
    let limits = Limits { total: std::time::Duration::ZERO, ..Limits::default() };
    let Verdict::Unknown(why) = check::check(ModelName::CasRegister, &hard, &limits) else {
        panic!("without total time there is no verdict")
    };
    assert!(why.contains("all keys"), "{why}");
    let limits = Limits { memory_bytes_max: 1_000, ..Limits::default() };
    let Verdict::Unknown(why) = check::check(ModelName::CasRegister, &hard, &limits) else {
        panic!("without memory there is no verdict")
    };
    assert!(why.contains("memory"), "{why}");
}

/// Covers an acknowledged element missing from a later read, one that was never added, and one
/// returned twice.
#[test]
fn altered_read_of_a_set_is_found() {
    let original = operations(Shape { kind: Kind::Set, operations: 300, keys: 1, unknown: 0.0, ..Shape::default() });
    let last = original.iter().rposition(|o| o.action == Action::Read).unwrap();
    let altered = |alter: &dyn Fn(&mut Vec<serde_json::Value>)| {
        let mut operations = original.clone();
        alter(operations[last].result.as_mut().unwrap().as_array_mut().unwrap());
        match check::check(ModelName::Set, &operations, &Limits::default()) {
            Verdict::Invalid(violation) => violation.message,
            other => panic!("{other:?}"),
        }
    };
    let lost = altered(&|elements| drop(elements.remove(0)));
    assert!(lost.contains("contradict") || lost.contains("acknowledged"), "{lost}");
    assert!(altered(&|elements| elements.push(json!(1_000_000))).contains("never added"));
    assert!(altered(&|elements| elements.push(elements[0].clone())).contains("twice"));
}

/// A counter that lost an addition at the end, or counted one twice, is found without a search.
#[test]
fn wrong_final_sum_is_found() {
    let mut operations = operations(Shape {
        kind: Kind::Counter,
        operations: 1_000,
        keys: 1,
        processes: 6,
        unknown: 0.0,
        ..Shape::default()
    });
    let end = operations.iter().filter_map(|o| o.returned).max().unwrap();
    let sum: i64 = operations.iter().filter_map(|o| o.argument.as_i64()).sum();
    let mut read = operations.iter().find(|o| o.action == Action::Read).unwrap().clone();
    (read.invoked, read.returned) = (end + 1, Some(end + 2));
    for (seen, valid) in [(sum, true), (sum - 1, false), (sum + 1, false)] {
        read.result = Some(json!(seen));
        operations.push(read.clone());
        let verdict = check::check(ModelName::Counter, &operations, &Limits::default());
        assert_eq!(verdict == Verdict::Valid, valid, "{seen} of {sum}: {verdict:?}");
        operations.pop();
    }
}
