//! Passes that make a search smaller where outcomes are unknown. None of them changes a verdict, and each is tested alone
//! against the search without it.
//!
//! An operation with an unknown outcome stays open to the end of the history, so each can double the work. The first three passes
//! work on the calls of a [`Record`](super::model::record), before the search; the others steer it.
//!
//! | pass | what it does | why it is sound |
//! |---|---|---|
//! | `drop_reads` | drops reads without an answer | they changed nothing and said nothing |
//! | `bound_observed` | an unknown write whose value only it wrote, and which somebody saw, returned before that one did | its effect was there by then |
//! | `drop_unobserved` | drops an unknown write whose value nobody can have seen | whatever stands between it and the next write is as legal without it. Not so where a refused condition says nothing but "it was not x": the dropped write may be the explanation; such objects are left alone |
//! | `eager` | places at once a read or refusal that fits | it changes nothing, so wherever else it would fit, everything else still does without it. (A write that happens to change nothing here may have to change something later.) |
//! | `symmetric` | of equal operations the one that began and returned first is placed first | they can change places |
//! | `dominated` | passes over a configuration that used more unknown operations than a known one | see `search/seen.rs` |
//!
//! The second is etcd's (its robustness tests bound writes that a watch showed); the others are our own.

use rustc_hash::{FxHashMap, FxHashSet};

use super::model::record::{ABSENT, Id, Step};
use super::search::Call;

/// Which passes are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    /// Drops unanswered reads.
    pub drop_reads: bool,
    /// Lets observed unknown writes return before their observer does.
    pub bound_observed: bool,
    /// Drops unknown writes that nobody can have seen.
    pub drop_unobserved: bool,
    /// Places reads and refusals at once where they fit.
    pub eager: bool,
    /// Orders equal operations.
    pub symmetric: bool,
    /// Passes over dominated configurations.
    pub dominated: bool,
}

impl Passes {
    /// All of them.
    pub const ALL: Passes = Passes {
        drop_reads: true,
        bound_observed: true,
        drop_unobserved: true,
        eager: true,
        symmetric: true,
        dominated: true,
    };
    /// None: the plain search, for comparison.
    pub const NONE: Passes = Passes {
        drop_reads: false,
        bound_observed: false,
        drop_unobserved: false,
        eager: false,
        symmetric: false,
        dominated: false,
    };
}

/// Runs the passes that work on the calls of one record, which holds `initial` at first.
pub(crate) fn shrink(calls: &mut Vec<Call<Step>>, initial: Id, passes: Passes) {
    if passes.drop_reads {
        calls.retain(|call| call.returned.is_some() || !matches!(call.step, Step::Read { .. }));
    }
    // What an append makes depends on what was there: who wrote a value is not plain then.
    if calls.iter().any(|call| matches!(call.step, Step::Append { .. })) {
        return;
    }
    if passes.bound_observed {
        bound_observed(calls, initial);
    }
    if passes.drop_unobserved {
        drop_unobserved(calls);
    }
}

fn bound_observed(calls: &mut [Call<Step>], initial: Id) {
    let mut writers: FxHashMap<Id, Vec<usize>> = FxHashMap::default();
    for (index, call) in calls.iter().enumerate() {
        if let Some(value) = call.step.writes() {
            writers.entry(value).or_default().push(index);
        }
    }
    // Of each value: the first return of somebody who saw it, and as which version.
    let mut seen: FxHashMap<Id, (u64, Option<u64>)> = FxHashMap::default();
    for call in calls.iter() {
        let (Some(value), Some(returned)) = (call.step.sees(), call.returned) else { continue };
        let first = seen.entry(value).or_insert((returned, None));
        first.0 = first.0.min(returned);
        first.1 = first.1.or(call.step.sees_version());
    }
    for (value, writers) in writers {
        let [writer] = writers[..] else { continue };
        if value == ABSENT || value == initial || calls[writer].returned.is_some() {
            continue;
        }
        let Some((returned, version)) = seen.get(&value) else { continue };
        // Seen before it began: no order has that, and the search says so.
        if calls[writer].invoked < *returned {
            calls[writer].returned = Some(*returned);
            calls[writer].step.set_version(*version);
        }
    }
}

fn drop_unobserved(calls: &mut Vec<Call<Step>>) {
    let versions: FxHashSet<u64> = calls.iter().filter_map(|call| call.step.wrote_version()).collect();
    let is_blind = |call: &Call<Step>| match call.step {
        Step::Refused { found, .. } => found.is_none(),
        // A version that nobody is known to have written may be that of an unknown write.
        Step::CasVersion { expected, .. } => expected != 0 && !versions.contains(&expected),
        _ => false,
    };
    if calls.iter().any(is_blind) {
        return;
    }
    loop {
        let seen: FxHashSet<Id> = calls.iter().filter_map(|call| call.step.sees()).collect();
        let before = calls.len();
        calls.retain(|call| call.returned.is_some() || call.step.writes().is_none_or(|value| seen.contains(&value)));
        // What a dropped compare-and-set expected is no longer seen by it.
        if calls.len() == before {
            return;
        }
    }
}
