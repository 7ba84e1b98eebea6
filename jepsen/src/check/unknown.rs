//! Passes that shrink a search with unknown outcomes. No pass changes a verdict; each is tested
//! alone against the search without it.
//!
//! An operation with an unknown outcome stays open to the end of the history, so each one can
//! double the work. The first three passes rewrite the calls of a [`Record`](super::model::record)
//! before the search; the others steer the search.
//!
//! * `drop_reads` drops reads without a reply. Sound: they change and show nothing.
//! * `bound_observed` gives an unknown write, the only writer of its value, the earliest return of
//!   an operation that observed the value. Sound: the write had taken effect by then.
//! * `drop_unobserved` drops an unknown write whose value no operation can have observed. Sound:
//!   the operations between it and the next write are just as legal without it. The exception is a
//!   refused condition that only shows "it was not x", which the dropped write may explain; objects
//!   with such a refusal are left unchanged.
//! * `eager` immediately places a read or refusal that fits. Sound: it changes nothing, so all
//!   other operations fit as well without it. (A write that happens to change nothing here may have
//!   to change something later.)
//! * `symmetric` orders equal operations: the one that began and returned first is placed first.
//!   Sound: they are interchangeable.
//! * `dominated` skips a configuration that used more unknown operations than a known one; see
//!   `search/seen.rs`.
//!
//! `bound_observed` is etcd's (its robustness tests bound writes that a watch observed); the others
//! are our own.

use rustc_hash::{FxHashMap, FxHashSet};

use super::limits::Passes;
use super::model::step::{ABSENT, Id, Step};
use super::search::Call;

/// Runs the passes that rewrite the calls of one record with this initial value.
pub(crate) fn shrink(calls: &mut Vec<Call<Step>>, initial: Id, passes: Passes) {
    if passes.drop_reads {
        calls.retain(|call| call.returned.is_some() || !matches!(call.step, Step::Read { .. }));
    }
    // The result of an append depends on the value before it, so the writer of a value is
    // ambiguous.
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
    // Per value: the earliest return of an operation that observed it, and the version observed.
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
        // A value observed before its write began fits no order; the search reports that.
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
        // A version without a known writer may be that of an unknown write.
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
        // Dropping a compare-and-set also removes its observation of the expected value.
        if calls.len() == before {
            return;
        }
    }
}
