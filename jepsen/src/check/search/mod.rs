//! Searches for an order of the operations in which one object would have given the recorded
//! results.
//!
//! Wing and Gong ("Testing and verifying concurrent objects", 1993) place operations one after the
//! other, choosing among those open before the first remaining return, and backtrack when none
//! fits. Lowe ("Testing for linearizability", 2017) remembers the configurations (placed operations
//! and object state) already tried. Horn and Kroening (FORTE 2015) do both on a doubly linked list
//! of invocations and returns, unlinking the operations that are placed and relinking them on
//! backtracking.
//!
//! ```text
//!   list   inv a ─ inv b ─ ret a ─ inv c ─ ret b ─ ret c
//!   place a:               unlink "inv a" and "ret a"; start again at the front
//!   first return reached:  the operations open here fit nowhere; backtrack: relink the last placed
//!                          operation and try the next one
//! ```
//!
//! Departures: operations with an unknown outcome have no return and need not be placed; the search
//! ends when all others are. A configuration is stored as (first unplaced operation, later placed
//! ones, state) plus the set of unknown operations used, so its size grows with the concurrency and
//! not with the length of the history. The three `Passes` that steer the search are explained where
//! they are used.

mod list;
mod object;
mod placed;
mod plan;
mod seen;
mod states;

use std::time::Instant;

use super::limits::Limits;
use list::List;
pub(crate) use object::{Call, Model};
use placed::Placed;
use plan::{HEAD, Node, Plan};
use seen::{Config, Seen};
use states::States;

/// Result of a search.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found<T> {
    /// An order exists.
    Order,
    /// No order exists.
    Stuck(Stuck<T>),
    /// A limit was reached.
    GaveUp(String),
}

/// The progress of a search that found no order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stuck<T> {
    /// The call with the earliest return such that the history up to that return has no order.
    pub(crate) call: usize,
    /// The longest order found of the calls that returned before it.
    pub(crate) order: Vec<usize>,
    /// The state after that order.
    pub(crate) state: T,
}

/// Searches for an order of the calls that begins in state `initial`.
pub(crate) fn search<M: Model>(
    model: &M,
    calls: &[Call<M::Step>],
    initial: M::State,
    limits: &Limits,
) -> Found<M::State> {
    let plan = Plan::new(model, calls, limits.passes);
    let mut search = Search::new(model, calls, &plan, initial, limits);
    search.run()
}

/// One placed operation.
#[derive(Clone, Copy)]
struct Frame {
    call: u32,
    /// The state before it.
    before: u32,
    /// No alternative needs to be tried in its place.
    forced: bool,
}

struct Search<'a, M: Model> {
    model: &'a M,
    calls: &'a [Call<M::Step>],
    plan: &'a Plan,
    limits: &'a Limits,
    list: List,
    placed: Placed,
    states: States<M::State>,
    state: u32,
    stack: Vec<Frame>,
    seen: Seen,
    best: Best,
}

/// The farthest point that the search reached.
#[derive(Default)]
struct Best {
    /// (position of the return that no order passed, number of operations placed).
    reached: (u64, usize),
    call: u32,
    order: Vec<u32>,
    state: u32,
    /// The length of the common prefix of the stack and `order`.
    common: usize,
}

