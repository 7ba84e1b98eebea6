//! Compares the checker with one that tries every order, on thousands of small histories of every
//! model, and each pass with the search without it.
//!
//! A history is made by executing operations one after the other on a simple store, each inside an
//! interval; half of the histories then get one altered result. The reference checker shares only
//! the type of operations with ours.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use quorate_jepsen::check::{self, Limits, ModelName, Passes, Verdict};
use quorate_jepsen::history::{Action, Level, Operation, Outcome};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

const HISTORIES_PER_MODEL: u64 = 2_000;
const OPERATIONS_MAX: usize = 8;

/// Executes the operation: the new value, the outcome and the result. None if it cannot be executed
/// (a lock that is held).
fn perform(operation: &Operation, held: &Value, version: u64) -> Option<(Value, Outcome, Option<Value>)> {
    let argument = &operation.argument;
    let done = |value: Value| Some((value, Outcome::Done, None));
    let refused = || Some((held.clone(), Outcome::Refused, Some(held.clone())));
    match operation.action {
        Action::Read => Some((held.clone(), Outcome::Done, Some(held.clone()))),
        Action::Write => done(argument.clone()),
        Action::Delete => done(Value::Null),
        Action::Cas if argument[0] == *held => done(argument[1].clone()),
        Action::CasVersion if argument[0] == version => done(argument[1].clone()),
        Action::Cas | Action::CasVersion => refused(),
        Action::Append => done(json!(format!("{}{}", held.as_str().unwrap_or(""), argument.as_str().unwrap()))),
        Action::Add if held.is_array() => {
            let mut elements = held.as_array().unwrap().clone();
            if !elements.contains(argument) {
                elements.push(argument.clone());
            }
            elements.sort_by_key(Value::as_i64);
            done(Value::Array(elements))
        }
        Action::Add => done(json!(held.as_i64().unwrap() + argument.as_i64().unwrap())),
        Action::Acquire => {
            if held == false {
                done(json!(true))
            } else {
                refused().map(|(held, ..)| (held, Outcome::Refused, None))
            }
        }
        Action::Release => {
            if held == true {
                done(json!(false))
            } else {
                refused().map(|(held, ..)| (held, Outcome::Refused, None))
            }
        }
        Action::Txn => {
            let mut held = held.clone();
            let mut steps = argument.as_array().unwrap().clone();
            for step in &mut steps {
                let register = step[1].as_str().unwrap().to_owned();
                if step[0] == "read" { step[2] = held[&register].clone() } else { held[&register] = step[2].clone() }
            }
            Some((held, Outcome::Done, Some(Value::Array(steps))))
        }
    }
}

fn initial(model: ModelName) -> Value {
    match model {
        ModelName::CasRegister | ModelName::Kv | ModelName::KvVersion => Value::Null,
        ModelName::Counter => json!(0),
        ModelName::Set => json!([]),
        ModelName::Mutex => json!(false),
        ModelName::MultiRegister => json!({"x": 0, "y": 0}),
    }
}

fn is_versioned(model: ModelName) -> bool {
    model == ModelName::KvVersion
}

fn mutates(operation: &Operation) -> bool {
    operation.outcome != Outcome::Refused && !matches!(operation.action, Action::Read)
}

/// The reference checker: tries every order. Operations with an unknown outcome are optional.
fn has_order(model: ModelName, operations: &[Operation], value: &Value, placed: &mut Vec<usize>) -> bool {
    let left = || (0..operations.len()).filter(|index| !placed.contains(index));
    if left().all(|index| operations[index].outcome == Outcome::Unknown) {
        return !is_versioned(model) || has_versions(operations, placed);
    }
    let first_return = left().filter_map(|index| operations[index].returned).min().unwrap();
    for index in left().collect::<Vec<_>>() {
        let operation = &operations[index];
        if operation.invoked > first_return {
            continue;
        }
        // Versions are checked once the order is complete; until then any version may match.
        let version = operation.argument.get(0).and_then(Value::as_u64).unwrap_or(0);
        let after = match (operation.outcome, operation.action) {
            (Outcome::Done | Outcome::Unknown, Action::CasVersion) => Some(operation.argument[1].clone()),
            (Outcome::Refused, Action::CasVersion) => {
                operation.result.as_ref().is_none_or(|found| found == value).then(|| value.clone())
            }
            _ => perform(operation, value, version).and_then(|(after, outcome, result)| {
                let fits = match operation.outcome {
                    Outcome::Unknown => outcome == Outcome::Done,
                    known => known == outcome && (operation.result.is_none() || operation.result == result),
                };
                fits.then_some(after)
            }),
        };
        if let Some(after) = after {
            placed.push(index);
            let found = has_order(model, operations, &after, placed);
            placed.pop();
            if found {
                return true;
            }
        }
    }
    false
}

