//! The checker: is a history one that a correct store can show?
//!
//! ```text
//!   operations ─┬─ by key ─► model (steps of one object) ─► unknown (passes that shrink the work) ─► search ─► explain
//!               ├─ eventual      reads that promise less: a value that was written, and not from the future
//!               └─ replay        where replies carry shard and revision: the order is known, every value is compared
//! ```
//!
//! [`check`] decides whether a history is linearizable: whether every operation can be given one moment between its invocation
//! and its return such that a single copy of the object would have answered the same. It asks nothing of the store but answers.
//! [`replay`] believes the order that the store reports, and finds in linear time whatever contradicts it. A run uses both.
//!
//! ```
//! use quorate_jepsen::check::{self, Limits, ModelName, Verdict};
//! use quorate_jepsen::history::{edn};
//!
//! let text = "[{:process 1, :type :invoke, :f :write, :value 1} {:process 1, :type :ok, :f :write, :value 1}
//!              {:process 2, :type :invoke, :f :read, :value nil} {:process 2, :type :ok, :f :read, :value 2}]";
//! let operations = edn::history(text).unwrap();
//! let verdict = check::check(ModelName::CasRegister, &operations, &Limits::default());
//! let Verdict::Invalid(violation) = verdict else { panic!("nobody wrote 2") };
//! assert_eq!(violation.operation, Some(1));
//! ```
//!
//! Deliberately not here: transactions over several keys of the store (list-append and its kin), which have other criteria.
//! Read `model`, then `search`.

pub mod eventual;
mod explain;
mod groups;
mod list;
mod model;
pub mod replay;
mod search;
mod set;
pub mod timeline;
mod unknown;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::history::Operation;
pub use model::ModelName;
pub use unknown::Passes;

/// How long the search in one key may take, unless it is told otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// How long the search in all keys of a history may take, unless it is told otherwise.
pub const TOTAL_DEFAULT: Duration = Duration::from_secs(600);
/// How many bytes the search in one key may use for what it has seen: with two cores, two such searches stay below 1 GB.
pub const MEMORY_BYTES_MAX: usize = 384 << 20;

/// Bounds of a check, and how it goes about it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long the search in one key may take before its verdict is *unknown*.
    pub timeout: Duration,
    /// How long the whole check may take: the keys that are not done by then are *unknown*.
    pub total: Duration,
    /// How many bytes the memory of the search in one key may take before its verdict is *unknown*.
    pub memory_bytes_max: usize,
    /// How many keys are searched at a time.
    pub threads: usize,
    /// What a register, key or set of registers holds at first; null is absent. Null by default.
    pub initial: Value,
    /// Which passes make the search smaller. All of them by default; none of them changes a verdict.
    pub passes: Passes,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            timeout: TIMEOUT_DEFAULT,
            total: TOTAL_DEFAULT,
            memory_bytes_max: MEMORY_BYTES_MAX,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            initial: Value::Null,
            passes: Passes::ALL,
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// A correct store can show this history.
    Valid,
    /// No correct store can.
    Invalid(Box<Violation>),
    /// It could not be decided, for this reason. Never to be counted as valid.
    Unknown(String),
}

impl Verdict {
    /// Of two verdicts on one history, the one that counts: a violation before a doubt, a doubt before nothing.
    #[must_use]
    pub fn and(self, other: Verdict) -> Verdict {
        match (self, other) {
            (invalid @ Verdict::Invalid(_), _) | (_, invalid @ Verdict::Invalid(_)) => invalid,
            (unknown @ Verdict::Unknown(_), _) | (_, unknown @ Verdict::Unknown(_)) => unknown,
            (Verdict::Valid, Verdict::Valid) => Verdict::Valid,
        }
    }
}

/// Why a history is not valid. Operations are named by their places in the list that was checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Violation {
    /// What is wrong, in one or two sentences.
    pub what: String,
    /// The key that it is about.
    pub key: Option<String>,
    /// The operation that has no place in any order.
    pub operation: Option<usize>,
    /// The longest order found of the operations before that one, all of them placed; empty where there was no search.
    pub placed: Vec<usize>,
    /// What the object holds after that order.
    pub state: String,
    /// The operations of the shortest stretch of history that is contradictory in itself, in the order of their invocations.
    pub window: Vec<usize>,
}

impl Violation {
    /// A violation that one operation shows together with some others.
    pub(crate) fn of(what: String, operations: &[Operation], operation: usize, others: &[usize]) -> Violation {
        let mut window: Vec<usize> = others.iter().copied().chain([operation]).collect();
        window.sort_unstable_by_key(|place| operations[*place].invoked);
        window.dedup();
        let key = operations[operation].key.as_deref().map(str::to_owned);
        Violation { what, key, operation: Some(operation), window, ..Violation::default() }
    }

    /// When the violation was complete: the position at which its operation returned.
    pub(crate) fn position(&self, operations: &[Operation]) -> u64 {
        self.operation.and_then(|place| operations[place].returned).unwrap_or(u64::MAX)
    }

    /// The violation in some lines of text: what, and the window's operations.
    pub fn explain<'a>(&'a self, operations: &'a [Operation]) -> impl fmt::Display + 'a {
        Explanation { violation: self, operations }
    }
}

/// The window's operations that are named in a text; the timeline shows all of them.
const NAMED_MAX: usize = 20;

struct Explanation<'a> {
    violation: &'a Violation,
    operations: &'a [Operation],
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { what, operation, window, .. } = self.violation;
        write!(f, "{what}")?;
        let skipped = window.len().saturating_sub(NAMED_MAX);
        if skipped > 0 {
            write!(f, "\n    … {skipped} operations before")?;
        }
        for place in &window[skipped..] {
            let shown = &self.operations[*place];
            let mark = if Some(*place) == *operation { '*' } else { ' ' };
            let returned = shown.returned.map_or("…".to_owned(), |returned| returned.to_string());
            write!(f, "\n  {mark} events {}–{returned}: {}", shown.invoked, shown.describe())?;
        }
        Ok(())
    }
}

/// Checks a history against a model: strong operations for linearizability, eventual reads for what they promise.
///
/// Keys are independent of each other (but for `multi-register`, which is one object) and are searched in parallel. The
/// verdict is *invalid* if any key's is, else *unknown* if any key's is; of several violations the one that was complete first is
/// reported. A history with an operation that the model does not have is *unknown*.
pub fn check(model: ModelName, operations: &[Operation], limits: &Limits) -> Verdict {
    let deadline = Instant::now() + limits.total;
    let eventual = eventual::check(model, operations, &limits.initial);
    let mut parts = parts(model, operations);
    // The largest first, so that no core is left alone with it at the end.
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
                        verdicts.lock().expect("nothing panics while it holds this lock").push(verdict);
                    }
                }
            });
        }
    });
    let mut verdicts = verdicts.into_inner().expect("nothing panics while it holds this lock");
    verdicts.sort_by_key(|verdict| match verdict {
        Verdict::Invalid(violation) => violation.position(operations),
        _ => u64::MAX,
    });
    verdicts.into_iter().fold(Verdict::Valid, Verdict::and)
}

/// The places of the operations of each object, in the order of their invocations.
fn parts(model: ModelName, operations: &[Operation]) -> Vec<Vec<usize>> {
    let mut parts: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
    for (place, operation) in operations.iter().enumerate().filter(|(_, operation)| operation.is_strong()) {
        let key = if model == ModelName::MultiRegister { None } else { operation.key.as_deref() };
        parts.entry(key).or_default().push(place);
    }
    parts.into_values().collect()
}
