//! Why there is no order: which operation fits nowhere, how far an order came, and the shortest stretch that shows it.
//!
//! The search says which operation it is: the one with the earliest return such that the history up to that return has no order.
//! The stretch is then made as short as it can be from its front: it must be contradictory by itself, whatever the object held
//! before it. That is tried from every state that the object can have had, where they can be listed; otherwise the stretch is
//! what was open at the failing return and what was placed last.

use std::time::{Duration, Instant};

use super::search::{Call, Found, Model, Stuck, search};
use super::{Limits, Violation};
use crate::history::Operation;

/// How long the stretch may be looked for. When it is over, the shortest one found so far is reported.
const TIME_MAX: Duration = Duration::from_secs(1);
/// How many of the operations placed last are shown where the states cannot be listed.
const PLACED_SHOWN: usize = 8;

/// The violation that a search found.
pub(crate) fn explain<M: Model>(
    model: &M,
    calls: &[Call<M::Step>],
    stuck: &Stuck<M::State>,
    operations: &[Operation],
    limits: &Limits,
) -> Violation {
    let operation = calls[stuck.call].origin;
    let state = model.describe(&stuck.state);
    let what = format!(
        "no order of the operations explains '{}': after the longest order of what returned before it ({} operations) the object \
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
    Violation { what, key: None, operation: Some(operation), placed, state, window }
}

/// The position of the return that no order passes.
fn end<M>(calls: &[Call<M>], stuck: &Stuck<impl Sized>) -> u64 {
    calls[stuck.call].returned.unwrap_or(u64::MAX)
}

fn begun_in<S>(calls: &[Call<S>], start: u64, end: u64) -> impl Iterator<Item = &Call<S>> {
    calls.iter().filter(move |call| (start..end).contains(&call.invoked))
}

/// What began in the shortest contradictory stretch, without the reads that it does not need; none if no stretch is contradictory
/// whatever was before it, or if the states cannot be listed.
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
    // A longer stretch contradicts itself if a shorter one does: double its length until it does, then halve the difference.
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
    // Without a read the others have an order if they had one with it. Of a write that is not so.
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

/// The calls of a stretch. What was open when it began may have happened before, and what is open when it ends later: both may
/// be placed or not.
fn stretch<S: Clone>(calls: &[Call<S>], start: u64, end: u64) -> Vec<Call<S>> {
    let inside =
        calls.iter().filter(|call| call.invoked < end && call.returned.is_none_or(|returned| returned > start));
    let cut = inside.map(|call| Call {
        returned: call.returned.filter(|returned| call.invoked >= start && *returned <= end),
        ..call.clone()
    });
    cut.collect()
}
