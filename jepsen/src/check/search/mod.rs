//! The search for an order in which one object would have answered as it did.
//!
//! Wing and Gong ("Testing and verifying concurrent objects", 1993) place, one after the other, operations that are open before
//! the first return that is left, and go back when nothing fits. Lowe ("Testing for linearizability", 2017) remembers the
//! configurations (which operations are placed, and the object's state) that were tried. Horn and Kroening (FORTE 2015) do both
//! on a doubly linked list of invocations and returns, from which operations are lifted and to which they are given back.
//!
//! ```text
//!   list    inv a ─ inv b ─ ret a ─ inv c ─ ret b ─ ret c          place a: lift "inv a" and "ret a"; begin again at the front
//!           first return reached: what is open here fits nowhere   go back: give the last placed operation back, try the next
//! ```
//!
//! Departures: operations whose outcome is unknown have no return and need not be placed; the search ends when all others are.
//! A configuration is kept as (first operation not placed, those placed after it, state) and, apart, the unknown ones used, so
//! that its size follows the concurrency and not the length of the history. The three `Passes` that steer the search are
//! explained where they are used.

mod plan;
mod seen;

use std::hash::Hash;
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::Limits;
use plan::{HEAD, Node, Plan};
use seen::{Config, Seen};

/// One operation as the search sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call<S> {
    /// The position of its invocation.
    pub(crate) invoked: u64,
    /// The position of its return. None: it may be placed or not.
    pub(crate) returned: Option<u64>,
    /// What it does.
    pub(crate) step: S,
    /// Its place in the history.
    pub(crate) origin: usize,
}

/// One object that answers operations.
pub(crate) trait Model {
    /// What an operation does and has seen. Two that are equal can stand for each other.
    type Step: Clone + Eq + Hash;
    /// What the object holds.
    type State: Clone + Eq + Hash;

    /// What it holds at first.
    fn initial(&self) -> Self::State;

    /// What the object holds after the step; none if it would not have answered so.
    fn apply(&self, state: &Self::State, step: &Self::Step) -> Option<Self::State>;

    /// Whether the step never changes anything, in whatever state.
    fn is_read(&self, step: &Self::Step) -> bool;

    /// A number that every step that has one must grow by, whatever the order: it says which of two comes first.
    fn rank(&self, _step: &Self::Step) -> Option<u64> {
        None
    }

    /// Every state that the object can have had in the history; none if they cannot be listed.
    fn states(&self) -> Option<Vec<Self::State>> {
        None
    }

    /// The state in words.
    fn describe(&self, state: &Self::State) -> String;
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found<T> {
    /// There is an order.
    Order,
    /// There is none.
    Stuck(Stuck<T>),
    /// A limit was reached.
    GaveUp(String),
}

/// How far a search came that found no order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stuck<T> {
    /// The call with the earliest return such that the history up to that return has no order.
    pub(crate) call: usize,
    /// The longest order of what returned before it.
    pub(crate) order: Vec<usize>,
    /// The state after that order.
    pub(crate) state: T,
}

/// Searches for an order of the calls that begins in the state.
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
    /// Nothing else needs to be tried in its place.
    forced: bool,
}

struct Search<'a, M: Model> {
    model: &'a M,
    calls: &'a [Call<M::Step>],
    plan: &'a Plan,
    limits: &'a Limits,
    next: Vec<u32>,
    previous: Vec<u32>,
    /// Bits of the definite calls that are placed; all below `low` are.
    placed: Vec<u64>,
    low: usize,
    /// Bits of the unknown calls that are placed.
    used: Vec<u64>,
    remaining: usize,
    states: Vec<M::State>,
    numbers: FxHashMap<M::State, u32>,
    state: u32,
    stack: Vec<Frame>,
    seen: Seen,
    best: Best,
}

/// The furthest that the search came.
#[derive(Default)]
struct Best {
    /// (position of the return that could not be passed, operations placed).
    reached: (u64, usize),
    call: u32,
    order: Vec<u32>,
    state: u32,
    /// The stack and `order` agree below this.
    common: usize,
}

