//! The checker: decides whether a correct store can produce a given history.
//!
//! ```text
//!   operations ─┬─ by key ─► model (one object) ─► unknown (shrinks the work) ─► search ─► explain
//!               ├─ eventual   weaker reads: the value was written, and not in the future
//!               └─ replay     replies with shard and revision: known order, values are compared
//! ```
//!
//! [`check`] decides linearizability: whether each operation can be assigned one moment between its
//! invocation and its return such that a single copy of the object would have given the same
//! results. It needs nothing from the store except the results. [`replay`] trusts the order that
//! the store reports, and finds every contradiction in linear time. A run uses both.
//!
//! ```
//! use quorate_jepsen::check::{self, Limits, ModelName, Verdict};
//! use quorate_jepsen::history::edn;
//!
//! let text = "[{:process 1, :type :invoke, :f :write, :value 1}
//!              {:process 1, :type :ok, :f :write, :value 1}
//!              {:process 2, :type :invoke, :f :read, :value nil}
//!              {:process 2, :type :ok, :f :read, :value 2}]";
//! let operations = edn::history(text).unwrap();
//! let verdict = check::check(ModelName::CasRegister, &operations, &Limits::default());
//! let Verdict::Invalid(violation) = verdict else { panic!("2 was never written") };
//! assert_eq!(violation.operation, Some(1));
//! ```
//!
//! Deliberately absent: transactions over several keys of the store (list-append and similar),
//! which need other criteria. Read `model`, then `search`.

mod eventual;
mod explain;
mod groups;
mod limits;
mod list;
mod model;
pub mod replay;
mod search;
mod set;
pub mod timeline;
mod unknown;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::history::Operation;

pub use limits::{Limits, MEMORY_BYTES_MAX, Passes, TIMEOUT_DEFAULT, TOTAL_DEFAULT};
pub use model::name::ModelName;
pub use verdict::{Verdict, Violation};

/// Checks a history against a model: strong operations for linearizability, eventual reads against
/// their weaker promise.
///
/// Keys are independent (except in `multi-register`, which is one object) and are searched in
/// parallel. The verdict is *invalid* if any key is invalid, else *unknown* if any key is unknown.
/// Of several violations, the one that was complete first is reported. A history with an operation
/// that the model does not support is *unknown*.
pub fn check(model: ModelName, operations: &[Operation], limits: &Limits) -> Verdict {
    let deadline = Instant::now() + limits.total;
    let eventual = eventual::check(model, operations, &limits.initial);
    let mut parts = parts(model, operations);
    // Largest first, so that the last core is not left alone with the largest key.
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(vec![eventual]);
    std::thread::scope(|scope| {
        for _ in 0..limits.threads.clamp(1, parts.len().max(1)) {
            scope.spawn(|| {
                while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let verdict = if left.is_zero() {
                        Verdict::Unknown(format!(
                            "the check of all keys took {:?}: some were not searched",
                            limits.total
                        ))
                    } else {
                        let limits = Limits { timeout: limits.timeout.min(left), ..limits.clone() };
                        model::check_object(model, operations, part, &limits)
                    };
                    if verdict != Verdict::Valid {
                        verdicts.lock().expect("only a broken invariant poisons this lock").push(verdict);
                    }
                }
            });
        }
    });
    let mut verdicts = verdicts.into_inner().expect("only a broken invariant poisons this lock");
    verdicts.sort_by_key(|verdict| match verdict {
        Verdict::Invalid(violation) => violation.position(operations),
        _ => u64::MAX,
    });
    verdicts.into_iter().fold(Verdict::Valid, Verdict::and)
}

/// The indices of each object's operations, in invocation order.
fn parts(model: ModelName, operations: &[Operation]) -> Vec<Vec<usize>> {
    let mut parts: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
    for (place, operation) in operations.iter().enumerate().filter(|(_, operation)| operation.is_strong()) {
        let key = if model == ModelName::MultiRegister { None } else { operation.key.as_deref() };
        parts.entry(key).or_default().push(place);
    }
    parts.into_values().collect()
}