/// Whether versions can be assigned to the mutations of an order such that they grow and match
/// every reply.
fn has_versions(operations: &[Operation], order: &[usize]) -> bool {
    // Per mutation: its version if known, whether it left the key absent, and the versions ruled
    // out.
    let mut versions: Vec<(Option<u64>, bool, Vec<u64>)> = vec![(Some(0), true, vec![])];
    for index in order {
        let operation = &operations[*index];
        let (known, absent, never) = versions.last_mut().unwrap();
        let seen = match (operation.outcome, operation.action) {
            (Outcome::Done | Outcome::Unknown, Action::CasVersion) => operation.argument[0].as_u64(),
            (Outcome::Done, Action::Read) | (Outcome::Refused, _) => operation.version,
            _ => None,
        };
        if let Some(seen) = seen {
            let fits = if *absent { seen == 0 } else { *known.get_or_insert(seen) == seen && seen > 0 };
            if !fits {
                return false;
            }
        }
        if operation.outcome == Outcome::Refused && operation.action == Action::CasVersion {
            let expected = operation.argument[0].as_u64().unwrap();
            if !*absent {
                never.push(expected);
            } else if expected == 0 {
                return false;
            }
        }
        if mutates(operation) {
            let leaves = match operation.action {
                Action::Cas | Action::CasVersion => operation.argument[1].is_null(),
                Action::Delete => true,
                _ => operation.argument.is_null(),
            };
            versions.push((operation.version, leaves, vec![]));
        }
    }
    // Each mutation gets its smallest possible version, which leaves the most room for those after
    // it.
    let mut least = 0;
    versions.iter().all(|(known, _, never)| {
        let version = known.unwrap_or_else(|| (least..).find(|version| !never.contains(version)).unwrap());
        let fits = version >= least && !never.contains(&version);
        least = version + 1;
        fits
    })
}

fn plan(model: ModelName, rng: &mut StdRng, version: u64) -> (Action, Value) {
    let number = |rng: &mut StdRng| json!(rng.random_range(0..3));
    let maybe = |rng: &mut StdRng| if rng.random_ratio(1, 4) { Value::Null } else { json!(rng.random_range(0..3)) };
    match (model, rng.random_range(0..10)) {
        (ModelName::Mutex, _) if rng.random() => (Action::Acquire, Value::Null),
        (ModelName::Mutex, _) => (Action::Release, Value::Null),
        (ModelName::MultiRegister, _) => {
            let steps = (0..rng.random_range(1..3)).map(|_| {
                let register = if rng.random() { "x" } else { "y" };
                if rng.random() { json!(["read", register, null]) } else { json!(["write", register, number(rng)]) }
            });
            (Action::Txn, steps.collect())
        }
        (_, 0..4) => (Action::Read, Value::Null),
        (ModelName::Counter, _) => (Action::Add, json!(rng.random_range(-1..3))),
        (ModelName::Set, _) => (Action::Add, json!(rng.random_range(0..8))),
        (ModelName::Kv, 4 | 5) => (Action::Append, json!(if rng.random() { "a" } else { "b" })),
        (ModelName::Kv, 6) => (Action::Write, json!("a")),
        (ModelName::KvVersion, 4 | 5) => {
            (Action::CasVersion, json!([if rng.random() { version } else { rng.random_range(0..6) }, number(rng)]))
        }
        (_, 7) => (Action::Delete, Value::Null),
        (ModelName::Kv, _) => (Action::Cas, json!(["a", "b"])),
        (_, 4..=6) => (Action::Write, number(rng)),
        _ => (Action::Cas, json!([maybe(rng), number(rng)])),
    }
}

