//! Explains a failed search: the operation that fits nowhere, the longest order before it, and the
//! shortest stretch of history that contradicts itself.
//!
//! The search names the operation: the one with the earliest return such that the history up to
//! that return has no order. Then the stretch is shortened from its front while it stays
//! contradictory from every state that the object can have had. If the states cannot be listed, the
//! stretch is the operations open at the failing return plus the last ones placed.

use std::time::{Duration, Instant};

use super::limits::Limits;
use super::search::{Call, Found, Model, Stuck, search};
use super::verdict::Violation;
use crate::history::Operation;

/// Time limit for shortening the stretch; after it, the shortest stretch found so far is reported.
const TIME_MAX: Duration = Duration::from_secs(1);
/// Number of last-placed operations shown if the states cannot be listed.
const PLACED_SHOWN: usize = 8;

/// Builds the violation for a failed search.
pub(crate) fn explain<M: Model>(
    model: &M,
    calls: &[Call<M::Step>],
    stuck: &Stuck<M::State>,
    operations: &[Operation],
    limits: &Limits,
) -> Violation {
    let operation = calls[stuck.call].origin;
    let state = model.describe(&stuck.state);
    let message = format!(
        "no order of the operations explains '{}': after the longest order of message returned before it ({} operations) the object \
         holds {state}",
        operations[operation].describe(),
        stuck.order.len(),
    );
    let mut window: Vec<usize> = match shortest(model, calls, stuck, limits) {
        Some(origins) => origins,
        None => {
            let placed = stuck.order.iter().rev().take(PLACED_SHOWN).map(|index| calls[*index].origin);
            let failed = &calls[stuck.call];
            let open = |call: &&Call<M::Step>| {
                call.invoked < end(calls, stuck) && call.returned.is_none_or(|returned| returned > failed.invoked)
            };
            placed.chain(calls.iter().filter(open).map(|call| call.origin)).collect()
        }
    };
    window.push(operation);
    window.sort_unstable_by_key(|place| operations[*place].invoked);
    window.dedup();
    let placed = stuck.order.iter().map(|index| calls[*index].origin).collect();
    Violation { message, key: None, operation: Some(operation), placed, state, window }
}

/// The position of the return that no order passes.
fn end<M>(calls: &[Call<M>], stuck: &Stuck<impl Sized>) -> u64 {
    calls[stuck.call].returned.unwrap_or(u64::MAX)
}

fn begun_in<S>(calls: &[Call<S>], start: u64, end: u64) -> impl Iterator<Item = &Call<S>> {
    calls.iter().filter(move |call| (start..end).contains(&call.invoked))
}

/// The operations that began in the shortest contradictory stretch, minus unneeded reads. None if
/// no stretch is contradictory from every state, or if the states cannot be listed.
fn shortest<M: Model>(
    model: &M,
    calls: &[Call<M::Step>],
    stuck: &Stuck<M::State>,
    limits: &Limits,
) -> Option<Vec<usize>> {
    let states = model.states()?;
    let end = end(calls, stuck);
    let mut starts: Vec<u64> = begun_in(calls, 0, end).map(|call| call.invoked).collect();
    starts.sort_unstable();
    let deadline = Instant::now() + TIME_MAX;
    let contradictory = |stretch: &[Call<M::Step>]| {
        states.iter().all(|state| {
            let timeout = deadline.saturating_duration_since(Instant::now());
            let limits = Limits { timeout, ..limits.clone() };
            !timeout.is_zero() && matches!(search(model, stretch, state.clone(), &limits), Found::Stuck(_))
        })
    };
    let contradicts = |count: usize| contradictory(&stretch(calls, starts[starts.len() - count], end));
    // A stretch is contradictory if a shorter one is: double the length until it is, then bisect.
    let mut enough = 1;
    while !contradicts(enough) {
        if enough == starts.len() || Instant::now() >= deadline {
            return None;
        }
        enough = (enough * 2).min(starts.len());
    }
    let mut short = enough / 2;
    while enough - short > 1 {
        let middle = usize::midpoint(short, enough);
        if contradicts(middle) { enough = middle } else { short = middle }
    }
    let start = starts[starts.len() - enough];
    let mut needed = stretch(calls, start, end);
    // Removing a read from a legal order leaves a legal order, so an unneeded read can go. Removing
    // a write does not.
    let mut index = 0;
    while index < needed.len() {
        let call = needed.remove(index);
        let is_needed =
            call.origin == calls[stuck.call].origin || !model.is_read(&call.step) || !contradictory(&needed);
        if is_needed {
            needed.insert(index, call);
            index += 1;
        }
    }
    Some(needed.iter().filter(|call| call.invoked >= start).map(|call| call.origin).collect())
}

/// The calls of a stretch. A call open at its start may have taken effect earlier, and one open at
/// its end later, so both lose their return: the search may place them or not.
fn stretch<S: Clone>(calls: &[Call<S>], start: u64, end: u64) -> Vec<Call<S>> {
    let inside =
        calls.iter().filter(|call| call.invoked < end && call.returned.is_none_or(|returned| returned > start));
    let cut = inside.map(|call| Call {
        returned: call.returned.filter(|returned| call.invoked >= start && *returned <= end),
        ..call.clone()
    });
    cut.collect()
}