/// Rounds between two checks of the time and memory limits.
const ROUNDS_PER_LOOK: u64 = 1024;

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, calls: &'a [Call<M::Step>], plan: &'a Plan, initial: M::State, limits: &'a Limits) -> Self {
        Search {
            model,
            calls,
            plan,
            limits,
            list: List::new(plan.nodes.len()),
            placed: Placed::new(plan),
            states: States::new(initial),
            state: 0,
            stack: Vec::new(),
            seen: Seen::new(),
            best: Best::default(),
        }
    }

    fn run(&mut self) -> Found<M::State> {
        let begun = Instant::now();
        let mut node = self.list.next(HEAD);
        let mut rounds: u64 = 0;
        while self.placed.remaining > 0 {
            rounds += 1;
            if rounds.is_multiple_of(ROUNDS_PER_LOOK) {
                if begun.elapsed() > self.limits.timeout {
                    return Found::GaveUp(format!("no verdict within {:?}", self.limits.timeout));
                }
                if self.seen.bytes + self.states.bytes() > self.limits.memory_bytes_max {
                    let mebibytes = self.limits.memory_bytes_max >> 20;
                    return Found::GaveUp(format!("no verdict within {mebibytes} MiB of memory"));
                }
            }
            let Node { call, is_return } = self.plan.nodes[node as usize];
            let tried = if is_return { Tried::Dead } else { self.try_to_place(call) };
            node = match tried {
                Tried::Placed => self.list.next(HEAD),
                Tried::DoesNotFit => self.list.next(node),
                Tried::Dead => {
                    if is_return {
                        self.note_stuck(call);
                    }
                    match self.go_back() {
                        Some(node) => node,
                        None => return Found::Stuck(self.stuck()),
                    }
                }
            };
        }
        Found::Order
    }

    /// Places the call next if it fits and the resulting configuration is new.
    fn try_to_place(&mut self, call: u32) -> Tried {
        let index = call as usize;
        if self.plan.after[index].iter().any(|earlier| !self.placed.holds(self.plan, *earlier)) {
            return Tried::DoesNotFit;
        }
        let Some(after) = self.model.apply(self.states.get(self.state), &self.calls[index].step) else {
            return Tried::DoesNotFit;
        };
        let changes = after != *self.states.get(self.state);
        let definite = self.plan.is_definite[index];
        if !changes && !definite {
            // An optional operation that changes nothing here is useless here.
            return Tried::DoesNotFit;
        }
        let before = self.state;
        let forced = self.limits.passes.eager && !changes && self.model.is_read(&self.calls[index].step);
        self.state = if changes { self.states.number(after) } else { before };
        self.placed.insert(self.plan, index);
        if self.is_new() {
            self.list.unlink(self.plan.ends[index]);
            self.stack.push(Frame { call, before, forced });
            return Tried::Placed;
        }
        self.placed.remove(self.plan, index);
        self.state = before;
        // If even the forced step leads to a tried configuration, so does every alternative here.
        if forced { Tried::Dead } else { Tried::DoesNotFit }
    }

    /// Undoes placements up to and including the last one with alternatives, and returns the node
    /// to try next. None if no alternatives are left.
    fn go_back(&mut self) -> Option<u32> {
        loop {
            let Frame { call, before, forced } = self.stack.pop()?;
            let index = call as usize;
            self.best.common = self.best.common.min(self.stack.len());
            self.state = before;
            self.placed.remove(self.plan, index);
            self.list.relink(self.plan.ends[index]);
            if !forced {
                return Some(self.list.next(self.plan.ends[index].0));
            }
        }
    }

    fn note_stuck(&mut self, call: u32) {
        let position = self.calls[call as usize].returned.unwrap_or(u64::MAX);
        let reached = (position, self.stack.len());
        if reached <= self.best.reached {
            return;
        }
        let best = &mut self.best;
        best.reached = reached;
        best.call = call;
        best.state = self.state;
        best.order.truncate(best.common);
        best.order.extend(self.stack[best.order.len()..].iter().map(|frame| frame.call));
        best.common = best.order.len();
    }

    fn stuck(&self) -> Stuck<M::State> {
        Stuck {
            call: self.best.call as usize,
            order: self.best.order.iter().map(|call| *call as usize).collect(),
            state: self.states.get(self.best.state).clone(),
        }
    }

    fn is_new(&mut self) -> bool {
        let (low, words, used) = (self.placed.low, self.placed.words(self.plan), self.placed.unknown.as_slice());
        self.seen.is_new(&Config { state: self.state, low, words, used }, self.limits.passes.dominated)
    }
}

enum Tried {
    Placed,
    DoesNotFit,
    Dead,
}