/// A read, or an append of a unique element.
fn plan_list(moment: u64, rng: &mut StdRng) -> (Action, Value) {
    if rng.random_ratio(2, 5) { (Action::Read, Value::Null) } else { (Action::Append, json!(format!("{moment},"))) }
}

/// A list that a read might return.
fn some_list(rng: &mut StdRng) -> Value {
    let mut elements: Vec<u64> = (0..OPERATIONS_MAX as u64).filter(|_| rng.random_ratio(1, 3)).collect();
    if rng.random_ratio(1, 3) {
        elements.reverse();
    }
    let list: String = elements.into_iter().map(|element| format!("{element},")).collect();
    if list.is_empty() { Value::Null } else { json!(list) }
}

fn history(model: ModelName, lists: bool, rng: &mut StdRng) -> Vec<Operation> {
    let (mut held, mut version, mut revision) = (initial(model), 0, 0);
    let mut operations = Vec::new();
    for moment in 0..rng.random_range(2..=OPERATIONS_MAX as u64) {
        let (action, argument) = if lists { plan_list(moment, rng) } else { plan(model, rng, version) };
        let mut operation = Operation {
            process: moment,
            key: None,
            action,
            argument,
            outcome: Outcome::Unknown,
            result: None,
            level: Level::Strong,
            invoked: (moment * 10 + 5).saturating_sub(rng.random_range(0..30)),
            returned: None,
            version: None,
            shard: None,
            revision: None,
        };
        let Some((after, outcome, result)) = perform(&operation, &held, version) else { continue };
        let is_unknown = rng.random_ratio(1, 4);
        if !is_unknown || rng.random() {
            let changes = outcome == Outcome::Done && action != Action::Read;
            revision += if changes { rng.random_range(1..3) } else { 0 };
            held = after;
            version = if held.is_null() {
                0
            } else if changes {
                revision
            } else {
                version
            };
        }
        if !is_unknown {
            operation.outcome = outcome;
            operation.result = result;
            operation.returned = Some(moment * 10 + 5 + rng.random_range(1..30));
            let wrote = outcome == Outcome::Done && action != Action::Read;
            operation.version = is_versioned(model).then_some(if wrote { revision } else { version });
            // Some replies do not contain the version.
            if rng.random_ratio(1, 3) {
                operation.version = None;
            }
            // Some refusals do not contain the value found: they are a constraint without an
            // observation.
            if outcome == Outcome::Refused && !is_versioned(model) && rng.random() {
                operation.result = None;
            }
        }
        operations.push(operation);
    }
    if rng.random() {
        alter(model, lists, &mut operations, rng);
    }
    number_events(&mut operations);
    operations
}

/// Alters one result.
fn alter(model: ModelName, lists: bool, operations: &mut [Operation], rng: &mut StdRng) {
    let known: Vec<usize> =
        (0..operations.len()).filter(|index| operations[*index].outcome != Outcome::Unknown).collect();
    let Some(chosen) = known.get(rng.random_range(0..known.len().max(1))) else { return };
    let operation = &mut operations[*chosen];
    if is_versioned(model) && rng.random() {
        operation.version = Some(rng.random_range(0..8));
        return;
    }
    if model == ModelName::Mutex {
        operation.outcome = if operation.outcome == Outcome::Done { Outcome::Refused } else { Outcome::Done };
        return;
    }
    match &mut operation.result {
        Some(Value::Array(steps)) if model == ModelName::MultiRegister => {
            for step in steps.iter_mut().filter(|step| step[0] == "read") {
                step[2] = json!(rng.random_range(0..3));
            }
        }
        Some(result) => {
            *result = match model {
                ModelName::Counter => json!(rng.random_range(0..6)),
                ModelName::Set => (0..8).filter(|_| rng.random()).collect(),
                ModelName::Kv if lists => some_list(rng),
                ModelName::Kv => json!(["a", "b", "ab", "aa", "ba"][rng.random_range(0..5)]),
                _ => json!(rng.random_range(0..3)),
            }
        }
        None => operation.invoked += rng.random_range(0..20),
    }
}