/// Between two looks at the clock.
const ROUNDS_PER_LOOK: u64 = 1024;

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, calls: &'a [Call<M::Step>], plan: &'a Plan, initial: M::State, limits: &'a Limits) -> Self {
        let nodes = u32::try_from(plan.nodes.len()).expect("a history of one object has fewer than 2^32 events");
        Search {
            model,
            calls,
            plan,
            limits,
            next: (1..=nodes).map(|node| node % nodes).collect(),
            previous: (0..nodes).map(|node| (node + nodes - 1) % nodes).collect(),
            placed: vec![0; plan.definite.div_ceil(64) + 1],
            low: 0,
            used: vec![0; plan.unknown.div_ceil(64)],
            remaining: plan.definite,
            states: vec![initial.clone()],
            numbers: FxHashMap::from_iter([(initial, 0)]),
            state: 0,
            stack: Vec::new(),
            seen: Seen::new(),
            best: Best::default(),
        }
    }

    fn run(&mut self) -> Found<M::State> {
        let begun = Instant::now();
        let mut node = self.next[HEAD as usize];
        let mut rounds: u64 = 0;
        while self.remaining > 0 {
            rounds += 1;
            if rounds.is_multiple_of(ROUNDS_PER_LOOK) {
                if begun.elapsed() > self.limits.timeout {
                    return Found::GaveUp(format!("no verdict within {:?}", self.limits.timeout));
                }
                if self.seen.bytes > self.limits.memory_bytes_max {
                    let mebibytes = self.limits.memory_bytes_max >> 20;
                    return Found::GaveUp(format!("no verdict within {mebibytes} MiB of memory"));
                }
            }
            let Node { call, is_return } = self.plan.nodes[node as usize];
            let tried = if is_return { Tried::Dead } else { self.try_to_place(call) };
            node = match tried {
                Tried::Placed => self.next[HEAD as usize],
                Tried::DoesNotFit => self.next[node as usize],
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

    /// Places the call next, if it fits there and the configuration that this gives was not tried.
    fn try_to_place(&mut self, call: u32) -> Tried {
        let index = call as usize;
        if self.plan.after[index].iter().any(|earlier| !self.is_placed(*earlier)) {
            return Tried::DoesNotFit;
        }
        let Some(after) = self.model.apply(&self.states[self.state as usize], &self.calls[index].step) else {
            return Tried::DoesNotFit;
        };
        let changes = after != self.states[self.state as usize];
        let definite = self.calls[index].returned.is_some();
        if !changes && !definite {
            // An operation that need not have happened and changes nothing here is of no use here.
            return Tried::DoesNotFit;
        }
        let before = self.state;
        let forced = self.limits.passes.eager && !changes && self.model.is_read(&self.calls[index].step);
        self.state = if changes { self.number(after) } else { before };
        self.mark(index);
        if self.is_new() {
            self.lift(index);
            self.stack.push(Frame { call, before, forced });
            return Tried::Placed;
        }
        self.unmark(index);
        self.state = before;
        // What is forced leads where nothing was found: so does everything else from here.
        if forced { Tried::Dead } else { Tried::DoesNotFit }
    }

    /// Gives the last placed operation back that was a choice, and goes on after it. None: there is no choice left.
    fn go_back(&mut self) -> Option<u32> {
        loop {
            let Frame { call, before, forced } = self.stack.pop()?;
            let index = call as usize;
            self.best.common = self.best.common.min(self.stack.len());
            self.state = before;
            self.unmark(index);
            self.give_back(index);
            if !forced {
                return Some(self.next[self.plan.ends[index].0 as usize]);
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
            state: self.states[self.best.state as usize].clone(),
        }
    }

    fn number(&mut self, state: M::State) -> u32 {
        if let Some(number) = self.numbers.get(&state) {
            return *number;
        }
        let number = u32::try_from(self.states.len()).expect("the memory bound ends a search long before");
        // Text and sets weigh more than their handle, by how much only they know: this is an estimate.
        self.seen.bytes += 3 * size_of::<M::State>() + 16;
        self.states.push(state.clone());
        self.numbers.insert(state, number);
        number
    }

    fn is_placed(&self, index: usize) -> bool {
        let number = self.plan.number[index];
        let bits = if self.calls[index].returned.is_some() { &self.placed } else { &self.used };
        bits[number / 64] >> (number % 64) & 1 == 1
    }

    fn mark(&mut self, index: usize) {
        let number = self.plan.number[index];
        if self.calls[index].returned.is_none() {
            self.used[number / 64] |= 1 << (number % 64);
            return;
        }
        self.placed[number / 64] |= 1 << (number % 64);
        self.remaining -= 1;
        while self.low < self.plan.definite && self.placed[self.low / 64] >> (self.low % 64) & 1 == 1 {
            self.low += 1;
        }
    }

    fn unmark(&mut self, index: usize) {
        let number = self.plan.number[index];
        if self.calls[index].returned.is_none() {
            self.used[number / 64] &= !(1 << (number % 64));
            return;
        }
        self.placed[number / 64] &= !(1 << (number % 64));
        self.remaining += 1;
        self.low = self.low.min(number);
    }

    fn lift(&mut self, index: usize) {
        let (begin, end) = self.plan.ends[index];
        for node in [begin, end].into_iter().filter(|node| *node != HEAD) {
            let (previous, next) = (self.previous[node as usize], self.next[node as usize]);
            self.next[previous as usize] = next;
            self.previous[next as usize] = previous;
        }
    }

    fn give_back(&mut self, index: usize) {
        let (begin, end) = self.plan.ends[index];
        for node in [end, begin].into_iter().filter(|node| *node != HEAD) {
            let (previous, next) = (self.previous[node as usize], self.next[node as usize]);
            self.next[previous as usize] = node;
            self.previous[next as usize] = node;
        }
    }

    /// Whether the configuration was not tried yet. What was invoked after the first call that is left returned cannot be placed,
    /// so the words from that call to there say everything.
    fn is_new(&mut self) -> bool {
        let first = self.low / 64;
        let end = self.plan.horizon.get(self.low).map_or(first, |horizon| horizon.div_ceil(64));
        let mut words = &self.placed[first..end.max(first)];
        while let [shorter @ .., 0] = words {
            words = shorter;
        }
        let config = Config { state: self.state, low: self.low, words, used: &self.used };
        self.seen.is_new(&config, self.limits.passes.dominated)
    }
}

enum Tried {
    Placed,
    DoesNotFit,
    Dead,
}