/// Gives each event a unique position, in the order of their times.
fn number_events(operations: &mut [Operation]) {
    let mut events: Vec<(u64, usize, bool)> = Vec::new();
    for (index, operation) in operations.iter_mut().enumerate() {
        operation.returned = operation.returned.map(|returned| returned.max(operation.invoked + 1));
        events.push((operation.invoked, index, false));
        events.extend(operation.returned.map(|returned| (returned, index, true)));
    }
    events.sort_unstable();
    for ((_, index, is_return), position) in events.into_iter().zip(0..) {
        if is_return { operations[index].returned = Some(position) } else { operations[index].invoked = position }
    }
    operations.sort_by_key(|operation| operation.invoked);
}

/// The plain search, each pass alone, and all passes together.
fn all_passes() -> Vec<(&'static str, Passes)> {
    let none = Passes::NONE;
    vec![
        ("none", none),
        ("all", Passes::ALL),
        ("drop_reads", Passes { drop_reads: true, ..none }),
        ("bound_observed", Passes { bound_observed: true, ..none }),
        ("drop_unobserved", Passes { drop_unobserved: true, ..none }),
        ("eager", Passes { eager: true, ..none }),
        ("symmetric", Passes { symmetric: true, ..none }),
        ("dominated", Passes { dominated: true, ..none }),
    ]
}

fn compare(model: ModelName) {
    compare_with(model, false);
}

fn compare_with(model: ModelName, lists: bool) {
    let (mut valid, mut invalid) = (0, 0);
    for seed in 0..HISTORIES_PER_MODEL {
        let operations = history(model, lists, &mut StdRng::seed_from_u64(seed));
        let expected = has_order(model, &operations, &initial(model), &mut Vec::new());
        *(if expected { &mut valid } else { &mut invalid }) += 1;
        for (name, passes) in all_passes() {
            let initial = if model == ModelName::MultiRegister { json!(0) } else { Value::Null };
            let limits = Limits { passes, initial, threads: 1, ..Limits::default() };
            let verdict = check::check(model, &operations, &limits);
            let listed = || operations.iter().map(|o| format!("{}–{:?} {}", o.invoked, o.returned, o.describe()));
            assert!(
                matches!((&verdict, expected), (Verdict::Valid, true) | (Verdict::Invalid(_), false)),
                "{model}, seed {seed}, passes {name}: {verdict:?}, but every order tried says valid: {expected}\n{}",
                listed().collect::<Vec<_>>().join("\n")
            );
        }
    }
    println!("{model}: {valid} valid, {invalid} invalid");
    assert!(valid > HISTORIES_PER_MODEL / 5 && invalid > HISTORIES_PER_MODEL / 20, "{valid} valid, {invalid} invalid");
}

#[test]
fn cas_register_agrees_with_brute_force() {
    compare(ModelName::CasRegister);
}

#[test]
fn kv_agrees_with_brute_force() {
    compare(ModelName::Kv);
}

/// Like `kv`, but decided without a search, from the results of the reads.
#[test]
fn lists_agree_with_brute_force() {
    compare_with(ModelName::Kv, true);
}

#[test]
fn kv_version_agrees_with_brute_force() {
    compare(ModelName::KvVersion);
}

#[test]
fn counter_agrees_with_brute_force() {
    compare(ModelName::Counter);
}

#[test]
fn set_agrees_with_brute_force() {
    compare(ModelName::Set);
}

#[test]
fn mutex_agrees_with_brute_force() {
    compare(ModelName::Mutex);
}

#[test]
fn multi_register_agrees_with_brute_force() {
    compare(ModelName::MultiRegister);
}
